"""Two thin linear layers in the place of one."""

import torch
from torch import nn

from lightcourse.read_only import read_only


class FactoredLinear(nn.Module):
    """``left(right(x))``: the matrix of a linear layer as the product of two thin ones.

    Both are ordinary linear layers, which every verb finds: they can be quantized, pruned, get
    adapters of their own.

    Parameters
    ----------
    left : Tensor of shape (out_features, rank)
    right : Tensor of shape (rank, in_features)
        Both are held as they are; parameters stay the same objects.
    bias : Tensor of shape (out_features,), optional

    Attributes
    ----------
    left, right : nn.Linear
        ``left`` has the bias.
    """

    def __init__(self, left: torch.Tensor, right: torch.Tensor, bias: torch.Tensor | None = None):
        super().__init__()
        self.out_features, self.in_features = left.shape[0], right.shape[1]
        self.right = _linear(right)
        self.left = _linear(left, bias)

    @property
    def rank(self) -> int:
        """The inner dimension."""
        return self.right.out_features

    @property
    def weight(self) -> torch.Tensor:
        """The product, made anew at each reading: for code that reads a layer's weight."""
        return read_only(self.left.weight @ self.right.weight)

    @property
    def bias(self) -> torch.Tensor | None:
        """What is added in the end."""
        return self.left.bias

    def forward(self, x):
        """Return ``x @ right.T @ left.T + bias`` for ``x`` of shape (..., in_features)."""
        return self.left(self.right(x))

    def extra_repr(self):
        """Describe the layer the way torch prints it."""
        return f"{self.in_features}, {self.out_features}, rank={self.rank}"


def _linear(weight, bias=None):
    layer = nn.Linear(*weight.shape[::-1], bias=False, device="meta")
    layer.weight = _parameter(weight)
    layer.bias = None if bias is None else _parameter(bias)
    return layer


def _parameter(tensor):
    return tensor if isinstance(tensor, nn.Parameter) else nn.Parameter(tensor)
