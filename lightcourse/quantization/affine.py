"""Linear (affine) quantization: real numbers on an evenly spaced grid of integers.

``x`` is stored as ``q = round(x / scale) + zero_point`` and read back as
``(q - zero_point) * scale`` (Jacob et al. 2017, arXiv 1712.05877).
"""

import torch

from lightcourse.integers import quant_range


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
        one for the whole tensor. For groups, see :func:`into_groups`.

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
    quant_range(bits)
    return choose_qparams_affine_with_min_max(*min_max_range(x, dim), bits, symmetric)


def min_max_range(x: torch.Tensor, dim: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the smallest and the largest value: nothing is cut off.

    Parameters
    ----------
    x : Tensor of floats
        Finite.
    dim : int, optional
        As in :func:`choose_qparams_affine`.

    Returns
    -------
    low, high : Tensor of float32
        Both keep ``x``'s number of dimensions.

    Raises
    ------
    ValueError
        When ``x`` is empty or not finite.

    Examples
    --------
    >>> low, high = min_max_range(torch.tensor([[1.0, 3.0], [-2.0, 5.0]]), dim=-1)
    >>> low.flatten().tolist(), high.flatten().tolist()
    ([1.0, -2.0], [3.0, 5.0])
    """
    x = checked(x)
    dims = tuple(range(x.ndim)) if dim is None else dim
    return x.amin(dims, keepdim=True), x.amax(dims, keepdim=True)


def checked(x: torch.Tensor) -> torch.Tensor:
    """Return ``x`` as float32 without gradient, or raise where it is empty or not finite."""
    if x.numel() == 0:
        raise ValueError("x is empty; at least one value is wanted")
    return checked_finite(x).detach().float()


def checked_finite(x: torch.Tensor) -> torch.Tensor:
    """Return ``x`` as it is, or raise where it is not finite."""
    if not torch.isfinite(x).all():
        raise ValueError("x holds NaN or infinity; finite values are wanted")
    return x


def choose_qparams_affine_with_min_max(
    low: torch.Tensor | float, high: torch.Tensor | float, bits: int = 8, symmetric: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Choose the scale and the zero point for values from ``low`` to ``high``.

    The range is widened to hold 0, which must be exact. What lies outside of it will be
    clamped.

    Parameters
    ----------
    low, high : Tensor of floats, or float
        Of one shape; from a measurement such as :func:`percentile_range`.
    bits : int
        2 to 8.
    symmetric : bool
        As in :func:`choose_qparams_affine`.

    Returns
    -------
    scale : Tensor of float32, of the shape of ``low``
    zero_point : Tensor of int32, of the same shape

    Raises
    ------
    ValueError
        When a range is not finite or ends below its start, or ``bits`` is out of range.

    Examples
    --------
    >>> scale, zero_point = choose_qparams_affine_with_min_max(-1.0, 0.5, bits=2)
    >>> scale.item(), zero_point.item()
    (0.5, 0)
    """
    quant_min, quant_max = quant_range(bits)
    low, high = (torch.as_tensor(end, dtype=torch.float32).detach() for end in (low, high))
    _check_ends(low, high)
    low, high = low.clamp(max=0), high.clamp(min=0)
    if symmetric:
        scale = _nonzero(torch.maximum(-low, high) / quant_max)
        return scale, torch.zeros_like(scale, dtype=torch.int32)
    # Halved first: the width of a range may overflow where its ends do not.
    scale = _nonzero((high / 2 - low / 2) / (quant_max - quant_min) * 2)
    return scale, place_zero(low, scale, bits)


def _check_ends(low, high):
    if not (torch.isfinite(low).all() and torch.isfinite(high).all()):
        raise ValueError("low or high is NaN or infinite; finite ends are wanted")
    if (low > high).any():
        raise ValueError("low is above high; a range from low to high is wanted")


def place_zero(low: torch.Tensor, scale: torch.Tensor, bits: int) -> torch.Tensor:
    """Return the integer that stands for 0 where ``low``, at most 0, lies at quant_min."""
    quant_min, quant_max = quant_range(bits)
    return (quant_min - (low / scale).round()).clamp(quant_min, quant_max).to(torch.int32)


def _nonzero(scale):
    """Replace scales too small for float32 arithmetic: their values all round to 0."""
    return torch.where(scale < torch.finfo(torch.float32).tiny, torch.ones_like(scale), scale)


def into_groups(x: torch.Tensor, group_size: int) -> torch.Tensor:
    """View each row as groups that will have a scale of their own.

    Parameters
    ----------
    x : Tensor of shape (..., columns)
    group_size : int
        Neighbours that share a scale; a divisor of the columns.

    Returns
    -------
    Tensor of shape (..., columns / group_size, group_size)

    Raises
    ------
    ValueError
        When ``group_size`` is no divisor of the columns.

    Examples
    --------
    >>> groups = into_groups(torch.arange(8.0).view(1, 8), 4)
    >>> scale, _ = choose_qparams_affine(groups, bits=4, symmetric=True, dim=-1)
    >>> groups.shape, scale.flatten().tolist()
    (torch.Size([1, 2, 4]), [0.4285714328289032, 1.0])
    """
    columns = x.shape[-1]
    fits = group_size in range(1, columns + 1) and not isinstance(group_size, bool | float)
    if not fits or columns % group_size:
        raise ValueError(
            f"group_size is {group_size}; a divisor of the {columns} columns is wanted"
        )
    return x.unflatten(-1, (-1, group_size))


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
        When ``x`` holds NaN or infinity, which no integer can stand for, or ``bits`` is out
        of range.
    """
    quant_min, quant_max = quant_range(bits)
    levels = nearest_levels(checked_finite(x), scale, zero_point)
    return levels.clamp(quant_min, quant_max).to(torch.int8)


def nearest_levels(x, scale, zero_point):
    """Return the nearest whole numbers, as floats, before they are clamped."""
    return (x.float() / scale).round() + zero_point


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


def fake_quantize(
    x: torch.Tensor, scale: torch.Tensor, zero_point: torch.Tensor, bits: int = 8
) -> torch.Tensor:
    """Round ``x`` to the grid but leave it in floats, so that a model can train on the grid.

    The values are those of ``dequantize_affine(quantize_affine(x, …), …)``. Rounding is a
    staircase whose gradient is 0 almost everywhere: nothing would learn. So the gradient
    passes as if nothing had been rounded (the straight-through estimator, Bengio et al.
    2013, arXiv 1308.3432), and stops where a value was clamped.

    Parameters
    ----------
    x : Tensor of floats
        May require a gradient; the scale gets none. NaN and infinity lie on no grid, and
        become NaN: a value that was lost elsewhere is not hidden by clamping it.
    scale, zero_point, bits
        As in :func:`quantize_affine`.

    Returns
    -------
    Tensor of ``x``'s shape and dtype

    Raises
    ------
    ValueError
        When ``bits`` is out of range.

    Examples
    --------
    >>> x = torch.tensor([0.3, 0.9, 5.0], requires_grad=True)
    >>> rounded = fake_quantize(x, torch.tensor(0.5), torch.tensor(0), bits=3)
    >>> rounded.sum().backward()
    >>> rounded.tolist(), x.grad.tolist()
    ([0.5, 1.0, 1.5], [1.0, 1.0, 0.0])
    """
    return _StraightThrough.apply(x, scale, zero_point, bits)


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, scale, zero_point, bits):
        quant_min, quant_max = quant_range(bits)
        levels = nearest_levels(x, scale, zero_point)
        clamped = levels.clamp(quant_min, quant_max)
        ctx.save_for_backward(levels == clamped)
        rounded = (clamped - zero_point) * scale
        return torch.where(torch.isfinite(x), rounded, torch.nan).to(x.dtype)

    @staticmethod
    def backward(ctx, gradient):
        (inside,) = ctx.saved_tensors
        return torch.where(inside, gradient, 0), None, None, None
