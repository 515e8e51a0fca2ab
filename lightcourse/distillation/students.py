"""Students made of their teacher's own layers."""

import copy
from collections.abc import Sequence

from torch import nn


def student_from(model: nn.Module, layers: Sequence[int]) -> nn.Module:
    """Return a copy of ``model`` that has only some of its transformer layers.

    The way DistilBERT's student began (Sanh et al. 2019, arXiv 1910.01108).

    Parameters
    ----------
    model : nn.Module
        Contains one stack of transformer layers (a ``ModuleList``), as BERT, GPT-2 and
        Llama do; embeddings and head are copied along. Unchanged.
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
        one layer twice.
    """
    stacks = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    if not stacks:
        raise ValueError(f"model is a {type(model).__name__} without a ModuleList of layers")
    stack = max(stacks, key=len)
    layers = list(layers)
    known = set(layers) <= set(range(len(stack)))
    if not layers or not known or len(set(layers)) < len(layers):
        raise ValueError(
            f"layers is {layers}; some of the layers 0..{len(stack) - 1} are wanted, each once"
        )
    copies = {}
    kept = nn.ModuleList(copy.deepcopy(stack[index], copies) for index in layers)
    copies[id(stack)] = kept  # what deepcopy finds there already it does not copy
    student = copy.deepcopy(model, copies).eval()
    _renumber(student, kept, layers)
    return student


def _renumber(student, kept, layers):
    """Tell the layers their new positions, the keys of their KV cache, and their number."""
    for index, layer in enumerate(kept):
        for module in layer.modules():
            if hasattr(module, "layer_idx"):
                module.layer_idx = index
    found = (getattr(module, "config", None) for module in student.modules())
    for config in {id(config): config for config in found if config}.values():
        config.num_hidden_layers = len(kept)
        if kinds := getattr(config, "layer_types", None):  # which mask a layer gets, as in Gemma
            config.layer_types = [kinds[index] for index in layers]
