"""Rows and columns that go: linear layers get smaller, and what tells their sizes follows."""

import torch
from torch import nn

from lightcourse import layers
from lightcourse.surgery.blocks import (
    FEED_FORWARD,
    Block,
    has_own_head_size,
    head_size,
    known_attentions,
    matches,
    width,
)


def drop_units_(model: nn.Module, block: Block, mask: torch.Tensor) -> int:
    """Take units out of a block: outputs of its makers, and inputs of its reader, in place.

    Parameters
    ----------
    model : nn.Module
        Its configuration is for :func:`note_sizes`, once all blocks are done.
    block : Block
    mask : Tensor of bool, shape (units,)
        True = keep.

    Returns
    -------
    int
        How many parameters fewer there are.
    """
    rows = mask.repeat(block.fused)
    removed = sum(drop_outputs_(model.get_submodule(maker), rows) for maker in block.makers)
    return removed + drop_inputs_(model.get_submodule(block.reader), mask)


def drop_outputs_(layer: nn.Module, mask: torch.Tensor) -> int:
    """Take outputs out of a linear layer, in place; return how many parameters fewer it has.

    Parameters
    ----------
    layer : nn.Module
        An ``nn.Linear`` or a ``Conv1D``.
    mask : Tensor of bool
        True = keep. One entry for each of several slices of equal size.
    """
    matrix = layers.weight_matrix(layer).data
    rows = mask.repeat_interleave(len(matrix) // len(mask))
    bias = None if layer.bias is None else layer.bias.data[rows]
    return _set_(layer, matrix[rows], bias)


def drop_inputs_(layer: nn.Module, mask: torch.Tensor) -> int:
    """Take inputs out of a linear layer, in place; else as :func:`drop_outputs_`."""
    matrix = layers.weight_matrix(layer).data
    columns = mask.repeat_interleave(matrix.shape[1] // len(mask))
    return _set_(layer, matrix[:, columns], None if layer.bias is None else layer.bias.data)


def _set_(layer, matrix, bias):
    """Give a layer other tensors, and return how many parameters fewer they are."""
    before = sum(p.numel() for p in layer.parameters())
    weight = (matrix.T if layers.is_conv1d(layer) else matrix).contiguous()
    layer.weight = nn.Parameter(weight, layer.weight.requires_grad)
    if bias is not None:
        layer.bias = nn.Parameter(bias, layer.bias.requires_grad)
    tell_shape_(layer)
    return before - sum(p.numel() for p in layer.parameters())


def tell_shape_(layer: nn.Module) -> None:
    """Let a linear layer's attributes tell the shape of its weight."""
    outputs, inputs = layers.weight_matrix(layer).shape
    if layers.is_conv1d(layer):
        layer.nf, layer.nx = outputs, inputs
    else:
        layer.out_features, layer.in_features = outputs, inputs


def note_sizes(model: nn.Module) -> None:
    """Let the layers' attributes and the model's configuration tell the weights' shapes.

    The configuration only where it can: one width for all FFNs, and one number of heads for
    all attentions, where the size of a head has a place of its own (Llama, not BERT or GPT-2).
    """
    for layer in layers.linear_layers(model).values():
        tell_shape_(layer)
    config = getattr(model, "config", None)
    for key, found in _widths(model).items():
        if len(found) == 1 and hasattr(config, key):
            setattr(config, key, *found)
    heads = [_tell_heads_(model, name, block) for name, block in known_attentions(model).items()]
    if heads and all(one == heads[0] for one in heads):
        _note_heads(config, heads[0])


def _tell_heads_(model, name, block):
    """Let an attention tell its heads, and return them as a configuration would."""
    attention = model.get_submodule(name)
    inner = layers.weight_matrix(model.get_submodule(block.reader)).shape[1]
    size = head_size(attention)
    told = {"num_attention_heads": inner // size, "num_key_value_heads": block.units}
    own = told | {"num_heads": inner // size, "split_size": inner, "all_head_size": inner}
    for module in filter(None, (attention, getattr(attention, "self", None))):
        for key in own.keys() & vars(module).keys():
            setattr(module, key, own[key])
    return told | {"head_dim": size}


def _note_heads(config, told):
    heads = told["num_attention_heads"]
    if not has_own_head_size(config) or heads == config.num_attention_heads:
        return
    if config.hidden_size % heads == 0:  # transformers loads no other
        for key, value in told.items():
            setattr(config, key, value)


def _widths(model):
    """Return the widths of all feed-forward blocks by the configuration's keys for them."""
    widths = {}
    for name, makers, _ in matches(model, FEED_FORWARD):
        asked_by_all = name.rpartition(".")[2].startswith("shared_expert")  # Qwen2-MoE's
        # n_inner is GPT-2's name for it.
        keys = ("shared_expert_intermediate_size",) * asked_by_all or (
            "intermediate_size",
            "n_inner",
        )
        for key in keys:
            widths.setdefault(key, set()).add(width(model, makers[0]))
    return widths
