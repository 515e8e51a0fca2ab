"""What is done to each matrix, and to a piece of one."""

import contextlib
import re
from dataclasses import dataclass

import torch

from lightcourse.pruning import n_of_m_mask, row_mask
from lightcourse.quantization import QuantizedLinear


@dataclass(frozen=True)
class Compression:
    """How each linear layer's matrix is compressed.

    Parameters
    ----------
    bits : int
        2 to 8.
    group_size : int, optional
        Inputs that share a scale; one scale a row without it.
    symmetric : bool
        False gives the weights zero points.
    prune : str, optional
        ``"2:4"`` keeps the two largest of every four neighbours, ``"0.5"`` removes the smaller
        half of each row. Both look at a row alone, so a piece of a matrix is enough. Zeros are
        stored like any other number.

    Raises
    ------
    ValueError
        When ``prune`` is neither.
    """

    bits: int = 4
    group_size: int | None = 128
    symmetric: bool = True
    prune: str | None = None

    def __post_init__(self):
        self._wanted()

    def _wanted(self):
        """Return (n, m), or the fraction to remove; None where nothing is pruned."""
        if self.prune is None:
            return None
        if parts := re.fullmatch(r"(\d+):(\d+)", str(self.prune)):
            n, m = map(int, parts.groups())
            if 0 < n <= m:
                return n, m
        with contextlib.suppress(ValueError):
            if 0 <= float(self.prune) < 1:
                return float(self.prune)
        raise ValueError(
            f"prune is {self.prune!r}; n:m, such as 2:4, or a fraction below 1 is wanted"
        )

    def pruned(self, weight: torch.Tensor) -> torch.Tensor:
        """Return whole rows with the smallest weights set to 0."""
        wanted = self._wanted()
        if wanted is None:
            return weight
        scores = weight.abs()
        by_fours = isinstance(wanted, tuple)
        return weight * (n_of_m_mask(scores, *wanted) if by_fours else row_mask(scores, wanted))

    def layer(self, weight: torch.Tensor) -> QuantizedLinear:
        """Return the layer that stores some whole rows of a matrix."""
        return QuantizedLinear(
            self.pruned(weight), None, self.bits, self.group_size, symmetric=self.symmetric
        )
