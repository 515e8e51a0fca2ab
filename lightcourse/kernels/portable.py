"""Kernels in plain ``@njit`` Python: readable, and fast on any CPU that Numba knows.

Jitted functions that call each other stay in this one file, because Numba's disk cache
does not notice a callee edited in another file.
"""

import numpy as np
from numba import njit

from lightcourse.reference import as_rows


def quantize_rows(x):
    """Quantize each row to int8; see :func:`lightcourse.reference.quantize_rows`.

    Equal to the reference bit for bit (error budget: 0).

    Parameters
    ----------
    x : ndarray, shape (rows, columns)

    Returns
    -------
    q : ndarray of int8, shape (rows, columns)
    scale : ndarray of float32, shape (rows,)

    Raises
    ------
    ValueError
        When ``x`` is not two-dimensional.
    """
    x = as_rows(x)
    q = np.empty(x.shape, np.int8)
    scale = np.empty(len(x), np.float32)
    _quantize_rows(x, q, scale)
    return q, scale


@njit(cache=True, error_model="numpy")
def _quantize_rows(x, q, scale):
    tiny = np.float32(1.1754944e-38)
    for i in range(x.shape[0]):
        largest = np.float32(0)
        for j in range(x.shape[1]):
            size = abs(x[i, j])
            if size > largest and size < np.inf:
                largest = size
        step = largest / np.float32(127)
        zero = step < tiny
        scale[i] = np.float32(1) if zero else step
        for j in range(x.shape[1]):
            q[i, j] = _round_to_int8(x[i, j], scale[i], zero)


@njit(cache=True, error_model="numpy")
def _round_to_int8(value, scale, zero):
    if np.isnan(value) or (zero and not np.isinf(value)):
        return np.int8(0)
    return np.int8(min(max(np.rint(value / scale), np.float32(-127)), np.float32(127)))
