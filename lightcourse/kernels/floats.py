"""What stands between a model's products, in floats: norms, activations, softmax.

Plain loops over rows that the compiler makes vectors of; exp is a polynomial, since the
system's takes one number at a time. Tests hold each to torch's function in float64.
"""

import numpy as np
from numba import njit

from lightcourse.kernels import caching

CACHE = caching.ready()
# Sums may be made in any order, or they would be made one by one; NaN and infinity stay.
SUMS = {"reassoc", "contract", "nsz"}

LOG2_E, LN_2_HIGH, LN_2_LOW = (
    np.float32(1.44269504),
    np.float32(0.693359375),
    np.float32(-2.12194440e-4),
)
# The Taylor series of e^r for |r| <= ln(2) / 2, where what is left out is below 2^-24.
TAYLOR = tuple(np.float32(1 / factor) for factor in (5040, 720, 120, 24, 6, 2))
LEAST, MOST = np.float32(-87.0), np.float32(88.0)  # e to these are normal float32


@njit(cache=CACHE, nogil=True, error_model="numpy")
def exp(x, powers):
    """Replace each x by e^x, to within 2^-21 of it.

    ``powers`` is room for as many int32. Below -87 the answer is e^-87, above 88 it is e^88.
    """
    bits = powers.view(np.float32)
    for i in range(len(x)):
        value = min(max(x[i], LEAST), MOST)
        k = np.rint(value * LOG2_E)
        r = value - k * LN_2_HIGH - k * LN_2_LOW
        y = TAYLOR[0]
        y = y * r + TAYLOR[1]
        y = y * r + TAYLOR[2]
        y = y * r + TAYLOR[3]
        y = y * r + TAYLOR[4]
        y = y * r + TAYLOR[5]
        y = y * r + np.float32(1)
        x[i] = y * r + np.float32(1)
        powers[i] = (np.int32(k) + np.int32(127)) << np.int32(23)  # the bits of 2^k
    for i in range(len(x)):
        x[i] *= bits[i]


@njit(cache=CACHE, nogil=True, error_model="numpy", fastmath=SUMS)
def softmax(x, powers):
    """Replace a row of scores by its softmax."""
    largest = x[0]
    for i in range(len(x)):
        largest = max(largest, x[i])
    for i in range(len(x)):
        x[i] -= largest
    exp(x, powers)
    total = np.float32(0)
    for i in range(len(x)):
        total += x[i]
    share = np.float32(1) / total
    for i in range(len(x)):
        x[i] *= share


@njit(cache=CACHE, nogil=True, error_model="numpy", fastmath=SUMS)
def rms_norm(x, weight, epsilon, y):
    """Divide a row by the root of its mean square (Zhang & Sennrich 2019, arXiv 1910.07467)."""
    total = np.float32(0)
    for i in range(len(x)):
        total += x[i] * x[i]
    factor = np.float32(1) / np.sqrt(total / np.float32(len(x)) + epsilon)
    for i in range(len(x)):
        y[i] = x[i] * factor * weight[i]


@njit(cache=CACHE, nogil=True, error_model="numpy", fastmath=SUMS)
def layer_norm(x, weight, bias, epsilon, y):
    """Take a row's mean out and divide by its deviation (Ba et al. 2016, arXiv 1607.06450)."""
    total = np.float32(0)
    for i in range(len(x)):
        total += x[i]
    mean, square = total / np.float32(len(x)), np.float32(0)
    for i in range(len(x)):
        square += (x[i] - mean) * (x[i] - mean)
    factor = np.float32(1) / np.sqrt(square / np.float32(len(x)) + epsilon)
    for i in range(len(x)):
        y[i] = (x[i] - mean) * factor * weight[i] + bias[i]


@njit(cache=CACHE, nogil=True)
def rotate(x, cos, sin):
    """Turn the halves of a head's numbers against each other: RoPE (arXiv 2104.09864)."""
    half = len(x) // 2
    for i in range(half):
        a, b = x[i], x[half + i]
        x[i] = a * cos[i] - b * sin[i]
        x[half + i] = b * cos[half + i] + a * sin[half + i]


@njit(cache=CACHE, nogil=True, error_model="numpy")
def silu(x, y, powers):
    """Replace y by ``x * sigmoid(x) * y``, SwiGLU (arXiv 2002.05202); x is used up."""
    for i in range(len(x)):
        y[i] *= x[i]
        x[i] = -x[i]
    exp(x, powers)
    for i in range(len(x)):
        y[i] /= np.float32(1) + x[i]
