"""Cores for what stands between a model's products; each computes some rows of a job.

Their jobs have :class:`lightcourse.kernels.program.Field` behind the slots of a product's.
"""

import numpy as np
from numba import carray, njit

from lightcourse.kernels import caching, float_rows, floats
from lightcourse.kernels.addresses import longs, matrix, vector
from lightcourse.kernels.fields import FIELDS, Field
from lightcourse.kernels.jobs import Slot

CACHE = caching.ready()


@njit(cache=CACHE, nogil=True)
def _read(job):
    """Return a job's numbers, and the matrices that its rows are read from and written to."""
    job = carray(job, FIELDS)
    x = matrix(job[Slot.X], job[Slot.ROWS], job[Slot.X_STRIDE])
    return job, x, matrix(job[Slot.Y], job[Slot.ROWS], job[Slot.Y_STRIDE])


def rms_norm(job, first, last):
    """Write the RMS norm of rows."""
    job, x, y = _read(job)
    width = job[Field.WIDTH]
    weight, epsilon = vector(job[Slot.W], width), vector(job[Field.NUMBER], 1)[0]
    for i in range(first, last):
        floats.rms_norm(x[i, :width], weight, epsilon, y[i, :width])


def layer_norm(job, first, last):
    """Write the layer norm of rows."""
    job, x, y = _read(job)
    width = job[Field.WIDTH]
    weight, bias = vector(job[Slot.W], width), vector(job[Slot.BIAS], width)
    epsilon = vector(job[Field.NUMBER], 1)[0]
    for i in range(first, last):
        floats.layer_norm(x[i, :width], weight, bias, epsilon, y[i, :width])


def add_norm(job, first, last):
    """Replace rows of y by the layer norm of their sum with x."""
    job, x, y = _read(job)
    width = job[Field.WIDTH]
    weight, bias = vector(job[Slot.W], width), vector(job[Slot.BIAS], width)
    epsilon, total = vector(job[Field.NUMBER], 1)[0], np.empty(width, np.float32)
    for i in range(first, last):
        for j in range(width):
            total[j] = x[i, j] + y[i, j]
        floats.layer_norm(total, weight, bias, epsilon, y[i, :width])


def add(job, first, last):
    """Add rows of x to those of y."""
    job, x, y = _read(job)
    width = job[Field.WIDTH]
    for i in range(first, last):
        for j in range(width):
            y[i, j] += x[i, j]


def silu(job, first, last):
    """Replace y, SwiGLU's input, by what its gate x lets through; x is used up."""
    job, x, y = _read(job)
    width = job[Field.WIDTH]
    powers = np.empty(width, np.int32)
    for i in range(first, last):
        floats.silu(x[i, :width], y[i, :width], powers)


def gelu_tanh(job, first, last):
    """Write GELU, by tanh, of whole vectors; y may be x."""
    for i in range(first, last):
        float_rows.gelu_tanh(*_addresses(job, i))


def gelu_erf(job, first, last):
    """Write GELU, by erf, of whole vectors; y may be x."""
    for i in range(first, last):
        float_rows.gelu_erf(*_addresses(job, i))


@njit(cache=CACHE, nogil=True)
def _addresses(job, row):
    """Return where a row of x starts, and of y, and how many vectors there are."""
    job = carray(job, FIELDS)
    x, y = job[Slot.X] + 4 * row * job[Slot.X_STRIDE], job[Slot.Y] + 4 * row * job[Slot.Y_STRIDE]
    return x, y, padded(job[Field.WIDTH]) // 16


def rotate(job, first, last):
    """Turn the heads of rows by their positions, in place."""
    job, x, _ = _read(job)
    heads, size = job[Field.HEADS], job[Field.SIZE]
    cos = matrix(job[Field.COS], job[Field.WINDOW], size)
    sin = matrix(job[Field.SIN], job[Field.WINDOW], size)
    starts = carray(longs(job[Field.PADDING]), (job[Slot.ROWS] // job[Field.TIMES],))
    for i in range(first, last):
        text, time = i // job[Field.TIMES], i % job[Field.TIMES]
        place = max(job[Field.HELD] + time - starts[text], 0)
        for h in range(heads):
            floats.rotate(x[i, h * size : (h + 1) * size], cos[place], sin[place])


def keep_keys(job, first, last):
    """Write keys of rows into the cache, where a position's numbers lie a row apart."""
    job, x, _ = _read(job)
    heads, size, capacity = job[Field.HEADS], job[Field.SIZE], job[Field.CAPACITY]
    cache = carray_cache(job, size, capacity)
    for i in range(first, last):
        text, place = i // job[Field.TIMES], job[Field.HELD] + i % job[Field.TIMES]
        for h in range(heads):
            for j in range(size):
                cache[text, h, j, place] = x[i, h * size + j]


def keep_values(job, first, last):
    """Write values of rows into the cache, where a position's numbers lie side by side."""
    job, x, _ = _read(job)
    heads, size, capacity = job[Field.HEADS], job[Field.SIZE], job[Field.CAPACITY]
    cache = carray_cache(job, capacity, padded(size))
    for i in range(first, last):
        text, place = i // job[Field.TIMES], job[Field.HELD] + i % job[Field.TIMES]
        for h in range(heads):
            for j in range(size):
                cache[text, h, place, j] = x[i, h * size + j]


@njit(cache=CACHE, nogil=True)
def carray_cache(job, rows, columns):
    """Return one layer's keys or values: (texts, heads, rows, columns)."""
    texts = job[Slot.ROWS] // job[Field.TIMES]
    flat = matrix(job[Field.CACHE], texts * job[Field.HEADS] * rows, columns)
    return flat.reshape(texts, job[Field.HEADS], rows, columns)


@njit(cache=CACHE, nogil=True)
def padded(size):
    """Return the next multiple of 16, a vector's floats."""
    return (size + 15) // 16 * 16
