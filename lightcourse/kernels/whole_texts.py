"""Attention within whole texts: a core that shares texts and heads."""

import numpy as np
from numba import carray, njit

from lightcourse.kernels import caching, float_rows
from lightcourse.kernels.addresses import longs, matrix, vector
from lightcourse.kernels.between import padded
from lightcourse.kernels.fields import FIELDS, Field
from lightcourse.kernels.float_tiles import multiply
from lightcourse.kernels.jobs import Slot

CACHE = caching.ready()
BLOCK = 16  # positions that are computed together


def attend(job, first, last):
    """Compute some units: a text, and one of its heads.

    Every position before the text's end sees all of these; positions behind it are left out.
    """
    job = carray(job, FIELDS)
    for unit in range(first, last):
        _unit(job, unit // job[Field.HEADS], unit % job[Field.HEADS])


@njit(cache=CACHE, nogil=True)
def _unit(job, text, head):
    """Compute a head of a text, a block of positions after the other."""
    size, stride, first = job[Field.SIZE], 4 * job[Slot.X_STRIDE], text * job[Field.TIMES]
    end = carray(longs(job[Field.ENDS]), (text + 1,))[text]
    wide, columns, start = padded(size), padded(end), first * stride + 4 * head * size
    keys = _turned(job, first, end, head)
    scores = np.empty((BLOCK, columns), np.float32)
    out = np.empty((BLOCK, wide), np.float32)
    for top in range(0, end, BLOCK):
        count = min(BLOCK, end - top)
        multiply(
            count, columns, size, job[Slot.X] + start + top * stride, stride,
            keys.ctypes.data, 4 * columns, scores.ctypes.data, 4 * columns,
        )  # fmt: skip
        for i in range(count):
            float_rows.softmax(scores.ctypes.data + 4 * i * columns, end)
        multiply(
            count, wide, end, scores.ctypes.data, 4 * columns,
            job[Field.OTHER] + start, stride, out.ctypes.data, 4 * wide,
        )  # fmt: skip
        _write(job, first + top, count, head, out)


@njit(cache=CACHE, nogil=True)
def _turned(job, first, end, head):
    """Return a text's keys, times what scores are multiplied by, a column a position."""
    size, factor = job[Field.SIZE], vector(job[Field.NUMBER], 1)[0]
    x = matrix(job[Field.CACHE], job[Slot.ROWS], job[Slot.X_STRIDE])
    keys = np.empty((size, padded(end)), np.float32)
    keys[:, end:] = 0
    for top in range(0, end, BLOCK):  # so few rows stay in the cache while they are read
        for j in range(size):
            for i in range(top, min(top + BLOCK, end)):
                keys[j, i] = factor * x[first + i, head * size + j]
    return keys


@njit(cache=CACHE, nogil=True)
def _write(job, row, count, head, out):
    size = job[Field.SIZE]
    y = matrix(job[Slot.Y], job[Slot.ROWS], job[Slot.Y_STRIDE])
    for i in range(count):
        for j in range(size):
            y[row + i, head * size + j] = out[i, j]
