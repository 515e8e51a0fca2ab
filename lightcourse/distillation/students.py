"""Students made of their teacher's own layers."""

import copy
from collections.abc import Sequence

from torch import nn

from lightcourse import layers as linear
from lightcourse import surgery


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
    stacks, layers = surgery.layer_stacks(model), list(layers)
    surgery.check_layers(stacks, layers)
    copies = {}
    for stack in stacks.values():
        kept = nn.ModuleList(copy.deepcopy(stack[index], copies) for index in layers)
        copies[id(stack)] = kept  # what deepcopy finds there already it does not copy
    student = copy.deepcopy(model, copies).eval()
    lengths = {name: len(stack) for name, stack in stacks.items()}
    surgery.note_layers(student, lengths, dict.fromkeys(stacks, layers))
    return student
