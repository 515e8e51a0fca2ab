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
    _choose_scales(x.view(np.int32), scale, scale.view(np.int32))
    _round_rows(x, scale, q)
    return q, scale


@njit(cache=True, error_model="numpy")
def _choose_scales(bits, scale, scale_bits):
    """Find each row's largest finite size among the *bit patterns* of its floats.

    Without their sign bit, floats are ordered as the integers with the same bits. Integers
    have no NaN to mind, so the compiler compares many of them at once.
    """
    for i in range(bits.shape[0]):
        largest = np.int32(0)
        for j in range(bits.shape[1]):
            size = bits[i, j] & np.int32(0x7FFFFFFF)
            size = size if size < np.int32(0x7F800000) else np.int32(0)  # infinity and NaN
            largest = max(largest, size)
        scale_bits[i] = largest
        scale[i] /= np.float32(127)
        if scale[i] < np.float32(1.1754944e-38):  # below the normal float32
            scale[i] = np.float32(1)


@njit(cache=True, error_model="numpy")
def _round_rows(x, scale, q):
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            steps = np.rint(x[i, j] / scale[i])
            steps = steps if steps == steps else np.float32(0)  # NaN
            q[i, j] = np.int8(min(max(steps, np.float32(-127)), np.float32(127)))
