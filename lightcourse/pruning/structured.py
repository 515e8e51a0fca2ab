"""Structured pruning: whole FFN neurons and attention heads go, and the layers get smaller.

Which models have them in a form that is known: :mod:`lightcourse.surgery.blocks`.
"""

import torch
from torch import nn

from lightcourse import layers, pretrained, surgery
from lightcourse.pruning.masks import check_masks


def neuron_scores(model: nn.Module, scores: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Score each FFN neuron by the norm of the scores of its outgoing weights.

    With :func:`wanda_scores` that is the norm of what the neuron adds to the output over
    the calibration text. With :func:`magnitude_scores` it says nothing about how strongly a
    neuron fires, and may do worse than chance: it does on the tiny language model. With
    :func:`taylor_scores` it tells how much the loss leans on the neuron's weights one by one;
    :func:`neuron_taylor` asks for the neuron as a whole.

    Parameters
    ----------
    model : nn.Module
        BERT, GPT-2, Llama or the like.
    scores : dict of str to Tensor of shape (outputs, inputs)
        One score a weight, for the FFNs' output layers at least: any of the scores.

    Returns
    -------
    dict of str to Tensor of shape (neurons,)
        By the FFN's name. :func:`layer_mask` and :func:`global_mask` take it.

    Raises
    ------
    ValueError
        When the model has no FFN of a known kind, or ``scores`` lacks its output layer.
    """
    found = surgery.feed_forwards(layers.inside(model))
    return {name: _outgoing(name, block, scores) for name, block in found.items()}


def head_scores(model: nn.Module, scores: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Score each attention head by the norm of the scores of its outgoing weights.

    By size with :func:`magnitude_scores`, by what the head adds to the output with
    :func:`wanda_scores`, by what the loss leans on with :func:`taylor_scores`, weight by
    weight; :func:`head_taylor` asks for the head as a whole.

    Where query heads share keys and values (grouped-query attention), a group is scored as
    one: it can only go as a whole.

    Parameters
    ----------
    model : nn.Module
        BERT, GPT-2, Llama or the like.
    scores : dict of str to Tensor of shape (outputs, inputs)
        One score a weight, for the attentions' output layers at least: any of the scores.

    Returns
    -------
    dict of str to Tensor of shape (heads,), or (key-value heads,)
        By the attention's name. :func:`layer_mask` and :func:`global_mask` take it.

    Raises
    ------
    ValueError
        When the model has no attention of a known kind, or ``scores`` lacks its output
        layer.
    """
    found = surgery.attentions(layers.inside(model))
    return {
        name: _outgoing(name, block, scores).view(block.units, -1).norm(dim=1)
        for name, block in found.items()
    }


def remove_neurons_(model: nn.Module, masks: dict[str, torch.Tensor]) -> layers.Report:
    """Take FFN neurons out, in place: the layers become smaller, and so faster.

    Where all FFNs stay equally wide, ``model.config.intermediate_size`` follows, so that
    ``save_pretrained`` and ``from_pretrained`` work.

    Parameters
    ----------
    model : nn.Module
        Changed in place. Make optimizers afterwards: the parameters have new shapes.
    masks : dict of str to Tensor of bool, shape (neurons,)
        By the FFN's name, as :func:`neuron_scores` gives it; True = keep.

    Returns
    -------
    Report
        For each FFN the parameters removed.

    Raises
    ------
    ValueError
        When a mask fits no FFN or not its size, or keeps no neuron at all (nothing has been
        changed then), or when no neuron was removed.
    """
    model = layers.inside(model)
    return _remove_(model, masks, surgery.feed_forwards(model), "neurons")


def remove_heads_(model: nn.Module, masks: dict[str, torch.Tensor]) -> layers.Report:
    """Take attention heads out, in place: the layers become smaller, and so faster.

    A head is a slice of queries, keys, values and of the output layer's inputs. Under
    grouped-query attention a key-value head goes with all its query heads.

    A configuration that has the size of a head (Llama's ``head_dim``) follows where all
    layers keep equally many heads, and ``hidden_size`` is a multiple of their number: then
    ``save_pretrained`` and ``from_pretrained`` work. Otherwise, and always for BERT and GPT-2,
    ``save_pretrained`` refuses; :func:`save_pruned` saves the model.

    Parameters
    ----------
    model : nn.Module
        Changed in place. Make optimizers afterwards: the parameters have new shapes.
    masks : dict of str to Tensor of bool, shape (heads,), or (key-value heads,)
        By the attention's name, as :func:`head_scores` gives it; True = keep.

    Returns
    -------
    Report
        For each attention the parameters removed.

    Raises
    ------
    ValueError
        When a mask fits no attention or not its heads, or keeps no head at all (nothing has
        been changed then), or when no head was removed.
    """
    model = layers.inside(model)
    return _remove_(model, masks, surgery.attentions(model), "heads")


def _outgoing(name, block, scores):
    if block.reader not in scores:
        raise ValueError(f"scores lacks {block.reader}, the layer that reads the output of {name}")
    return scores[block.reader].norm(dim=0)


def _remove_(model, masks, blocks, what):
    _check(masks, blocks, what)
    report = layers.Report("shrunk", "parameters removed")
    for name, mask in masks.items():
        if not mask.all():
            report.changed[name] = surgery.drop_units_(model, blocks[name], mask)
    report.raise_if_nothing_changed(f"the masks keep all {what}")
    surgery.note_sizes(model)
    pretrained.watch_(model)
    return report


def _check(masks, blocks, what):
    hint = ", one for each head (those that share a key go together)" * (what == "heads")
    shapes = {name: (block.units,) for name, block in blocks.items()}
    check_masks(masks, shapes, f"block with {what}", hint)
    for name, mask in masks.items():
        if not mask.any():
            raise ValueError(f"the mask of {name} keeps none of its {what}; at least one is wanted")
