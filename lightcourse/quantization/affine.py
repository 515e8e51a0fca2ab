"""Linear (affine) quantization: real numbers on an evenly spaced grid of integers.

``x`` is stored as ``q = round(x / scale) + zero_point`` and read back as
``(q - zero_point) * scale`` (Jacob et al. 2017, arXiv 1712.05877).
"""

import torch

# Where the value of largest size would sit, as a share of quant_min; above 1 it is cut off.
CLIPPED = (0.62, 0.68, 0.74, 0.8, 0.86, 0.92, 1.0, 1.06, 1.15, 1.3, 1.5, 1.8)


def quant_range(bits: int) -> tuple[int, int]:
    """Return ``quant_min, quant_max``, the signed integers that ``bits`` bits can hold.

    Raises
    ------
    ValueError
        When ``bits`` is not a whole number from 2 to 8.

    Examples
    --------
    >>> quant_range(4)
    (-8, 7)
    """
    if bits not in range(2, 9):
        raise ValueError(f"bits is {bits}; a whole number from 2 to 8 is wanted")
    return -(2 ** (bits - 1)), 2 ** (bits - 1) - 1


def choose_qparams_affine(
    x: torch.Tensor, bits: int = 8, symmetric: bool = False, dim: int | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Choose the scale and the zero point that let ``x`` just fit the integers.

    Parameters
    ----------
    x : Tensor of floats
        Finite.
    bits : int
        2 to 8.
    symmetric : bool
        False: the range from min(x, 0) to max(x, 0) spans all integers. True: the
        zero point is 0 and the scale is ``max|x| / quant_max``.
    dim : int, optional
        One scale for each slice along this dimension: -1 gives one a row. Without it
        one for the whole tensor. Reshape ``x`` to (rows, groups, group_size) for groups.

    Returns
    -------
    scale : Tensor, float32, positive
    zero_point : Tensor, int32, from quant_min to quant_max
        Both keep ``x``'s number of dimensions, so that they broadcast against it; zero is
        always represented exactly. An all-zero slice gets scale 1.

    Raises
    ------
    ValueError
        When ``x`` is empty or not finite, or ``bits`` is out of range.

    Examples
    --------
    >>> scale, zero_point = choose_qparams_affine(torch.tensor([0.0, 2.55]))
    >>> round(scale.item(), 4), zero_point.item()
    (0.01, -128)
    """
    quant_min, quant_max = quant_range(bits)
    x = _checked(x)
    dims = tuple(range(x.ndim)) if dim is None else dim
    low = x.amin(dims, keepdim=True).clamp(max=0)
    high = x.amax(dims, keepdim=True).clamp(min=0)
    if symmetric:
        scale = _nonzero(torch.maximum(-low, high) / quant_max)
        return scale, torch.zeros_like(scale, dtype=torch.int32)
    # Halved first: the width of a range may overflow where its ends do not.
    scale = _nonzero((high / 2 - low / 2) / (quant_max - quant_min) * 2)
    zero_point = (quant_min - (low / scale).round()).clamp(quant_min, quant_max)
    return scale, zero_point.to(torch.int32)


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
    x = _checked(x)
    extreme = x.gather(-1, x.abs().argmax(-1, keepdim=True))
    scale, least = torch.ones_like(extreme), torch.full_like(extreme, torch.inf)
    for most in (quant_max, *(quant_min * share for share in CLIPPED)):
        tried = (extreme / most).half().float()
        tried = torch.where(tried == 0, torch.ones_like(tried), tried)
        q = (x / tried).round_().clamp_(quant_min, quant_max)
        error = q.mul_(tried).sub_(x).square_().sum(-1, keepdim=True)
        scale = torch.where(error < least, tried, scale)
        least = torch.minimum(error, least)
    if not torch.isfinite(least).all():
        raise ValueError(f"x reaches {x.abs().max():.3g}; its scale must fit a float16")
    return scale


def _checked(x):
    if x.numel() == 0:
        raise ValueError("x is empty; at least one value is wanted")
    if not torch.isfinite(x).all():
        raise ValueError("x holds NaN or infinity; finite values are wanted")
    return x.detach().float()


def _nonzero(scale):
    """Replace scales too small for float32 arithmetic: their values all round to 0."""
    return torch.where(scale < torch.finfo(torch.float32).tiny, torch.ones_like(scale), scale)


def quantize_affine(
    x: torch.Tensor, scale: torch.Tensor, zero_point: torch.Tensor, bits: int = 8
) -> torch.Tensor:
    """Return the integers nearest to ``x / scale + zero_point``, clamped to the range.

    Parameters
    ----------
    x : Tensor of floats
    scale, zero_point : Tensor
        As :func:`choose_qparams_affine` gives them; broadcast against ``x``.
    bits : int
        2 to 8.

    Returns
    -------
    Tensor of int8
        Of ``x``'s shape, between quant_min and quant_max; halves round to even.

    Raises
    ------
    ValueError
        When ``x`` holds NaN, which no integer can stand for, or ``bits`` is out of range.
    """
    quant_min, quant_max = quant_range(bits)
    if torch.isnan(x).any():
        raise ValueError("x holds NaN; numbers are wanted")
    q = (x.float() / scale).round() + zero_point
    return q.clamp(quant_min, quant_max).to(torch.int8)


def dequantize_affine(
    q: torch.Tensor, scale: torch.Tensor, zero_point: torch.Tensor
) -> torch.Tensor:
    """Return the real numbers, float32, that the integers ``q`` stand for.

    Rounding is not undone: the result differs from what was quantized by scale / 2 at
    most, where nothing was clamped.

    Examples
    --------
    >>> x = torch.tensor([-1.0, 0.0, 0.5])
    >>> scale, zero_point = choose_qparams_affine(x)
    >>> back = dequantize_affine(quantize_affine(x, scale, zero_point), scale, zero_point)
    >>> bool(((back - x).abs() <= scale / 2 + 1e-6).all()), back[1].item()
    (True, 0.0)
    """
    return (q.to(torch.int32) - zero_point).float() * scale
