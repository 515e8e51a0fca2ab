"""What a model would store and read under each method, from its shapes alone."""

from dataclasses import dataclass

import torch
from torch import nn

from lightcourse import layers
from lightcourse.metrics import size_in_bytes


@dataclass(frozen=True)
class Method:
    """How the matrices of linear layers are stored.

    Parameters
    ----------
    name : str
    bits : int
        Of a weight that is stored: 32 and 16 are floats, 8 and 4 integers.
    group_size : int, optional
        Integers that share a scale; one scale a row without it.
    kept : (int, int), optional
        n of every m neighbours: only these are stored, each with its place among the m.
    """

    name: str
    bits: int
    group_size: int | None = None
    kept: tuple[int, int] | None = None

    def matrix_bytes(self, rows: int, columns: int) -> float:
        """Return the bytes of a matrix, its scales included: float16 up to 4 bits, else float32."""
        n, m = self.kept or (1, 1)
        place = (m - 1).bit_length() if self.kept else 0
        weights = rows * columns * n / m * (self.bits + place) / 8
        scales = rows * columns // (self.group_size or columns)
        return weights + scales * self._scale_bytes()

    def _scale_bytes(self):
        if self.bits > 8:
            return 0
        return 2 if self.bits <= 4 else 4


METHODS = (
    Method("float32", 32),
    Method("float16", 16),
    Method("float16, 2:4", 16, kept=(2, 4)),
    Method("8 bits", 8),
    Method("8 bits, 2:4", 8, kept=(2, 4)),
    Method("4 bits, groups of 128", 4, 128),
    Method("4 bits, groups of 32", 4, 32),
    Method("4 bits, groups of 128, 2:4", 4, 128, kept=(2, 4)),
)


def gpt_neox_20b(dtype: torch.dtype = torch.float16) -> nn.Module:
    """Return GPT-NeoX-20B on ``meta``: all shapes, no values.

    Black et al. 2022, arXiv 2204.06745: 44 layers of width 6,144 with 64 heads.
    """
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    config = GPTNeoXConfig(
        vocab_size=50_432,
        hidden_size=6_144,
        num_hidden_layers=44,
        num_attention_heads=64,
        intermediate_size=24_576,
        max_position_embeddings=2_048,
        tie_word_embeddings=False,
    )
    with torch.device("meta"):
        return GPTNeoXForCausalLM(config).to(dtype)


def stored_bytes(model: nn.Module, method: Method) -> float:
    """Return what a model stores with its linear layers in some method, the rest as it is.

    Parameters
    ----------
    model : nn.Module
        Of floats; one on ``meta`` will do.
    method : Method

    Returns
    -------
    float
    """
    found = list(layers.linear_layers(model).values())
    rest = size_in_bytes(model) - sum(layer.weight.nbytes for layer in found)
    return rest + sum(method.matrix_bytes(*layers.weight_matrix(one).shape) for one in found)


def token_bytes(model: nn.Module, method: Method, context: int = 0) -> float:
    """Return what a language model reads to write one token.

    All that it stores, but of its embedding tables one row each; and the keys and values of the
    tokens before, in its dtype.

    Parameters
    ----------
    model : nn.Module
        As in :func:`stored_bytes`, with transformers' configuration of a decoder. A table that is
        the output layer's matrix too is read whole.
    method : Method
    context : int
        Tokens before.

    Returns
    -------
    float
    """
    tied = set(layers.tied_layers(model).values())
    tables = [t for name, t in layers.embedding_tables(model).items() if name not in tied]
    unread = sum(table.weight.nbytes - table.weight[0].nbytes for table in tables)
    config = model.config
    heads = config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    width = (getattr(config, "num_key_value_heads", None) or heads) * size
    cache = 2 * config.num_hidden_layers * width * context * model.dtype.itemsize
    return stored_bytes(model, method) - unread + cache
