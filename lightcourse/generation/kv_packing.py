"""Keys and values as a few bits each: rounded on a grid of their own, and packed into bytes.

A group of numbers is stored as ``q = round((x - low) / step)``, of ``bits`` bits, and read back
as ``low + q * step``.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

BITS = (2, 4, 8)


@dataclass(frozen=True)
class Packed:
    """Numbers of ``bits`` bits, as many a byte as fit.

    Parameters
    ----------
    levels : Tensor of uint8, shape (..., rows * bits / 8, columns)
        Neighbouring rows share a byte, the first of them its lowest bits.
    low, step : Tensor of float16
        Broadcast against the numbers: the smallest of a group, and how far two levels lie apart.
    bits : {2, 4, 8}
    """

    levels: torch.Tensor
    low: torch.Tensor
    step: torch.Tensor
    bits: int

    @property
    def nbytes(self) -> int:
        """The bytes of the levels and of their grids."""
        return self.levels.nbytes + self.low.nbytes + self.step.nbytes

    def changed(self, change: Callable[[torch.Tensor], torch.Tensor]) -> "Packed":
        """Return what a function of whole groups makes of each of the three tensors."""
        return Packed(change(self.levels), change(self.low), change(self.step), self.bits)


def joined(first: Packed | None, second: Packed) -> Packed:
    """Return the groups of two, of shape (n, heads, groups, rows, columns), one behind another."""
    if first is None:
        return second
    pairs = [(first.levels, second.levels), (first.low, second.low), (first.step, second.step)]
    return Packed(*(torch.cat(pair, dim=2) for pair in pairs), second.bits)


def round_and_pack(x: torch.Tensor, bits: int, dim: int) -> Packed:
    """Round numbers to the levels between the ends of their group, and pack them.

    Parameters
    ----------
    x : Tensor of floats, shape (..., rows, columns)
        The rows are a multiple of 8 / bits.
    bits : {2, 4, 8}
    dim : {-1, -2}
        Along which a group lies: -1 gives a row a grid of its own, -2 a column.

    Returns
    -------
    Packed
        :func:`unpacked` is off by half a step at most, plus float32's own rounding.

    Raises
    ------
    ValueError
        When ``x`` holds NaN, infinity or what float16 does not.
    """
    x = x.float()
    low, step = _grid(x, bits, dim)
    levels = ((x - low.float()) / step.float()).round().clamp(0, 2**bits - 1).to(torch.uint8)
    return Packed(_packed(levels, bits), low, step, bits)


def _grid(x, bits, dim):
    """Return the smallest level and the step, in float16, so that the levels span the group."""
    low, high = x.amin(dim, keepdim=True), x.amax(dim, keepdim=True)
    low = -_half_above(-low)
    step = _half_above((high - low.float()) / (2**bits - 1))
    if not (torch.isfinite(low).all() and torch.isfinite(step).all()):
        raise ValueError(
            "keys or values hold NaN, infinity or what is too large for float16; finite ones that "
            "float16 holds are wanted"
        )
    return low, torch.where(step == 0, 1, step)  # all are equal: every one is level 0


def _half_above(x):
    """Return the smallest float16 that is not below ``x``."""
    nearest = x.half()
    above = nearest.nextafter(torch.full_like(nearest, torch.inf))
    return torch.where(nearest.float() < x, above, nearest)


def _packed(levels, bits):
    parts = levels.unflatten(-2, (-1, 8 // bits))
    return sum(parts[..., i, :] << bits * i for i in range(8 // bits))


def unpacked(packed: Packed) -> torch.Tensor:
    """Return the numbers, float32 of shape (..., rows, columns), that are stored."""
    bits = packed.bits
    mask = 2**bits - 1
    parts = [packed.levels >> bits * i & mask for i in range(8 // bits)]
    levels = torch.stack(parts, dim=-2).flatten(-3, -2)
    return packed.low.float() + levels * packed.step.float()
