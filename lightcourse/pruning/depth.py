"""Depth pruning: which transformer layers change little, and whole layers that go."""

from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral

from torch import nn
from torch.nn import functional as F

from lightcourse import calibration, pretrained, surgery
from lightcourse import layers as linear


def block_influence(model: nn.Module, batches: Iterable[dict]) -> dict[str, float]:
    """Measure how much each transformer layer turns the hidden states that pass through it.

    1 minus the mean cosine between a layer's input and output, over all real tokens
    (ShortGPT, Men et al. 2024, arXiv 2403.03853). 0: the layer only rescales, or does nothing.

    Parameters
    ----------
    model : nn.Module
        Contains a stack of transformer layers, as :func:`remove_layers_` wants it. Runs once
        over the batches, in evaluation mode, without gradients; unchanged.
    batches : iterable of dict
        Keyword arguments for the model; ``labels`` are left out. Tokens where
        ``attention_mask`` (``decoder_attention_mask`` for a decoder behind an encoder) is 0
        do not count.

    Returns
    -------
    dict of str to float, 0 to 2
        By the layer's name, such as ``"model.layers.3"``.

    Raises
    ------
    ValueError
        When there is no stack of layers, no batch or no real token, a batch is no dict, or a
        layer gives another shape than it is given, NaN or infinity.
    """
    model = linear.inside(model)
    sums = dict.fromkeys(_named(surgery.layer_stacks(model)), (0.0, 0))

    def add(name, before, after):
        total, count = sums[name]
        cosines = F.cosine_similarity(before, after, dim=-1)
        sums[name] = total + cosines.double().sum().item(), count + len(cosines)

    calibration.see_hidden(model, batches, sums, add)
    if idle := [name for name, (_, count) in sums.items() if not count]:
        raise ValueError(f"batches show layer {idle[0]} no token; one that is no padding is wanted")
    return {name: 1 - total / count for name, (total, count) in sums.items()}


def _named(stacks):
    """Return by each layer's name its stack's name and its place there."""
    return {
        f"{stack}.{index}".lstrip("."): (stack, index)
        for stack, parts in stacks.items()
        for index in range(len(parts))
    }


def remove_layers_(model: nn.Module, layers: Sequence[str | int]) -> linear.Report:
    """Take whole transformer layers out, in place: the rest runs one behind the other.

    The configuration follows, so that ``save_pretrained`` and ``from_pretrained`` work. To
    keep a model and get a smaller copy: :func:`lightcourse.distillation.student_from`.

    Parameters
    ----------
    model : nn.Module
        Contains a stack of transformer layers (a ``ModuleList``), as BERT, GPT-2 and Llama do.
        Changed in place. Make optimizers afterwards.
    layers : sequence of str or int
        Which ones go: names as in :func:`block_influence`, or numbers from 0 where the model
        has one stack. Where it has several, as T5, each may lose others.

    Returns
    -------
    Report
        For each removed layer its parameters, without those that another one shares.

    Raises
    ------
    ValueError
        Before anything is changed: when there is no stack, ``layers`` is empty, names a
        missing layer or one twice, or all of a stack; when it holds a number though there are
        several stacks; when layer 0 would go though it holds what the others share (T5's table
        of distances).
    """
    model = linear.inside(model)
    stacks = surgery.layer_stacks(model)
    chosen = _chosen(stacks, layers)
    kept = _kept(stacks, chosen, layers)
    gone = {name: model.get_submodule(name) for name in chosen}
    lengths = {name: len(stack) for name, stack in stacks.items()}
    for stack, index in sorted(chosen.values(), reverse=True):
        del stacks[stack][index]
    surgery.note_layers(model, lengths, kept)
    pretrained.watch_(model)
    return linear.Report("removed", "parameters", _sizes(model, gone))


def _chosen(stacks, given):
    """Return by name the stack and place of each layer that is to go."""
    if isinstance(given, str | Integral) or not (given := list(given)):
        raise ValueError(f"layers is {given!r}; a list of one or more layers is wanted")
    known, chosen = _named(stacks), {}
    for one in given:
        name = f"{_only(stacks, one)}.{one}".lstrip(".") if isinstance(one, Integral) else one
        if name not in known:
            raise ValueError(
                f"layers holds {one!r}, which is no layer of this model; some of "
                f"{', '.join(known)} are wanted"
            )
        if name in chosen:
            raise ValueError(f"layers is {given}, with {name} twice; each once is wanted")
        chosen[name] = known[name]
    return chosen


def _only(stacks: Mapping[str, nn.ModuleList], number: int) -> str:
    first, *others = stacks
    if others:
        raise ValueError(
            f"layers holds {number}, but the model has several stacks ({', '.join(stacks)}); "
            f"names such as {first}.{number} are wanted"
        )
    return first


def _kept(stacks, chosen, given):
    """Return which layers each stack keeps."""
    kept = {}
    for name, stack in stacks.items():
        kept[name] = [i for i in range(len(stack)) if (name, i) not in chosen.values()]
        if not kept[name]:
            raise ValueError(
                f"layers is {list(given)}, all {len(stack)} layers of {name or 'the model'}; "
                "at least one must stay"
            )
        surgery.check_first(name, stack, kept[name], list(given))
    return kept


def _sizes(model, gone):
    """Return by name how many parameters went with each module, each parameter once."""
    seen, sizes = {id(parameter) for parameter in model.parameters()}, {}
    for name, module in gone.items():
        own = {id(p): p.numel() for p in module.parameters() if id(p) not in seen}
        sizes[name] = sum(own.values())
        seen |= own.keys()
    return sizes
