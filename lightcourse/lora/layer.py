"""One linear layer with a low-rank update beside it."""

import itertools
import math

import torch
from torch import nn
from torch.nn import functional as F

from lightcourse.lora.shell import Shell


class LoRALinear(Shell):
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
        if rank < 1:
            raise ValueError(f"rank is {rank}; at least 1 is wanted")
        if not 0 < alpha < math.inf:
            raise ValueError(f"alpha is {alpha}; a positive number is wanted")
        super().__init__(base, adapter)
        self.rank, self.alpha, self.scaling = rank, alpha, alpha / rank
        device = next(itertools.chain(base.parameters(), base.buffers())).device
        self.lora_a = nn.Parameter(torch.empty(rank, self.in_features, device=device))
        self.lora_b = nn.Parameter(torch.zeros(self.out_features, rank, device=device))
        nn.init.kaiming_uniform_(self.lora_a, a=math.sqrt(5))

    def after(self, x, y):
        """Return the base layer's output plus the scaled low-rank update."""
        return y + self.update(x).to(y.dtype)

    def update(self, x: torch.Tensor) -> torch.Tensor:
        """Return ``scaling · B A x``, by two thin products."""
        thin = F.linear(x.to(self.lora_a.dtype), self.lora_a)
        return self.scaling * F.linear(thin, self.lora_b)

    def new_weight(self, weight):
        """Return the matrix with the update in it."""
        return weight + self.delta()

    def delta(self) -> torch.Tensor:
        """Return the update ``scaling · B A`` of shape (outputs, inputs)."""
        return self.scaling * self.lora_b @ self.lora_a

    def extra_repr(self):
        """Describe the layer the way torch prints it."""
        return f"adapter={self.adapter!r}, rank={self.rank}, alpha={self.alpha}"


def rank_stabilized_alpha(alpha: float, rank: int) -> float:
    """Return the ``alpha`` with which the update is scaled by ``alpha / sqrt(rank)``: rsLoRA.

    Divided by the rank, an update of a high rank learns the more slowly the higher the rank;
    divided by its square root, one learning rate serves all ranks (Kalajdzievski 2023,
    arXiv 2312.03732). As this is a choice of ``alpha`` and nothing else, there is no other
    layer for it.

    Parameters
    ----------
    alpha : float
    rank : int

    Returns
    -------
    float
        ``alpha · sqrt(rank)``, for :func:`lightcourse.lora.add_lora_` with that rank.

    Raises
    ------
    ValueError
        When ``rank`` is below 1.

    Examples
    --------
    >>> rank_stabilized_alpha(16.0, rank=64) / 64  # the scaling: 16 / 8
    2.0
    """
    if rank < 1:
        raise ValueError(f"rank is {rank}; at least 1 is wanted")
    return alpha * math.sqrt(rank)
