"""One linear layer with a low-rank update beside it."""

import itertools
import math

import torch
from torch import nn
from torch.nn import functional as F

from lightcourse import layers
from lightcourse.read_only import read_only


class LoRALinear(nn.Module):
    """A frozen linear layer plus ``scaling · B A x``, with ``scaling = alpha / rank``.

    ``B`` starts at zero, so that the layer first computes what ``base`` alone did. Several
    adapters stand around each other, like shells: ``base`` may be a LoRALinear again.

    Parameters
    ----------
    base : nn.Module
        A linear layer: ``nn.Linear``, ``Conv1D``, a quantized one or one with an update
        already. Frozen by this class.
    rank : int
        Inner dimension of the update; at least 1.
    alpha : float
        The update is scaled by ``alpha / rank``.
    adapter : str
        Which adapter the update belongs to.

    Attributes
    ----------
    lora_a : Parameter of shape (rank, inputs)
        float32, whatever the base computes in.
    lora_b : Parameter of shape (outputs, rank)
    active : bool
        Whether the update is added; True at first.

    Raises
    ------
    ValueError
        When ``rank`` is below 1 or ``alpha`` not positive.
    """

    def __init__(self, base, rank=8, alpha=16.0, adapter="default"):
        super().__init__()
        if rank < 1:
            raise ValueError(f"rank is {rank}; at least 1 is wanted")
        if not 0 < alpha < math.inf:
            raise ValueError(f"alpha is {alpha}; a positive number is wanted")
        self.base = base.requires_grad_(False)
        self.rank, self.alpha, self.scaling = rank, alpha, alpha / rank
        self.adapter, self.active = adapter, True
        self.out_features, self.in_features = shape(base)
        device = next(itertools.chain(base.parameters(), base.buffers())).device
        self.lora_a = nn.Parameter(torch.empty(rank, self.in_features, device=device))
        self.lora_b = nn.Parameter(torch.zeros(self.out_features, rank, device=device))
        nn.init.kaiming_uniform_(self.lora_a, a=math.sqrt(5))

    def forward(self, x):
        """Return the base layer's output plus, where active, the scaled low-rank update."""
        if not self.active:
            return self.base(x)
        update = F.linear(F.linear(x.to(self.lora_a.dtype), self.lora_a), self.lora_b)
        output = self.base(x)
        return output + (self.scaling * update).to(output.dtype)

    @property
    def weight(self) -> torch.Tensor:
        """The base's weight with the update in it, for code that reads a weight: T5, torch."""
        if not self.active:
            return self.base.weight
        delta = self.delta().T if layers.is_conv1d(innermost(self)) else self.delta()
        return read_only(self.base.weight + delta.to(self.base.weight.dtype))

    @property
    def bias(self) -> torch.Tensor | None:
        """The base's bias."""
        return self.base.bias

    def delta(self) -> torch.Tensor:
        """Return the update ``scaling · B A`` of shape (outputs, inputs)."""
        return self.scaling * self.lora_b @ self.lora_a

    def extra_repr(self):
        """Describe the layer the way torch prints it."""
        return f"adapter={self.adapter!r}, rank={self.rank}, alpha={self.alpha}"


def shape(layer: nn.Module) -> tuple[int, int]:
    """Return (outputs, inputs) of a linear layer, whatever its class."""
    if layers.is_conv1d(layer):
        return layer.nf, layer.nx
    return layer.out_features, layer.in_features


def plain_names(model: nn.Module) -> dict[str, str]:
    """Return from each module's name to the one it would have without any LoRALinear."""
    plain = {"": ""}
    inside = set()
    for name, module in model.named_modules():
        if name:
            parent, _, child = name.rpartition(".")
            own = parent in inside and child == "base"
            plain[name] = plain[parent] if own else f"{plain[parent]}.{child}".lstrip(".")
        if isinstance(module, LoRALinear):
            inside.add(name)
    return plain


def innermost(layer: nn.Module) -> nn.Module:
    """Return the layer that has the matrix, below all updates."""
    while isinstance(layer, LoRALinear):
        layer = layer.base
    return layer


def updates(model: nn.Module, adapter: str | None = None) -> dict[str, LoRALinear]:
    """Return the LoRALinear layers of one adapter, or of all, by their names in the model."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, LoRALinear) and adapter in (None, module.adapter)
    }
