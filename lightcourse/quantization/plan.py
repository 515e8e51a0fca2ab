"""Which layers of a model are quantized, to how many bits, and why others are not."""

from collections.abc import Collection, Mapping

from torch import nn

from lightcourse import layers
from lightcourse.integers import integer_matrices, quant_range


def plan_bits(
    model: nn.Module,
    bits: int | Mapping[str, int],
    embeddings: int | None,
    skip: Collection[str],
) -> tuple[dict[tuple[str, ...], int], dict[str, str]]:
    """Decide about each linear layer and each embedding table.

    Parameters
    ----------
    model, bits, embeddings, skip
        As in :func:`quantize_`.

    Returns
    -------
    chosen : dict of tuple of str to int
        From the names that share one weight (a layer's name alone, or those of tables and
        layers) to the number of bits.
    skipped : dict of str to str
        From the names of all other layers and tables to the reason.

    Raises
    ------
    ValueError
        When ``bits`` or ``embeddings`` is out of range, a name is unknown, ``bits`` gives one
        shared weight two numbers, or the model lies on ``meta``.
    """
    wanted = _wanted(model, bits, embeddings, skip)
    chosen, skipped = {}, _computed(model)
    for names in layers.weight_owners(model):
        owners = {name: model.get_submodule(name) for name in names}
        _agree(names, bits, wanted)
        why = {name: _reason(name, owner, wanted, skip) for name, owner in owners.items()}
        if not any(why.values()) and _may_convert(owners, wanted):
            chosen[tuple(names)] = next(wanted[name] for name in names if name in wanted)
            continue
        others = {name: next((n for n in names if n != name), None) for name in names}
        for name, owner in owners.items():
            if why[name] or isinstance(owner, nn.Linear | nn.Embedding) or layers.is_conv1d(owner):
                skipped[name] = why[name] or f"shares its weight with {others[name]}"
    return chosen, skipped | dict.fromkeys(integer_matrices(model), "stores integers already")


def _computed(model):
    """Return the layers whose weight is made from other tensors at each reading, and why."""
    linear = {**layers.linear_layers(model), **layers.tied_layers(model)}
    own = {name: "weight" in model.get_submodule(name)._parameters for name in linear}
    why = "its weight is computed from other tensors, as torch.nn.utils.parametrize does"
    return {name: why for name in linear if not own[name]}


def _agree(names, bits, wanted):
    """Let the number that ``bits`` names for one owner of a weight count for all of them."""
    named = {name: bits[name] for name in names if isinstance(bits, Mapping) and name in bits}
    if len(set(named.values())) > 1:
        raise ValueError(f"bits is {named} for one weight that they share; one number is wanted")
    if named:
        wanted |= dict.fromkeys(wanted.keys() & set(names), next(iter(named.values())))


def _wanted(model, bits, embeddings, skip):
    """Return the bits by name, None where a layer or a table is to be left."""
    linear, tables = layers.linear_layers(model), layers.embedding_tables(model)
    tied = layers.tied_layers(model)
    if isinstance(bits, Mapping):
        _check_names("bits", bits, [*linear, *tables], tied)
    else:
        quant_range(bits)
        bits = dict.fromkeys(linear, bits)
    if embeddings is not None and embeddings not in range(2, 9):
        raise ValueError(f"embeddings is {embeddings}; None or a number from 2 to 8 is wanted")
    _check_names("skip", skip, [*linear, *tables, *tied], {})
    linear = {name: bits.get(name) for name in linear}
    return linear | {name: bits.get(name, embeddings) for name in tables}


def _check_names(argument, names, known, tied):
    if unknown := sorted(set(names) - set(known)):
        hints = [f"; {name} shares the bits of {tied[name]}" for name in unknown if name in tied]
        raise ValueError(
            f"{argument} names {unknown}, which are no linear layers or embedding tables of "
            "this model" + "".join(hints)
        )


def _reason(name, owner, wanted, skip):
    """Return why this owner of a weight is to be left as it is, or None."""
    if name in skip:
        return "named in skip"
    if isinstance(owner, nn.Embedding):
        if name not in wanted:
            return f"a {type(owner).__name__} that looks rows up in its own way"
        if wanted[name] is None:
            return "an embedding table; embeddings=8 would convert it"
        return None
    if isinstance(owner, nn.Linear) and not layers.multiplies_plainly(owner):
        return f"a {type(owner).__name__} that multiplies in its own way"
    return "not named in bits" if wanted.get(name, True) is None else None


def _may_convert(owners, wanted):
    """Tell whether they are tables and layers that all read one matrix the same way round."""
    alike = [isinstance(owner, nn.Linear | nn.Embedding) for owner in owners.values()]
    turned = [layers.is_conv1d(owner) for owner in owners.values()]
    return owners.keys() & wanted.keys() and (all(alike) or all(turned))
