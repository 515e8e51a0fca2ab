"""Rounding a matrix to the nearest integers: the plain way from floats to a grid.

Ways to round that look at more than a value and its scale (GPTQ, training on the grid) give
the same three tensors, and go on from there like this one.
"""

from collections.abc import Callable

import torch

from lightcourse.integers import quant_range, storable
from lightcourse.quantization.affine import (
    choose_qparams_affine,
    dequantize_affine,
    into_groups,
    quantize_affine,
)
from lightcourse.quantization.clipping import choose_qparams_mse


def round_to_nearest(
    weight: torch.Tensor,
    bits: int = 8,
    group_size: int | None = None,
    symmetric: bool = True,
    choose_qparams: Callable | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Round a matrix to the nearest integers.

    Parameters
    ----------
    weight : Tensor of floats, shape (rows, columns)
    bits : int
        2 to 8.
    group_size : int, optional
        Neighbours in a row that share a scale; one scale a row without it.
    symmetric : bool
        True: every zero point is 0.
    choose_qparams : callable, optional
        Chooses the grid: ``choose_qparams(groups, bits, symmetric, dim=-1)`` gives the scale
        and the zero point of each slice along the last dimension, kept as 1. Without it
        :func:`default_qparams`. :func:`choose_qparams_affine` and
        :func:`choose_qparams_mse` are two more.

    Returns
    -------
    q : Tensor of int8, shape (rows, columns)
    scale : Tensor of float32, shape (rows, groups)
        As it is stored (:func:`lightcourse.integers.storable`): up to 4 bits what float16
        holds.
    zero_point : Tensor of int32, shape (rows, groups), or None
        None if symmetric.

    Raises
    ------
    ValueError
        When ``bits`` is out of range, ``group_size`` does not divide the columns, or the
        weight is empty, not finite, or too large for a float16 scale.
    """
    quant_range(bits)
    if not weight.numel():
        raise ValueError(f"weight has shape {tuple(weight.shape)}; at least one value is wanted")
    weight = weight.detach().float().cpu()
    groups = into_groups(weight, weight.shape[1] if group_size is None else group_size)
    scale, zero_point = choose_grid(groups, bits, symmetric, choose_qparams)
    q = quantize_affine(groups, scale, zero_point, bits).reshape(weight.shape)
    return q, scale.squeeze(-1), None if symmetric else zero_point.squeeze(-1)


def choose_grid(
    groups: torch.Tensor, bits: int, symmetric: bool, choose_qparams: Callable | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Choose the grid of each group, as it will be stored.

    Parameters
    ----------
    groups : Tensor of float32, shape (..., size)
    bits, symmetric, choose_qparams
        As in :func:`round_to_nearest`.

    Returns
    -------
    scale : Tensor of float32, shape (..., 1)
        :func:`lightcourse.integers.storable`.
    zero_point : Tensor of int32, shape (..., 1)

    Raises
    ------
    ValueError
        When ``choose_qparams`` is no function, or gives no grid for these groups.
    """
    scale, zero_point = _checked_grid(groups, bits, symmetric, choose_qparams or default_qparams)
    return storable(scale, bits), zero_point


def _checked_grid(groups, bits, symmetric, choose):
    """Return what the caller's function chooses, or raise where it is no grid for the groups."""
    if not callable(choose):
        raise ValueError(f"choose_qparams is a {type(choose).__name__}; a function is wanted")
    found, wanted = choose(groups, bits, symmetric, dim=-1), (*groups.shape[:-1], 1)
    shapes = [tuple(getattr(part, "shape", ())) for part in found]
    if shapes != [wanted, wanted]:
        raise ValueError(
            f"choose_qparams gave tensors of the shapes {shapes}; scale and zero point of shape "
            f"{wanted} are wanted"
        )
    if symmetric and found[1].any():
        raise ValueError("choose_qparams gave zero points; with these symmetric=False is wanted")
    return found


def read_back(
    q: torch.Tensor, scale: torch.Tensor, zero_point: torch.Tensor | None
) -> torch.Tensor:
    """Return the float32 matrix that :func:`round_to_nearest`'s three tensors stand for.

    Examples
    --------
    >>> q, scale, zero_point = round_to_nearest(torch.tensor([[-1.0, 0.0, 1.0]]))
    >>> read_back(q, scale, zero_point).round(decimals=4).tolist()
    [[-1.0, 0.0, 1.0]]
    """
    groups = q.unflatten(1, (scale.shape[1], -1))
    zero = 0 if zero_point is None else zero_point[..., None]
    return dequantize_affine(groups, scale[..., None], zero).flatten(1)


def default_qparams(
    x: torch.Tensor, bits: int, symmetric: bool, dim: int = -1
) -> tuple[torch.Tensor, torch.Tensor]:
    """Choose the grid that :func:`quantize_` takes where the caller names none.

    Above 4 bits the whole range, since 31 levels and more leave little to gain; up to 4 bits
    the least squared error, which cuts off what few values would cost all others.
    """
    choose = choose_qparams_affine if bits > 4 else choose_qparams_mse
    return choose(x, bits, symmetric, dim)
