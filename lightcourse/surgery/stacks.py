"""Stacks of transformer layers: which there are, which of their layers may stay, and the config."""

from collections.abc import Mapping, Sequence

from torch import nn

from lightcourse import layers

# Lists in a configuration with an entry for each layer: which attention, which feed-forward.
PER_LAYER = ("layer_types", "mlp_layer_types", "no_rope_layers", "attention_layers")


def layer_stacks(model: nn.Module) -> dict[str, nn.ModuleList]:
    """Return the lists of layers by name: those inside of a layer (its experts) are none.

    One for BERT, GPT-2 and Llama; two for T5 and BART (encoder, decoder) and CLIP's towers.

    Raises
    ------
    ValueError
        When there is none.
    """
    stacks = {}
    for name, module in model.named_modules():
        inside = any(f"{name}.".startswith(f"{outer}.".lstrip(".")) for outer in stacks)
        if isinstance(module, nn.ModuleList) and not inside and _are_layers(module):
            stacks[name] = module
    if not stacks:
        raise ValueError(f"model is a {type(model).__name__} without a ModuleList of layers")
    return stacks


def _are_layers(parts):
    """Tell whether these are blocks with matrices in them, no convolutions or lone heads."""
    return len(parts) and all(any(p.children()) and layers.has_linear(p) for p in parts)


def check_layers(stacks: Mapping[str, nn.ModuleList], kept: Sequence[int]) -> None:
    """Raise where a stack cannot go on with the layers ``kept``, the argument ``layers``.

    Raises
    ------
    ValueError
        When ``kept`` is empty, names a missing layer or one layer twice, or does not begin
        with layer 0 where that one holds what the others share (T5's table of distances).
    """
    for name, stack in stacks.items():
        _check_stack(name, stack, kept)


def check_first(name: str, stack: nn.ModuleList, kept: Sequence[int], given: object) -> None:
    """Raise where a stack would lose what its first layer holds for the others.

    Parameters
    ----------
    name : str
    stack : nn.ModuleList
    kept : sequence of int
        Its layers in their new order.
    given : object
        The argument ``layers`` of the verb, for the message.

    Raises
    ------
    ValueError
    """
    first, *others = [{name for name, _ in layer.named_parameters()} for layer in stack]
    own = sorted(first.difference(*others)) if others else []
    if own and kept[0] != 0:
        raise ValueError(
            f"layers is {given}; layer 0 must be the first: it holds {own[0]} for all of {name}"
        )


def _check_stack(name, stack, kept):
    known = set(kept) <= set(range(len(stack)))
    if not kept or not known or len(set(kept)) < len(kept):
        raise ValueError(
            f"layers is {kept}; some of the layers 0..{len(stack) - 1} are wanted, each once "
            f"({name or 'the model'} has {len(stack)})"
        )
    check_first(name, stack, kept, kept)


def note_layers(
    model: nn.Module, lengths: Mapping[str, int], kept: Mapping[str, Sequence[int]]
) -> None:
    """Let a model whose stacks have other layers than before tell so, its configurations too.

    Parameters
    ----------
    model : nn.Module
        Changed in place. Its stacks hold the kept layers already.
    lengths : mapping of str to int
        By the stacks' names, how many layers each one had.
    kept : mapping of str to sequence of int
        Which of them each has now, in their new order.
    """
    for name in lengths:
        _renumber(model.get_submodule(name))
    seen = set()
    for name, module in model.named_modules():
        config = getattr(module, "config", None)
        below = [stack for stack in lengths if f"{stack}.".startswith(f"{name}.".lstrip("."))]
        if config is not None and below and id(config) not in seen:
            seen.add(id(config))
            _note_in(config, below, lengths, kept)


def _renumber(stack):
    """Tell the layers their new positions, the keys of their KV cache."""
    for index, layer in enumerate(stack):
        for module in layer.modules():
            if hasattr(module, "layer_idx"):
                module.layer_idx = index


def _note_in(config, stacks, lengths, kept):
    encoders, decoders = ([s for s in stacks if part in s] for part in ("encoder", "decoder"))
    counts = {"num_hidden_layers": stacks, "encoder_layers": encoders, "decoder_layers": decoders}
    for key, found in (counts | {"num_decoder_layers": decoders}).items():
        if found and getattr(config, key, None) == lengths[found[0]]:
            setattr(config, key, len(kept[found[0]]))
    for key in set(PER_LAYER) & set(vars(config)):
        kinds = getattr(config, key)
        if isinstance(kinds, list) and len(kinds) == lengths[stacks[0]]:
            setattr(config, key, [kinds[index] for index in kept[stacks[0]]])
