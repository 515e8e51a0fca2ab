"""Structured pruning: whole FFN neurons and attention heads go, and the layers get smaller.

Known by the names of their layers: BERT, Llama and whatever is built like them; GPT-2's
neurons too, but not its heads (one matrix makes queries, keys and values).
"""

import torch
from torch import nn

from lightcourse import layers, pretrained

# Layers that make the neurons or heads, and the one that reads them, below one module.
FEED_FORWARD = [
    ("intermediate.dense", "output.dense"),  # BERT
    ("gate_proj", "up_proj", "down_proj"),  # Llama
    ("c_fc", "c_proj"),  # GPT-2
]
ATTENTION = [
    ("self.query", "self.key", "self.value", "output.dense"),
    ("q_proj", "k_proj", "v_proj", "o_proj"),
]


def neuron_scores(model: nn.Module, scores: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Score each FFN neuron by the norm of the scores of its outgoing weights.

    With :func:`wanda_scores` that is the norm of what the neuron adds to the output over
    the calibration text. With :func:`magnitude_scores` it says nothing about how strongly a
    neuron fires, and may do worse than chance: it does on the tiny language model.

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
    model = layers.inside(model)
    found = _feed_forwards(model)
    return {name: _outgoing(name, paths[-1], scores) for name, paths in found.items()}


def head_scores(model: nn.Module, scores: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Score each attention head by the norm of the scores of its outgoing weights.

    Where query heads share keys and values (grouped-query attention), a group is scored as
    one: it can only go as a whole.

    Parameters
    ----------
    model : nn.Module
        BERT, Llama or the like.
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
    model, result = layers.inside(model), {}
    for name, paths in _attentions(model).items():
        columns = _outgoing(name, paths[-1], scores)
        result[name] = columns.view(_units(model, name, paths), -1).norm(dim=1)
    return result


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
    found = _feed_forwards(model)
    sizes = {name: _outputs(model, paths[0]) for name, paths in found.items()}
    return _remove_(model, masks, found, sizes, "neurons")


def remove_heads_(model: nn.Module, masks: dict[str, torch.Tensor]) -> layers.Report:
    """Take attention heads out, in place: the layers become smaller, and so faster.

    A head is a slice of queries, keys, values and of the output layer's inputs. Under
    grouped-query attention a key-value head goes with all its query heads.

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
    found = _attentions(model)
    sizes = {name: _units(model, name, paths) for name, paths in found.items()}
    return _remove_(model, masks, found, sizes, "heads")


def _feed_forwards(model):
    return _find(model, FEED_FORWARD, "feed-forward block")


def _attentions(model):
    return _find(model, ATTENTION, "attention")


def _find(model, kinds, what):
    """Return the paths of the layers of each block of a known kind, by the block's name."""
    found = _matches(model, kinds)
    if not found:
        raise ValueError(
            f"model is a {type(model).__name__} without a known {what}; linear layers "
            f"called {' or '.join(', '.join(kind) for kind in kinds)} are wanted"
        )
    return found


def _matches(model, kinds):
    linear = layers.linear_layers(model).keys() - layers.shared_layers(model)
    found = {}
    for name, _ in model.named_modules():
        for kind in kinds:
            paths = [f"{name}.{part}".lstrip(".") for part in kind]
            if all(path in linear for path in paths):
                found[name] = paths
    return found


def _outputs(model, path):
    return layers.matrix(model.get_submodule(path)).shape[0]


def _head_size(attention):
    return (
        attention.head_dim if hasattr(attention, "head_dim") else attention.self.attention_head_size
    )


def _units(model, name, paths):
    """Return how many heads can go: key heads, which query heads may share."""
    return _outputs(model, paths[1]) // _head_size(model.get_submodule(name))


def _outgoing(name, path, scores):
    if path not in scores:
        raise ValueError(f"scores lacks {path}, the layer that reads the output of {name}")
    return scores[path].norm(dim=0)


def _remove_(model, masks, found, sizes, what):
    for name, mask in masks.items():
        _check_mask(name, mask, sizes, what)
    report = layers.Report("shrunk", "parameters removed")
    for name, mask in masks.items():
        if not mask.all():
            *makers, reader = [model.get_submodule(path) for path in found[name]]
            removed = sum(_drop_outputs_(layer, mask) for layer in makers)
            report.changed[name] = removed + _drop_inputs_(reader, mask)
    report.raise_if_nothing_changed(f"the masks keep all {what}")
    note_sizes(model)
    pretrained.watch_(model)
    return report


def _check_mask(name, mask, sizes, what):
    if name not in sizes:
        raise ValueError(f"masks names {name!r}; one of {sorted(sizes)} is wanted")
    if mask.dtype != torch.bool or tuple(mask.shape) != (sizes[name],):
        raise ValueError(
            f"the mask of {name} is {mask.dtype} of shape {tuple(mask.shape)}; torch.bool of "
            f"shape ({sizes[name]},) is wanted"
            + ", one for each head (those that share a key go together)"
            * (what == "heads")
        )
    if not mask.any():
        raise ValueError(f"the mask of {name} keeps none of its {what}; at least one is wanted")


def _drop_outputs_(layer, mask):
    matrix = layers.matrix(layer).data
    rows = mask.repeat_interleave(len(matrix) // len(mask))
    bias = None if layer.bias is None else layer.bias.data[rows]
    return _set_(layer, matrix[rows], bias)


def _drop_inputs_(layer, mask):
    matrix = layers.matrix(layer).data
    columns = mask.repeat_interleave(matrix.shape[1] // len(mask))
    return _set_(layer, matrix[:, columns], None if layer.bias is None else layer.bias.data)


def _set_(layer, matrix, bias):
    """Give a layer other tensors, and return how many parameters fewer they are."""
    before = sum(p.numel() for p in layer.parameters())
    weight = (matrix.T if layers.is_conv1d(layer) else matrix).contiguous()
    layer.weight = nn.Parameter(weight, layer.weight.requires_grad)
    if bias is not None:
        layer.bias = nn.Parameter(bias, layer.bias.requires_grad)
    return before - sum(p.numel() for p in layer.parameters())


def note_sizes(model: nn.Module) -> None:
    """Let the layers' attributes and the model's configuration tell the weights' shapes.

    The configuration only where it can: one width for all FFNs, and nothing about heads.
    """
    for layer in layers.linear_layers(model).values():
        outputs, inputs = layers.matrix(layer).shape
        if layers.is_conv1d(layer):
            layer.nf, layer.nx = outputs, inputs
        else:
            layer.out_features, layer.in_features = outputs, inputs
    widths = {}
    for name, paths in _matches(model, FEED_FORWARD).items():
        asked_by_all = name.rpartition(".")[2].startswith("shared_expert")  # Qwen2-MoE's
        # n_inner is GPT-2's name for it.
        keys = ("shared_expert_intermediate_size",) * asked_by_all or (
            "intermediate_size",
            "n_inner",
        )
        for key in keys:
            widths.setdefault(key, set()).add(_outputs(model, paths[0]))
    config = getattr(model, "config", None)
    for key, found in widths.items():
        if len(found) == 1 and hasattr(config, key):
            setattr(config, key, *found)
