"""IA3: activations are stretched and shrunk, one trained number each."""

import itertools

import torch
from torch import nn

from lightcourse.lora.shell import Shell

SIDES = "outputs", "inputs"


class IA3Linear(Shell):
    """A frozen linear layer whose outputs, or inputs, are multiplied by a trained vector.

    The vector starts at ones, so that the layer first computes what ``base`` alone did
    (Liu et al. 2022, arXiv 2205.05638).

    Parameters
    ----------
    base : nn.Module
        As in :class:`lightcourse.lora.LoRALinear`.
    side : {"outputs", "inputs"}
        What is multiplied. Outputs are, with the bias in them.
    adapter : str
        Which adapter the vector belongs to.

    Attributes
    ----------
    ia3_l : Parameter of shape (outputs,) or (inputs,)
        float32, whatever the base computes in.

    Raises
    ------
    ValueError
        When there is no such side.
    """

    def __init__(self, base, side="outputs", adapter="default"):
        if side not in SIDES:
            raise ValueError(f"side is {side!r}; one of {SIDES} is wanted")
        super().__init__(base, adapter)
        self.side = side
        device = next(itertools.chain(base.parameters(), base.buffers())).device
        length = self.out_features if side == "outputs" else self.in_features
        self.ia3_l = nn.Parameter(torch.ones(length, device=device))

    def before(self, x):
        """Return the inputs, multiplied if they are what is trained."""
        return (x * self.ia3_l).to(x.dtype) if self.side == "inputs" else x

    def after(self, x, y):
        """Return the outputs, multiplied if they are what is trained."""
        return (y * self.ia3_l).to(y.dtype) if self.side == "outputs" else y

    def new_weight(self, weight):
        """Return the matrix with its rows or columns multiplied."""
        return weight * (self.ia3_l[:, None] if self.side == "outputs" else self.ia3_l)

    def new_bias(self, bias):
        """Return the bias, multiplied where the outputs are."""
        return bias if bias is None or self.side == "inputs" else bias * self.ia3_l

    def extra_repr(self):
        """Describe the layer the way torch prints it."""
        return f"adapter={self.adapter!r}, side={self.side!r}"
