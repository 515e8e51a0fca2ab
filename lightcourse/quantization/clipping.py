"""Which values to let go: a narrower range clamps a few and gives all others finer steps."""

import torch

from lightcourse.calibration import check_percent
from lightcourse.integers import quant_range
from lightcourse.quantization.affine import (
    checked,
    choose_qparams_affine_with_min_max,
    min_max_range,
    place_zero,
)

# Shares of the full range that are tried, and where the value of largest size would sit, as
# a share of quant_min; above 1 it is cut off. Fine where the error's valley lies for few bits.
# So few do: on the tiny model's matrices, at 2 to 4 bits by rows and by groups of 32, the
# least error among them is 0 to 3 % above that of a search in hundreds of steps, while the
# range that just holds every value costs 1.4 to 4.7 times as much.
SHARES = (1.0, 0.95, 0.9, 0.85, 0.8, 0.74, 0.68, 0.62, 0.55, 0.45, 0.35, 0.25, 0.15, 0.08)
CLIPPED = (0.62, 0.68, 0.74, 0.8, 0.86, 0.92, 1.0, 1.06, 1.15, 1.3, 1.5, 1.8)


def percentile_range(
    x: torch.Tensor, percent: float = 99.9, dim: int | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a range that holds ``percent`` of the values; both ends lose the same share.

    Parameters
    ----------
    x : Tensor of floats
        Finite.
    percent : float
        Above 50, up to 100; at 100 nothing is cut off. With n values, each end loses the
        outermost ``n * (100 - percent) / 200``, rounded down.
    dim : int, optional
        As in :func:`choose_qparams_affine`.

    Returns
    -------
    low, high : Tensor of float32
        Values of ``x``. Both keep ``x``'s number of dimensions.

    Raises
    ------
    ValueError
        When ``x`` is empty or not finite, or ``percent`` is out of range.

    Examples
    --------
    >>> low, high = percentile_range(torch.tensor([-9.0, *range(8), 99.0]), percent=80)
    >>> low.item(), high.item()
    (0.0, 7.0)
    """
    check_percent(percent)
    x = checked(x)
    rows = x.reshape(1, -1) if dim is None else x.movedim(dim, -1)
    count = rows.shape[-1]
    cut = int(count * (100 - percent) / 200 + 1e-6)
    low, high = (rows.kthvalue(k, -1).values for k in (cut + 1, count - cut))
    if dim is None:
        return low.view([1] * x.ndim), high.view([1] * x.ndim)
    return low.unsqueeze(dim), high.unsqueeze(dim)


def mse_range(
    x: torch.Tensor, bits: int = 8, symmetric: bool = False, dim: int | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the range whose quantization has the least squared error, of those tried.

    A dozen shares of the full range are tried: for either end alone, then for both. The full
    range is among them, so that the result is never worse than that.

    Parameters
    ----------
    x : Tensor of floats
        Finite.
    bits, symmetric, dim
        As in :func:`choose_qparams_affine`, for which the range is meant.

    Returns
    -------
    low, high : Tensor of float32
        Widened to hold 0. Both keep ``x``'s number of dimensions.

    Raises
    ------
    ValueError
        When ``x`` is empty or not finite, or ``bits`` is out of range.
    """
    quant_range(bits)
    x = checked(x)
    low, high = min_max_range(x, dim)
    low, high = low.clamp(max=0), high.clamp(min=0)
    least = _squared_error(
        x, *choose_qparams_affine_with_min_max(low, high, bits, symmetric), bits, dim
    )
    # A symmetric grid looks at the wider end only: there is one thing to try.
    for powers in [(1, 1)] if symmetric else [(0, 1), (1, 0), (1, 1)]:
        first = low, high
        for share in SHARES[1:]:
            tried = [end * share**power for end, power in zip(first, powers, strict=True)]
            qparams = choose_qparams_affine_with_min_max(*tried, bits, symmetric)
            error = _squared_error(x, *qparams, bits, dim)
            low, high = (
                torch.where(error < least, new, old)
                for new, old in zip(tried, (low, high), strict=True)
            )
            least = torch.minimum(error, least)
    return low, high


def _squared_error(x, scale, zero_point, bits, dim):
    quant_min, quant_max = quant_range(bits)
    q = (x / scale).round_().add_(zero_point).clamp_(quant_min, quant_max)
    dims = tuple(range(x.ndim)) if dim is None else dim
    return q.sub_(zero_point).mul_(scale).sub_(x).square_().sum(dims, keepdim=True)


def search_scale(x: torch.Tensor, bits: int = 4) -> torch.Tensor:
    """Choose for each slice along the last dimension the scale with the smallest error.

    The scale that lets the largest value just fit is seldom the best one for few bits:
    cutting that one value off makes the steps finer for all the others. So that scale and a
    dozen others are tried, and the one with the least squared error stays. It may come out
    negative: then the value of largest size sits at or near quant_min, where there is one
    level more than on the other side.

    Parameters
    ----------
    x : Tensor of floats, shape (..., size)
        Finite.
    bits : int
        2 to 8.

    Returns
    -------
    Tensor of float32, shape (..., 1)
        Numbers that float16 can hold, so that they may be stored as such. An all-zero
        slice gets scale 1.

    Raises
    ------
    ValueError
        When ``x`` is empty, not finite or too large for a float16 scale, or ``bits`` is out
        of range.
    """
    quant_min, quant_max = quant_range(bits)
    x = checked(x)
    extreme = x.gather(-1, x.abs().argmax(-1, keepdim=True))
    scale, least = torch.ones_like(extreme), torch.full_like(extreme, torch.inf)
    for most in (quant_max, *(quant_min * share for share in CLIPPED)):
        tried = _half(extreme / most)
        q = (x / tried).round_().clamp_(quant_min, quant_max)
        error = q.mul_(tried).sub_(x).square_().sum(-1, keepdim=True)
        scale = torch.where(error < least, tried, scale)
        least = torch.minimum(error, least)
    if not torch.isfinite(least).all():
        raise ValueError(f"x reaches {x.abs().max():.3g}; its scale must fit a float16")
    return scale


def choose_qparams_mse(
    x: torch.Tensor, bits: int = 4, symmetric: bool = False, dim: int | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Choose the scale and the zero point that leave the least squared error, of those tried.

    Parameters
    ----------
    x : Tensor of floats
        Finite.
    bits, symmetric, dim
        As in :func:`choose_qparams_affine`. Symmetric is :func:`search_scale`; else the scale
        is positive, and the range of :func:`mse_range` ends at quant_min and
        quant_max.

    Returns
    -------
    scale : Tensor of float32
        Numbers that float16 can hold.
    zero_point : Tensor of int32
        Both keep ``x``'s number of dimensions.

    Raises
    ------
    ValueError
        As :func:`search_scale`.
    """
    if symmetric:
        scale = _along(x, dim, lambda slices: search_scale(slices, bits))
        return scale, torch.zeros_like(scale, dtype=torch.int32)
    low, high = mse_range(x, bits, dim=dim)
    scale = _half(choose_qparams_affine_with_min_max(low, high, bits)[0])
    if not torch.isfinite(scale).all():
        raise ValueError(f"x reaches {x.abs().max():.3g}; its scale must fit a float16")
    return scale, place_zero(low, scale, bits)


def _along(x, dim, choose):
    """Choose a value for each slice along a dimension, or for all of ``x``, and keep its shape."""
    if dim is None:
        return choose(x.reshape(-1)).view([1] * x.ndim)
    return choose(x.movedim(dim, -1)).movedim(-1, dim)


def _half(scale):
    """Round to what float16 holds; what that makes 0 becomes 1: its values all round to 0."""
    scale = scale.half().float()
    return torch.where(scale == 0, torch.ones_like(scale), scale)
