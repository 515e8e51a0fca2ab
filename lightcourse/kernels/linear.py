"""The public kernels: look at the arguments, quantize the rows, hand over to a path."""

import numpy as np

from lightcourse import panels, reference
from lightcourse.kernels import paths, rows
from lightcourse.kernels.jobs import Operands


def quantize_rows(x):
    """Quantize each row to int8; see :func:`lightcourse.reference.quantize_rows`.

    Equal to the reference bit for bit (error budget: 0).

    Parameters
    ----------
    x : array of floats, shape (rows, columns)

    Returns
    -------
    q : ndarray of int8, shape (rows, columns)
    scale : ndarray of float32, shape (rows,)

    Raises
    ------
    ValueError
        When ``x`` is not two-dimensional.
    """
    x = reference.as_rows(x)
    q, _, scale = rows.quantize(x, x.shape[1], 1, x.shape[1], threads=1)
    return q, scale


def quantize_groups(x, width):
    """Quantize each row to int8 in groups; see :func:`lightcourse.reference.quantize_groups`.

    Equal to the reference bit for bit (error budget: 0).

    Parameters
    ----------
    x : array of floats, shape (rows, columns)
    width : int

    Returns
    -------
    q : ndarray of int8, shape (rows, columns)
    scale : ndarray of float32, shape (rows, groups)

    Raises
    ------
    ValueError
        When ``x`` is not two-dimensional, or ``width`` no positive number.
    """
    x, width = reference.as_rows(x), reference.check_width(width)
    groups = reference.count_groups(x.shape[1], width)
    q, _, scale = rows.quantize_groups(x, x.shape[1], groups, width, threads=1)
    return q, scale


def linear_w8a8(x, qweight, scale, bias=None):
    """Multiply by int8 weights; see :func:`lightcourse.reference.linear_w8a8`.

    Error budget: the integer sums are exact; the three roundings of float32 that follow
    cost at most 4 * 2^-24 of ``|y - bias| + |bias|``.

    Parameters
    ----------
    x : array of floats, shape (rows, inputs)
    qweight : array of uint8, shape (panels, blocks, 16, 4)
    scale, bias : array of float32, shape (outputs,)

    Returns
    -------
    ndarray of float32, shape (rows, outputs)

    Raises
    ------
    ValueError
        When shapes do not fit each other, or there are more than 65,536 inputs.
    """
    x, qweight = reference.as_rows(x), np.asarray(qweight)
    reference.check_blocks(x, qweight, panels.INPUTS, panels.INPUTS)
    scale = reference.as_outputs("scale", scale, len(scale), qweight)
    bias = reference.as_outputs("bias", bias, len(scale), qweight)
    weights = np.ascontiguousarray(qweight), filled(scale)
    columns = qweight.shape[1] * panels.INPUTS
    return _multiply("w8", x, columns, 1, weights, bias)


def linear_w8a8_grouped(x, qweight, scale, bias=None, outputs=None):
    """Multiply by int8 weights in groups; see :func:`lightcourse.reference.linear_w8a8_grouped`.

    Error budget: a group's integer sum is exact; rounding costs at most
    (groups + 4) * 2^-24 of the sum over the groups' sizes, plus ``|bias|``.

    Parameters
    ----------
    x : array of floats, shape (rows, inputs)
    qweight : array of uint8, shape (panels, blocks, 16, 4)
    scale : array of float16, shape (panels, groups, 16)
    bias : array of float32, shape (outputs,), optional
    outputs : int, optional

    Returns
    -------
    ndarray of float32, shape (rows, outputs)

    Raises
    ------
    ValueError
        When shapes do not fit each other, a group is no multiple of 32 wide, or there are
        more than 65,536 inputs.
    """
    x, qweight, scale = reference.as_rows(x), np.asarray(qweight), np.asarray(scale)
    reference.check_blocks(x, qweight, panels.INPUTS, panels.BLOCK_G8)
    reference.check_groups(qweight, scale, None, panels.INPUTS)
    outputs = reference.count_outputs(qweight, bias, outputs)
    bias = reference.as_outputs("bias", bias, outputs, qweight)
    halves = np.ascontiguousarray(scale).view(np.uint16)  # Numba knows no float16
    weights = np.ascontiguousarray(qweight), halves
    columns = qweight.shape[1] * panels.INPUTS
    return _multiply("g8", x, columns, scale.shape[1], weights, bias)


def linear_w4a8(x, qweight, scale, zero_point=None, bias=None, outputs=None):
    """Multiply by 4-bit weights in groups; see :func:`lightcourse.reference.linear_w4a8`.

    Error budget: a group's integer sum is exact; rounding costs at most
    (groups + 4) * 2^-24 of the sum over the groups' sizes, plus ``|bias|``.

    Parameters
    ----------
    x : array of floats, shape (rows, inputs)
    qweight : array of uint8, shape (panels, blocks, 16, 4)
    scale : array of float16, shape (panels, groups, 16)
    zero_point : array of uint8, shape (panels, groups, 16), optional
    bias : array of float32, shape (outputs,), optional
    outputs : int, optional

    Returns
    -------
    ndarray of float32, shape (rows, outputs)

    Raises
    ------
    ValueError
        When shapes do not fit each other, a group is no multiple of 32 wide, or there are
        more than 65,536 inputs.
    """
    x, qweight, scale = reference.as_rows(x), np.asarray(qweight), np.asarray(scale)
    zero_point = None if zero_point is None else np.asarray(zero_point)
    reference.check_blocks(x, qweight, 2 * panels.INPUTS, panels.BLOCK_W4)
    reference.check_groups(qweight, scale, zero_point, 2 * panels.INPUTS)
    outputs = reference.count_outputs(qweight, bias, outputs)
    bias = reference.as_outputs("bias", bias, outputs, qweight)
    halves = np.ascontiguousarray(scale).view(np.uint16)  # Numba knows no float16
    arrays = (qweight, halves) if zero_point is None else (qweight, halves, zero_point)
    weights = tuple(np.ascontiguousarray(array) for array in arrays)
    columns = qweight.shape[1] * 2 * panels.INPUTS
    kind = "w4" if zero_point is None else "z4"
    return _multiply(kind, x, columns, scale.shape[1], weights, bias)


def linear_sparse(x, weight, scale, bias=None):
    """Multiply by a pruned int8 matrix; see :func:`lightcourse.reference.linear_sparse`.

    Error budget: that of :func:`linear_w8a8`.

    Parameters
    ----------
    x : array of floats, shape (rows, inputs)
    weight : lightcourse.panels.SparseWeight
    scale, bias : array of float32, shape (outputs,)

    Returns
    -------
    ndarray of float32, shape (rows, outputs)

    Raises
    ------
    ValueError
        When shapes do not fit each other, or there are more than 65,536 inputs.
    """
    x = reference.as_rows(x)
    reference.check_inputs(x, weight.inputs, weight.inputs)
    scale = reference.as_outputs("scale", scale, len(scale), weight.sums)
    bias = reference.as_outputs("bias", bias, len(scale), weight.sums)
    columns = -(-weight.inputs // panels.INPUTS) * panels.INPUTS
    weights = *weight[:5], filled(scale)
    return _multiply("sparse", x, columns, 1, weights, bias)


def _multiply(kind, x, columns, groups, weights, bias):
    """Quantize ``x``, let this machine's path multiply, and cut the padding off."""
    outputs, bias = len(bias), filled(bias)
    y = rows.room((len(x), len(bias)), np.float32)
    path = paths.serving(kind)
    threads = paths.claim(len(x), columns * len(bias))
    quantize = rows.quantize_groups if kind == "g8" else rows.quantize
    try:
        quantized = quantize(x, row_bytes(columns), groups, columns // groups, threads)
        path.multiply(kind, path.cores[kind], threads, Operands(*quantized, weights, bias, y))
    finally:
        paths.release(threads)
    return y if outputs == len(bias) else np.ascontiguousarray(y[:, :outputs])


def row_bytes(columns: int) -> int:
    """Return how far apart rows lie: whole cache lines, but no power of two.

    Rows a multiple of 1,024 bytes apart would compete for the same few places of a cache.
    """
    lines = -(-columns // 64)
    return 64 * (lines + (lines % 16 == 0))


def filled(values):
    """Fill up to whole panels with zeros."""
    missing = -len(values) % panels.OUTPUTS
    return np.pad(values, (0, missing)) if missing else np.ascontiguousarray(values)
