"""Low-rank adaptation: train two thin matrices beside a frozen one.

Hu et al. 2021, arXiv 2106.09685.
"""

import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from lightcourse import layers


class LoRALinear(nn.Module):
    """A frozen linear layer plus ``scaling · B A x``, with ``scaling = alpha / rank``.

    ``B`` starts at zero, so that the layer first computes what ``base`` alone did.

    Parameters
    ----------
    base : nn.Module
        A linear layer: ``nn.Linear``, ``Conv1D`` or a quantized one. Frozen by this class.
    rank : int
        Inner dimension of the update; at least 1.
    alpha : float
        The update is scaled by ``alpha / rank``.

    Attributes
    ----------
    lora_a : Parameter of shape (rank, inputs)
    lora_b : Parameter of shape (outputs, rank)
    """

    def __init__(self, base, rank=8, alpha=16.0):
        super().__init__()
        if rank < 1:
            raise ValueError(f"rank is {rank}; at least 1 is wanted")
        self.base = base.requires_grad_(False)
        self.rank, self.alpha, self.scaling = rank, alpha, alpha / rank
        outputs, inputs = _shape(base)
        self.lora_a = nn.Parameter(torch.empty(rank, inputs))
        self.lora_b = nn.Parameter(torch.zeros(outputs, rank))
        nn.init.kaiming_uniform_(self.lora_a, a=math.sqrt(5))

    def forward(self, x):
        """Return the base layer's output plus the scaled low-rank update."""
        update = F.linear(F.linear(x, self.lora_a), self.lora_b)
        return self.base(x) + self.scaling * update

    def delta(self) -> torch.Tensor:
        """Return the update ``scaling · B A`` of shape (outputs, inputs)."""
        return self.scaling * self.lora_b @ self.lora_a


def _shape(layer):
    if layers.is_conv1d(layer):
        return layer.nf, layer.nx
    return layer.out_features, layer.in_features


def _may_adapt(model):
    """Return the layers LoRA fits on: linear ones, and those that store integers."""
    quantized = {n: m for n, m in model.named_modules() if hasattr(m, "qweight")}
    return layers.linear_layers(model) | quantized


def add_lora_(
    model: nn.Module, rank: int = 8, alpha: float = 16.0, targets: Sequence[str] | None = None
) -> layers.Report:
    """Freeze a model and put a trainable low-rank update beside its linear layers.

    Parameters
    ----------
    model : nn.Module
        Changed in place: afterwards nothing but the updates is trainable. Set
        ``requires_grad`` again on whatever else shall learn, such as a new head.
    rank, alpha : int, float
        See :class:`LoRALinear`.
    targets : sequence of str, optional
        Last parts of the layers' names, such as ``["query", "value"]``; all linear layers
        without it.

    Returns
    -------
    Report
        For each adapted layer the parameters added.

    Raises
    ------
    ValueError
        When ``rank`` is below 1, the model has updates already, or no layer matches
        ``targets`` (nothing is changed then).
    """
    if any(isinstance(module, LoRALinear) for module in model.modules()):
        raise ValueError("model has LoRA layers already; merge_lora_ folds them in first")
    candidates = _may_adapt(model)
    chosen = {n: m for n, m in candidates.items() if targets is None or _last(n) in targets}
    report = layers.Report("adapted", "parameters added")
    new = {name: LoRALinear(layer, rank, alpha) for name, layer in chosen.items()}
    for name, layer in new.items():
        report.changed[name] = layer.lora_a.numel() + layer.lora_b.numel()
    known = sorted({_last(name) for name in candidates})
    report.raise_if_nothing_changed(f"targets is {targets}; the model's layers are called {known}")
    model.requires_grad_(False)
    for name, layer in new.items():
        layers.replace(model, name, layer)
    return report


def _last(name):
    return name.rpartition(".")[2]


@torch.no_grad()
def merge_lora_(model: nn.Module) -> layers.Report:
    """Add every low-rank update into its matrix and take the LoRA layers away, in place.

    Afterwards the model has its old structure and speed, and computes what it did with
    the updates beside it, up to rounding. Zeros of a pruned matrix are refilled.

    Parameters
    ----------
    model : nn.Module
        Changed in place; parameters stay frozen as they were.

    Returns
    -------
    Report
        For each layer the parameters folded in.

    Raises
    ------
    ValueError
        When there is nothing to merge, or a base layer stores integers, into which an
        update cannot be added without rounding it away (nothing is changed then).
    """
    found = {n: m for n, m in model.named_modules() if isinstance(m, LoRALinear)}
    for name, layer in found.items():
        if hasattr(layer.base, "qweight"):
            raise ValueError(
                f"layer {name} stores integers: adding the update would round it; "
                "dequantize the layer first, or keep the update beside it"
            )
    report = layers.Report("merged", "parameters folded in")
    for name, layer in found.items():
        weight = layers.matrix(layer.base)
        weight += layer.delta().to(weight.dtype)
        layers.replace(model, name, layer.base)
        report.changed[name] = layer.lora_a.numel() + layer.lora_b.numel()
    return report.raise_if_nothing_changed("the model has no LoRA layer")
