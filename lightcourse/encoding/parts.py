"""What a jitted encoder is made of, read from a model of transformers, or refused by name."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from lightcourse.programs.parts import (
    ACTIVATIONS,
    Norm,
    check,
    check_bare,
    check_config,
    floats,
    norm,
    product,
)


@dataclass(frozen=True)
class Block:
    """One layer: the projections of queries, keys and values, and what follows in order."""

    read: list[nn.Module]
    scaling: float
    out: nn.Module
    norm: Norm
    up: nn.Module
    activation: str
    down: nn.Module
    second_norm: Norm


@dataclass(frozen=True)
class Parts:
    """An encoder: what embeds tokens, its blocks, the sizes.

    ``words`` returns the rows of its table for ids of shape (n,), an ndarray of float32;
    ``places`` and ``kinds`` are tables themselves.
    """

    words: Callable[[np.ndarray], np.ndarray]
    places: np.ndarray
    kinds: np.ndarray
    norm: Norm
    blocks: list[Block]
    width: int
    heads: int
    vocabulary: int


def read(model: nn.Module) -> Parts:
    """Return the parts of a BERT; raise ``ValueError`` for what is not known."""
    check(model, "BertModel", "model")
    if model.training:
        raise ValueError("model is in training mode; model.eval() is wanted")
    check_bare(model)
    config = model.config
    check_config(config, "is_decoder", (False,))
    check_config(config, "position_embedding_type", ("absolute",))
    check_config(config, "hidden_act", tuple(ACTIVATIONS)[1:])
    if model.pooler is not None:
        raise ValueError(
            "model has a pooler; a model without one (add_pooling_layer=False, or model.pooler = "
            "None) is wanted, and last_hidden_state is what to pool"
        )
    return Parts(
        words=_words(check(model.embeddings, "BertEmbeddings", "embeddings").word_embeddings),
        places=_rows(model.embeddings.position_embeddings, config.max_position_embeddings),
        kinds=_rows(model.embeddings.token_type_embeddings, config.type_vocab_size),
        norm=norm(model, "embeddings.LayerNorm", "LayerNorm"),
        blocks=[_block(model, f"encoder.layer.{i}") for i in range(config.num_hidden_layers)],
        width=config.hidden_size,
        heads=config.num_attention_heads,
        vocabulary=config.vocab_size,
    )


def _words(module):
    """Return what looks words up, without torch where it can: its threads stay awake after."""
    if type(module) is nn.Embedding:
        return floats(module.weight).__getitem__
    return lambda ids: floats(module(torch.from_numpy(ids)))


def _rows(table, count):
    """Return the rows of a small table, which may store integers."""
    return floats(table(torch.arange(count)))


CLASSES = {
    "": "BertLayer",
    ".attention": "BertAttention",
    ".attention.self": "BertSelfAttention",
    ".attention.output": "BertSelfOutput",
    ".intermediate": "BertIntermediate",
    ".output": "BertOutput",
}


def _block(model, name):
    for part, kind in CLASSES.items():
        check(model.get_submodule(name + part), kind, name + part)
    own = f"{name}.attention.self"
    return Block(
        read=[product(model, f"{own}.{part}") for part in ("query", "key", "value")],
        scaling=model.get_submodule(own).scaling,
        out=product(model, f"{name}.attention.output.dense"),
        norm=norm(model, f"{name}.attention.output.LayerNorm", "LayerNorm"),
        up=product(model, f"{name}.intermediate.dense"),
        activation=ACTIVATIONS[model.config.hidden_act],
        down=product(model, f"{name}.output.dense"),
        second_norm=norm(model, f"{name}.output.LayerNorm", "LayerNorm"),
    )
