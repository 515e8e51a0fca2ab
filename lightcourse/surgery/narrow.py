"""Narrower heads: each head of BERT and GPT-2 loses the dimensions that matter least to it.

There the size of a head is ``hidden_size / heads``, by the configuration: a narrower stream
wants narrower heads. Llama's has a place of its own, and stays.
"""

import torch
from torch import nn

from lightcourse import layers
from lightcourse.surgery.blocks import Block, head_size
from lightcourse.surgery.rows import drop_inputs_, drop_outputs_

# Whose queries and keys are multiplied as they are made: no rotation pairs their dimensions.
WITHOUT_ROTATION = ("bert", "camembert", "gpt2", "roberta", "xlm-roberta")


def check_narrow(config: object) -> None:
    """Raise where heads cannot lose inner dimensions one by one.

    Raises
    ------
    ValueError
        When queries and keys may be rotated, or it is not known.
    """
    kind = getattr(config, "model_type", None)
    if kind not in WITHOUT_ROTATION:
        raise ValueError(
            f"model is a {kind!r}, of which it is not known whether its heads can get narrower; "
            f"one of {', '.join(WITHOUT_ROTATION)} is wanted, or one with a head_dim of its own"
        )


def narrow_heads_(model: nn.Module, name: str, block: Block, size: int) -> None:
    """Let each head of an attention keep ``size`` inner dimensions, in place.

    A dimension of queries and keys adds ``query * key`` to a head's scores, one of the values
    ``value * output`` to what it writes: each is ranked by the norm of that product of two
    vectors. The scores stay divided by the root of the old size: a factor goes into the queries.

    Parameters
    ----------
    model : nn.Module
        BERT, GPT-2 or the like.
    name : str
        The attention's.
    block : Block
        As :func:`attentions` gives it.
    size : int
        At most as many as a head has now.
    """
    attention, before = model.get_submodule(name), head_size(model.get_submodule(name))
    query, key, value = _parts(model, block)
    reader = model.get_submodule(block.reader)
    output = layers.weight_matrix(reader).detach()
    scores = _largest(query.norm(dim=1) * key.norm(dim=1), before, size)
    values = _largest(value.norm(dim=1) * output.norm(dim=0), before, size)
    rows = torch.stack([scores, scores, values]).view(len(block.makers), -1)
    for maker, mask in zip(block.makers, rows, strict=True):
        drop_outputs_(model.get_submodule(maker), mask)
    drop_inputs_(reader, values)
    if getattr(attention, "scale_attn_weights", True):
        _keep_scale_(model.get_submodule(block.makers[0]), int(scores.sum()), size / before)
    _tell_size_(attention, before, size)


def _parts(model, block):
    """Return the weights of queries, keys and values, shape (heads * size, hidden_size)."""
    matrices = [layers.weight_matrix(model.get_submodule(maker)) for maker in block.makers]
    return torch.cat(matrices).detach().chunk(3)


def _largest(norms, before, size):
    """Return a mask of the ``size`` largest of every ``before`` neighbours."""
    heads = norms.view(-1, before)
    kept = heads.argsort(dim=1, descending=True, stable=True)[:, :size]
    return torch.zeros_like(heads, dtype=torch.bool).scatter_(1, kept, True).flatten()


def _keep_scale_(layer, rows, ratio):
    """Multiply the queries, the first rows, so that their products are scaled as before."""
    layers.weight_matrix(layer).data[:rows] *= ratio**0.5
    if layer.bias is not None:
        layer.bias.data[:rows] *= ratio**0.5


def _tell_size_(attention, before, size):
    for module in filter(None, (attention, getattr(attention, "self", None))):
        for key in {"head_dim", "attention_head_size"} & vars(module).keys():
            setattr(module, key, size)
        if hasattr(module, "scaling") and getattr(module, "scale_attn_weights", True):
            module.scaling *= (before / size) ** 0.5
