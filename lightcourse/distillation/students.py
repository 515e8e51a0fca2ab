"""Students made of their teacher's own layers."""

import copy
from collections.abc import Sequence

from torch import nn

from lightcourse import layers as linear

# Lists in a configuration with an entry for each layer: which attention, which feed-forward.
PER_LAYER = ("layer_types", "mlp_layer_types", "no_rope_layers", "attention_layers")


def student_from(model: nn.Module, layers: Sequence[int]) -> nn.Module:
    """Return a copy of ``model`` that has only some of its transformer layers.

    The way DistilBERT's student began (Sanh et al. 2019, arXiv 1910.01108).

    Parameters
    ----------
    model : nn.Module
        Contains a stack of transformer layers (a ``ModuleList``), as BERT, GPT-2 and Llama
        do; embeddings and head are copied along. Where there are several, as in T5, BART and
        CLIP, each keeps the same layers. Unchanged.
    layers : sequence of int
        Which ones, counted from 0, each once, in the order in which the student runs them.

    Returns
    -------
    nn.Module
        Shares nothing with ``model``; in evaluation mode. What is frozen stays so.

    Raises
    ------
    ValueError
        When there is no stack of layers, or ``layers`` is empty, names a missing layer or
        one layer twice, or does not begin with layer 0 where that one holds what the others
        share (T5's table of distances).
    """
    model = linear.inside(model)
    stacks = _stacks(model)
    layers = list(layers)
    for name, stack in stacks.items():
        _check(layers, name, stack)
    copies = {}
    for stack in stacks.values():
        kept = nn.ModuleList(copy.deepcopy(stack[index], copies) for index in layers)
        copies[id(stack)] = kept  # what deepcopy finds there already it does not copy
    student = copy.deepcopy(model, copies).eval()
    for name in stacks:
        _renumber(student.get_submodule(name))
    _note(student, {name: len(stack) for name, stack in stacks.items()}, layers)
    return student


def _stacks(model):
    """Return the lists of layers by name: those inside of a layer (its experts) are none."""
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
    return len(parts) and all(any(p.children()) and linear.has_linear(p) for p in parts)


def _check(layers, name, stack):
    known = set(layers) <= set(range(len(stack)))
    if not layers or not known or len(set(layers)) < len(layers):
        raise ValueError(
            f"layers is {layers}; some of the layers 0..{len(stack) - 1} are wanted, each once "
            f"({name or 'the model'} has {len(stack)})"
        )
    first, *others = [{name for name, _ in layer.named_parameters()} for layer in stack]
    own = sorted(first.difference(*others)) if others else []
    if own and layers[0] != 0:
        raise ValueError(
            f"layers is {layers}; layer 0 must be the first: it holds {own[0]} for all of {name}"
        )


def _renumber(kept):
    """Tell the layers their new positions, the keys of their KV cache."""
    for index, layer in enumerate(kept):
        for module in layer.modules():
            if hasattr(module, "layer_idx"):
                module.layer_idx = index


def _note(student, lengths, layers):
    """Let each configuration tell the new number of layers; ``lengths`` are the old ones."""
    seen = set()
    for name, module in student.named_modules():
        config = getattr(module, "config", None)
        below = [stack for stack in lengths if f"{stack}.".startswith(f"{name}.".lstrip("."))]
        if config is not None and below and id(config) not in seen:
            seen.add(id(config))
            _note_in(config, below, lengths, layers)


def _note_in(config, stacks, lengths, layers):
    encoders, decoders = ([s for s in stacks if part in s] for part in ("encoder", "decoder"))
    counts = {"num_hidden_layers": stacks, "encoder_layers": encoders, "decoder_layers": decoders}
    for key, found in (counts | {"num_decoder_layers": decoders}).items():
        if found and getattr(config, key, None) == lengths[found[0]]:
            setattr(config, key, len(layers))
    for key in set(PER_LAYER) & set(vars(config)):
        kinds = getattr(config, key)
        if isinstance(kinds, list) and len(kinds) == lengths[stacks[0]]:
            setattr(config, key, [kinds[index] for index in layers])
