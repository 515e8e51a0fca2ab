"""Quantizing the rows of x, alone or shared among threads."""

import numpy as np
from numba import carray, njit

from lightcourse import panels
from lightcourse.kernels import caching, jobs, portable
from lightcourse.kernels.addresses import bytes_, floats, ints
from lightcourse.kernels.fields import FIELDS, Field
from lightcourse.kernels.jobs import LENGTH, Slot

CACHE = caching.ready()
# Numbers that one thread quantizes sooner than two could share them: 3 us on a Xeon with AMX.
LITTLE = 2**15


def quantize(x, row_bytes, groups, width, threads):
    """Return the int8 rows, filled up with zeros, the sums of their groups, and their scales.

    Parameters
    ----------
    x : ndarray of float32, shape (rows, columns)
    row_bytes : int
        Of a row of integers, ``columns`` at least.
    groups, width : int
        Of each row, ``groups`` sums of ``width`` integers are returned.
    threads : int
    """
    return _quantize(portable.quantize, core, x, row_bytes, (groups, width), threads, (len(x),))


def quantize_groups(x, row_bytes, groups, width, threads):
    """Return the same where each group has a scale: shape (rows, groups)."""
    shape, groups = (len(x), groups), (groups, width)
    return _quantize(portable.quantize_groups, core_groups, x, row_bytes, groups, threads, shape)


def _quantize(serial, shared, x, row_bytes, groups, threads, scales):
    rows, (count, width) = len(x), groups
    q, sums = room((rows, row_bytes), np.int8), np.empty((rows, count), np.int32)
    x, scale = np.ascontiguousarray(x), np.empty(scales, np.float32)
    if threads == 1 or x.size < LITTLE:
        serial(x, q, sums, scale, width, 0, rows)
    else:
        jobs.launch(shared, threads, rows, _describe(x, q, sums, scale, width))
    return q, sums, scale


def room(shape, dtype):
    """Return an array for rows; for more than a few, it starts where a line of the cache starts.

    A few rows wait for the weights, and to look for the line takes a microsecond.
    """
    return panels.aligned(shape, dtype) if shape[0] > 2 else np.empty(shape, dtype)


@njit(cache=CACHE, nogil=True)
def _describe(x, q, sums, scale, width):
    job = np.zeros(LENGTH, np.int64)
    job[Slot.ROWS], job[Slot.X], job[Slot.X_STRIDE] = len(x), x.ctypes.data, x.shape[1]
    job[Slot.Y], job[Slot.Y_STRIDE] = q.ctypes.data, q.shape[1]
    job[Slot.X_SUM], job[Slot.GROUPS], job[Slot.BLOCKS] = sums.ctypes.data, sums.shape[1], width
    job[Slot.X_SCALE] = scale.ctypes.data
    return job


def core(job, first, last):
    """Quantize some rows: a core like those that multiply, with rows in the place of panels."""
    fields = carray(job, LENGTH)
    x, q, sums = _arrays(fields)
    scale = carray(floats(fields[Slot.X_SCALE]), (len(x),))
    portable.quantize(x, q, sums, scale, fields[Slot.BLOCKS], first, last)


def core_groups(job, first, last):
    """Quantize some rows in groups."""
    fields = carray(job, LENGTH)
    x, q, sums = _arrays(fields)
    scale = carray(floats(fields[Slot.X_SCALE]), sums.shape)
    portable.quantize_groups(x, q, sums, scale, fields[Slot.BLOCKS], first, last)


@njit
def _arrays(fields):
    """Return the rows, and where their integers and the sums of these go."""
    rows = fields[Slot.ROWS]
    x = carray(floats(fields[Slot.X]), (rows, fields[Slot.X_STRIDE]))
    q = carray(bytes_(fields[Slot.Y]), (rows, fields[Slot.Y_STRIDE]))
    return x, q, carray(ints(fields[Slot.X_SUM]), (rows, fields[Slot.GROUPS]))


def part(job, first, last):
    """Quantize some rows that lie further apart than they are long."""
    fields = carray(job, FIELDS)
    sums = carray(ints(fields[Slot.X_SUM]), (fields[Slot.ROWS], fields[Slot.GROUPS]))
    scale = carray(floats(fields[Slot.X_SCALE]), (fields[Slot.ROWS],))
    for i in range(first, last):
        x, q = _row(fields, i)
        portable.quantize(x, q, sums[i : i + 1], scale[i : i + 1], fields[Slot.BLOCKS], 0, 1)


def part_groups(job, first, last):
    """Quantize them in groups."""
    fields = carray(job, FIELDS)
    shape = fields[Slot.ROWS], fields[Slot.GROUPS]
    sums = carray(ints(fields[Slot.X_SUM]), shape)
    scale = carray(floats(fields[Slot.X_SCALE]), shape)
    for i in range(first, last):
        x, q = _row(fields, i)
        here = x, q, sums[i : i + 1], scale[i : i + 1]
        portable.quantize_groups(*here, fields[Slot.BLOCKS], 0, 1)


@njit(cache=CACHE, nogil=True)
def _row(fields, i):
    """Return one row, and where its integers go."""
    width, bytes_a_row = fields[Field.WIDTH], fields[Slot.Y_STRIDE]
    x = carray(floats(fields[Slot.X] + 4 * i * fields[Slot.X_STRIDE]), (1, width))
    return x, carray(bytes_(fields[Slot.Y] + i * bytes_a_row), (1, bytes_a_row))
