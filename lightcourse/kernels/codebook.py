"""Weights that are looked up: codes of a codebook become floats, and floats are multiplied.

No integer product can be made of levels that lie anywhere. So a row of weights is looked up once
for all rows of ``x``, and multiplied as floats.
"""

import numpy as np
from numba import njit

from lightcourse import reference
from lightcourse.kernels import caching
from lightcourse.kernels.floats import SUMS

CACHE = caching.ready()


def linear_codebook(x, qweight, levels, scale, bias=None):
    """Multiply by weights of a codebook; see :func:`lightcourse.reference.linear_codebook`.

    Error budget: sums of float32 in any order, (inputs + 3) * 2^-24 of the sum of sizes.

    Parameters
    ----------
    x : array of floats, shape (rows, inputs)
    qweight : array of uint8, shape (outputs, inputs * bits / 8)
    levels : array of float32, shape (2**bits,)
    scale : array of float32, shape (outputs, blocks)
    bias : array of float32, shape (outputs,), optional

    Returns
    -------
    ndarray of float32, shape (rows, outputs)

    Raises
    ------
    ValueError
        When shapes do not fit each other.
    """
    x, qweight, levels, scale = reference.check_codebook(x, qweight, levels, scale)
    y = np.empty((len(x), len(qweight)), np.float32)
    arrays = (np.ascontiguousarray(a) for a in (x, qweight, levels, scale))
    _multiply(*arrays, y)
    return y if bias is None else y + np.asarray(bias, np.float32)


@njit(cache=CACHE, nogil=True, error_model="numpy")
def _multiply(x, qweight, levels, scale, y):
    inputs = x.shape[1]
    width, bits = inputs // scale.shape[1], 8 * qweight.shape[1] // max(inputs, 1)
    pairs, weight = _pairs(levels), np.empty(inputs, np.float32)
    for n in range(len(qweight)):
        _look_up(qweight[n], bits, pairs, weight.view(np.uint64))
        for b in range(scale.shape[1]):
            for i in range(b * width, (b + 1) * width):
                weight[i] *= scale[n, b]
        for m in range(len(x)):
            y[m, n] = _dot(x[m], weight)


@njit(cache=CACHE, nogil=True, error_model="numpy")
def _pairs(levels):
    """Return every pair of levels as the 64 bits that two codes after each other stand for."""
    count = len(levels)
    both = np.empty((count * count, 2), np.float32)
    for i in range(count * count):
        both[i, 0], both[i, 1] = levels[i % count], levels[i // count]
    return both.view(np.uint64)[:, 0].copy()


@njit(cache=CACHE, nogil=True, error_model="numpy")
def _look_up(packed, bits, pairs, weight):
    mask, two = np.uint64(2 ** (2 * bits) - 1), np.uint64(2 * bits)
    for eight in range(len(weight) // 4):
        word = np.uint64(0)
        for k in range(bits):
            word |= np.uint64(packed[eight * bits + k]) << np.uint64(8 * k)
        for i in range(4):
            weight[4 * eight + i] = pairs[word & mask]
            word >>= two


@njit(cache=CACHE, nogil=True, error_model="numpy", fastmath=SUMS)
def _dot(a, b):
    total = np.float32(0)
    for i in range(len(a)):
        total += a[i] * b[i]
    return total
