"""Attention over a cache: a core that shares texts, heads and rows."""

import numpy as np
from numba import carray, njit

from lightcourse.kernels import caching, floats
from lightcourse.kernels.addresses import longs, matrix, vector
from lightcourse.kernels.between import padded
from lightcourse.kernels.fields import FIELDS, Field
from lightcourse.kernels.float_tiles import multiply
from lightcourse.kernels.jobs import Slot

CACHE = caching.ready()
BLOCK = 16  # positions of a text that are computed together


def attend(job, first, last):
    """Compute some units: a block of positions of a text, and one head of keys.

    Position p of a text sees those from the text's first one to itself.
    """
    job = carray(job, FIELDS)
    blocks = (job[Field.TIMES] + BLOCK - 1) // BLOCK
    for unit in range(first, last):
        text, rest = unit // (blocks * job[Field.HEADS]), unit % (blocks * job[Field.HEADS])
        _unit(job, text, rest // blocks, rest % blocks * BLOCK)


@njit(cache=CACHE, nogil=True)
def _unit(job, text, head, top):
    """Compute the queries of a block of positions that share one head of keys."""
    size, group, times = job[Field.SIZE], job[Field.GROUP], job[Field.TIMES]
    count, wide, capacity = min(BLOCK, times - top), padded(size), job[Field.CAPACITY]
    end = job[Field.HELD] + top + count
    queries = _gather(job, text * times + top, count, head)
    scores = np.empty((count * group, padded(end)), np.float32)
    out = np.empty((count * group, wide), np.float32)
    place = text * job[Field.HEADS] + head
    keys = job[Field.CACHE] + 4 * place * size * capacity
    values = job[Field.OTHER] + 4 * place * wide * capacity
    start = carray(longs(job[Field.PADDING]), (text + 1,))[text]
    multiply(
        count * group, padded(end), size, queries.ctypes.data, 4 * size,
        keys, 4 * capacity, scores.ctypes.data, 4 * scores.shape[1],
    )  # fmt: skip
    _soften(scores, group, start, job[Field.HELD] + top, end)
    multiply(
        count * group, wide, end, scores.ctypes.data, 4 * scores.shape[1],
        values, 4 * wide, out.ctypes.data, 4 * wide,
    )  # fmt: skip
    _scatter(job, text * times + top, count, head, out)


@njit(cache=CACHE, nogil=True)
def _gather(job, row, count, head):
    """Copy a block's queries together, times what their scores are multiplied by."""
    size, group = job[Field.SIZE], job[Field.GROUP]
    x = matrix(job[Slot.X], job[Slot.ROWS], job[Slot.X_STRIDE])
    queries = np.empty((count * group, size), np.float32)
    factor = vector(job[Field.NUMBER], 1)[0]
    for i in range(count):
        for g in range(group):
            for j in range(size):
                queries[i * group + g, j] = factor * x[row + i, (head * group + g) * size + j]
    return queries


@njit(cache=CACHE, nogil=True)
def _soften(scores, group, start, place, end):
    """Turn each row's scores of the positions that it sees into shares, all others into 0."""
    powers = np.empty(scores.shape[1], np.int32)
    for i in range(len(scores)):
        last = min(place + i // group + 1, end)
        scores[i, : min(start, last)] = 0
        scores[i, last:end] = 0
        if start < last:
            floats.softmax(scores[i, start:last], powers)


@njit(cache=CACHE, nogil=True)
def _scatter(job, row, count, head, out):
    size, group = job[Field.SIZE], job[Field.GROUP]
    y = matrix(job[Slot.Y], job[Slot.ROWS], job[Slot.Y_STRIDE])
    for i in range(count):
        for g in range(group):
            for j in range(size):
                y[row + i, (head * group + g) * size + j] = out[i * group + g, j]
