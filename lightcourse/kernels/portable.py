"""Kernels in plain ``@njit`` Python: readable, and for any processor that Numba knows."""

import numba
import numpy as np
from numba import carray, njit, prange

from lightcourse.kernels import caching, jobs
from lightcourse.kernels.addresses import bytes_, floats, ints, ubytes, vector, words
from lightcourse.kernels.jobs import LENGTH, Slot
from lightcourse.panels import OFFSET_W4, OUTPUTS

CACHE = caching.ready()


@njit(cache=CACHE, nogil=True, error_model="numpy")
def quantize(x, q, sums, scale, width, first, last):
    """Quantize rows ``first`` to ``last``, and add up their integers in groups of ``width``.

    ``q`` may have more columns than ``x``: they are filled with zeros.
    """
    bits, scale_bits = x.view(np.int32), scale.view(np.int32)
    for i in range(first, last):
        scale_bits[i] = _largest(bits[i])
        if scale_bits[i] >= np.int32(0x7F800000):  # infinity, or above it NaN
            scale[i], q[i], sums[i] = np.nan, 0, 0
            continue
        scale[i] /= np.float32(127)
        if scale[i] < np.float32(1.1754944e-38):  # below the normal float32
            scale[i] = np.float32(1)
        _round_row(x[i], np.float32(1) / scale[i], q[i])
        for g in range(sums.shape[1]):
            sums[i, g] = _add(q[i, g * width : (g + 1) * width])


@njit(cache=CACHE, nogil=True, error_model="numpy")
def quantize_groups(x, q, sums, scale, width, first, last):
    """Quantize rows ``first`` to ``last`` with a scale for each group of ``width``.

    ``q`` may have more columns than ``x``: they are filled with zeros.
    """
    bits, scale_bits = x.view(np.int32), scale.view(np.int32)
    steps_per_unit = np.empty(x.shape[1], np.float32)
    for i in range(first, last):
        for g in range(scale.shape[1]):
            scale_bits[i, g] = _largest(bits[i, g * width : (g + 1) * width])
        if _largest(scale_bits[i]) >= np.int32(0x7F800000):  # infinity, or above it NaN
            scale[i], q[i], sums[i] = np.nan, 0, 0
            continue
        _choose_steps(scale[i], width, steps_per_unit)
        _round_each(x[i], steps_per_unit, q[i])
        for g in range(sums.shape[1]):
            sums[i, g] = _add(q[i, g * width : (g + 1) * width])


@njit(cache=CACHE, nogil=True, error_model="numpy")
def _choose_steps(scale, width, steps_per_unit):
    """Make scales of largest values, and note for each value by what it is multiplied.

    To note it, and then to round a whole row at once, took half as long as group by group.
    """
    for g in range(len(scale)):
        scale[g] /= np.float32(127)
        if scale[g] < np.float32(1.1754944e-38):  # below the normal float32
            scale[g] = np.float32(1)
        steps_per_unit[g * width : (g + 1) * width] = np.float32(1) / scale[g]


@njit(cache=CACHE, nogil=True)
def _round_each(x, steps_per_unit, q):
    for j in range(len(x)):
        q[j] = np.int8(np.int32(np.rint(x[j] * steps_per_unit[j])))
    for j in range(len(x), len(q)):
        q[j] = 0


@njit(cache=CACHE, nogil=True)
def _largest(bits):
    """Return the bits of the largest value, whatever its sign; those of NaN are larger still.

    Without their sign bit, floats are ordered as the integers with the same bits; integers
    have no NaN to mind, so the compiler compares many of them at once.
    """
    largest = np.int32(0)
    for j in range(len(bits)):
        # The cast keeps it at 32 bits: Numba would make it 64, and half as fast.
        largest = max(largest, np.int32(bits[j] & np.int32(0x7FFFFFFF)))
    return largest


@njit(cache=CACHE, nogil=True, error_model="numpy")
def _round_row(x, steps_per_unit, q):
    for j in range(len(x)):
        q[j] = np.int8(np.int32(np.rint(x[j] * steps_per_unit)))
    for j in range(len(x), len(q)):
        q[j] = 0


@njit(cache=CACHE, nogil=True)
def _add(q):
    total = np.int32(0)
    for j in range(len(q)):
        total = np.int32(total + np.int32(q[j]))
    return total


@njit(cache=CACHE, nogil=True)
def _dot(a, b):
    """Multiply bytes and add up in 32 bits; the compiler makes vectors of this loop."""
    total = np.int32(0)
    for k in range(len(a)):
        # The cast keeps the sum at 32 bits: Numba would make it 64, and half as fast.
        total = np.int32(total + np.int32(a[k]) * np.int32(b[k]))
    return total


@njit(cache=CACHE, nogil=True)
def _finish_rows(p, q, rows, x_scale, scale, bias, y):
    """Multiply all rows of x by the 16 rows of a panel that has one scale an output."""
    for i in range(len(q)):
        for n in range(16):
            at = 16 * p + n
            total = _dot(q[i, : rows.shape[1]], rows[n])
            y[i, at] = np.float32(total) * scale[at] * x_scale[i] + bias[at]


@njit(cache=CACHE, nogil=True)
def w8_panels(first, last, q, sums, x_scale, weights, bias, y):
    """Compute panels of int8 weights; their bytes come four at a time, as words."""
    words, scale = weights
    blocks = words.shape[1]
    rows = np.empty((16, 4 * blocks), np.int8)
    row_words = rows.view(np.uint32)
    for p in range(first, last):
        for n in range(16):
            for k in range(blocks):
                # Turning the highest bit of a byte over takes the offset of 128 out.
                row_words[n, k] = words[p, k, n] ^ np.uint32(0x80808080)
        _finish_rows(p, q, rows, x_scale, scale, bias, y)


@njit(cache=CACHE, nogil=True)
def g8_panels(first, last, q, sums, x_scale, weights, bias, y):
    """Compute panels of int8 weights in groups; their bytes come four at a time, as words."""
    words, scale = weights
    rows = np.empty((16, 4 * words.shape[1]), np.int8)
    row_words = rows.view(np.uint32)
    for p in range(first, last):
        for n in range(16):
            for k in range(words.shape[1]):
                row_words[n, k] = words[p, k, n] ^ np.uint32(0x80808080)
        for i in range(len(q)):
            for n in range(16):
                total = _dot_scaled(q[i], rows[n], x_scale[i], scale[p, :, n])
                y[i, 16 * p + n] = total + bias[16 * p + n]


@njit(cache=CACHE, nogil=True)
def _dot_scaled(q, row, x_scale, scale):
    """Add up the groups of one row, each with its two scales."""
    width, total = len(row) // len(scale), np.float32(0)
    for g in range(len(scale)):
        part = _dot(q[g * width : (g + 1) * width], row[g * width : (g + 1) * width])
        total += np.float32(part) * (scale[g] * x_scale[g])
    return total


@njit(cache=CACHE, nogil=True)
def w4_panels(first, last, q, sums, x_scale, weights, bias, y):
    """Compute panels of 4-bit weights in groups; their bytes come four at a time, as words."""
    words, scale, zero_point = weights
    blocks = words.shape[1]
    rows = np.empty((16, 8 * blocks), np.int8)
    row_words, nibbles = rows.view(np.uint32), np.uint32(0x0F0F0F0F)
    for p in range(first, last):
        for n in range(16):
            for k in range(blocks):
                row_words[n, 2 * k] = words[p, k, n] & nibbles
                row_words[n, 2 * k + 1] = (words[p, k, n] >> np.uint32(4)) & nibbles
        for i in range(len(q)):
            for n in range(16):
                total = _dot_groups(q[i], rows[n], sums[i], scale[p, :, n], zero_point[p, :, n])
                y[i, 16 * p + n] = total * x_scale[i] + bias[16 * p + n]


@njit(cache=CACHE, nogil=True)
def _dot_groups(q, row, sums, scale, zero_point):
    """Add up the groups of one row, each with its zero point taken out and its scale."""
    width, total = len(row) // len(scale), np.float32(0)
    for g in range(len(scale)):
        part = _dot(q[g * width : (g + 1) * width], row[g * width : (g + 1) * width])
        part -= np.int32(zero_point[g]) * sums[g]
        total += np.float32(part) * scale[g]
    return total


@njit(cache=CACHE, nogil=True)
def sparse_panels(first, last, q, sums, x_scale, weights, bias, y):
    """Compute panels of which only the weights that are not 0 are stored."""
    values, masks, columns, starts, _, scale = weights
    rows = np.empty((16, q.shape[1]), np.int8)
    for p in range(first, last):
        rows[:] = 0
        at = starts[p, 1]
        for block in range(starts[p, 0], starts[p + 1, 0]):
            for place in range(64):
                if masks[block] >> np.uint64(place) & np.uint64(1):
                    rows[place // 4, 4 * columns[block] + place % 4] = values[at]
                    at += 1
        _finish_rows(p, q, rows, x_scale, scale, bias, y)


@njit(cache=CACHE, nogil=True, parallel=True)
def w8_parallel(threads, panels, q, sums, x_scale, weights, bias, y):
    """Share panels of int8 weights among threads."""
    for t in prange(threads):
        first, last = panels * t // threads, panels * (t + 1) // threads
        w8_panels(first, last, q, sums, x_scale, weights, bias, y)


@njit(cache=CACHE, nogil=True, parallel=True)
def g8_parallel(threads, panels, q, sums, x_scale, weights, bias, y):
    """Share panels of int8 weights in groups among threads."""
    for t in prange(threads):
        first, last = panels * t // threads, panels * (t + 1) // threads
        g8_panels(first, last, q, sums, x_scale, weights, bias, y)


@njit(cache=CACHE, nogil=True, parallel=True)
def w4_parallel(threads, panels, q, sums, x_scale, weights, bias, y):
    """Share panels of 4-bit weights among threads."""
    for t in prange(threads):
        first, last = panels * t // threads, panels * (t + 1) // threads
        w4_panels(first, last, q, sums, x_scale, weights, bias, y)


@njit(cache=CACHE, nogil=True, parallel=True)
def sparse_parallel(threads, panels, q, sums, x_scale, weights, bias, y):
    """Share panels with holes among threads."""
    for t in prange(threads):
        first, last = panels * t // threads, panels * (t + 1) // threads
        sparse_panels(first, last, q, sums, x_scale, weights, bias, y)


# --- running them ---------------------------------------------------------------------------

W8, W4 = (w8_panels, w8_parallel), (w4_panels, w4_parallel)
G8, SPARSE = (g8_panels, g8_parallel), (sparse_panels, sparse_parallel)


def multiply(kind, core, threads, operands) -> None:
    """Run a core, which is a pair of a serial and a parallel function, on all panels."""
    q, sums, x_scale, weights, bias, y = operands
    serial, parallel = core
    rest = len(bias) // OUTPUTS, q, sums, x_scale, READABLE[kind](*weights), bias, y
    if threads == 1:
        serial(0, *rest)
        return
    before = numba.get_num_threads()
    numba.set_num_threads(threads)
    try:
        parallel(threads, *rest)
    finally:
        numba.set_num_threads(before)


def _words_w8(qweight, scale):
    return qweight.view(np.uint32)[..., 0], scale


def _words_g8(qweight, halves):
    return qweight.view(np.uint32)[..., 0], halves.view(np.float16).astype(np.float32)


def _words_w4(qweight, halves, zero_point=None):
    """Turn scales into single precision, and let weights without zero points have them too."""
    scale = halves.view(np.float16).astype(np.float32)
    if zero_point is None:
        zero_point = np.full(scale.shape, OFFSET_W4, np.uint8)
    return qweight.view(np.uint32)[..., 0], scale, zero_point


def _as_they_are(*weights):
    return weights


READABLE = {
    "w8": _words_w8,
    "g8": _words_g8,
    "w4": _words_w4,
    "z4": _words_w4,
    "sparse": _as_they_are,
}


# --- as parts of a program --------------------------------------------------------------------


def described(kind, core, operands) -> jobs.Call:
    """Describe a product for cores that find their arrays at addresses."""
    weights = READABLE[kind](*operands.weights)
    kind = "z4" if kind == "w4" else kind
    core = {"w8": w8_core, "g8": g8_core, "z4": w4_core}[kind]
    job = jobs.DESCRIBE[kind](*operands._replace(weights=weights))
    return jobs.Call(core, job, held=weights)


def w8_core(job, first, last):
    """Compute panels of int8 weights."""
    fields = carray(job, LENGTH)
    q, sums, x_scale, bias, y = _operands(fields, last)
    qweight = carray(words(fields[Slot.W]), (last, fields[Slot.BLOCKS], OUTPUTS))
    weights = qweight, vector(fields[Slot.SCALE], last * OUTPUTS)
    w8_panels(first, last, q, sums, x_scale, weights, bias, y)


def g8_core(job, first, last):
    """Compute panels of int8 weights in groups."""
    fields = carray(job, LENGTH)
    q, sums, _, bias, y = _operands(fields, last)
    groups = fields[Slot.GROUPS]
    x_scale = carray(floats(fields[Slot.X_SCALE]), sums.shape)
    qweight = carray(words(fields[Slot.W]), (last, 8 * fields[Slot.BLOCKS] * groups, OUTPUTS))
    weights = qweight, carray(floats(fields[Slot.SCALE]), (last, groups, OUTPUTS))
    g8_panels(first, last, q, sums, x_scale, weights, bias, y)


def w4_core(job, first, last):
    """Compute panels of 4-bit weights."""
    fields = carray(job, LENGTH)
    q, sums, x_scale, bias, y = _operands(fields, last)
    groups = fields[Slot.GROUPS]
    qweight = carray(words(fields[Slot.W]), (last, 4 * fields[Slot.BLOCKS] * groups, OUTPUTS))
    scale = carray(floats(fields[Slot.SCALE]), (last, groups, OUTPUTS))
    points = carray(ubytes(fields[Slot.ZERO]), (last, groups, OUTPUTS))
    w4_panels(first, last, q, sums, x_scale, (qweight, scale, points), bias, y)


@njit(cache=CACHE, nogil=True)
def _operands(fields, panels):
    """Return what all products read and write, up to so many panels."""
    rows, groups = fields[Slot.ROWS], max(fields[Slot.GROUPS], 1)
    q = carray(bytes_(fields[Slot.X]), (rows, fields[Slot.X_STRIDE]))
    sums = carray(ints(fields[Slot.X_SUM]), (rows, groups))
    x_scale, bias = vector(fields[Slot.X_SCALE], rows), vector(fields[Slot.BIAS], panels * OUTPUTS)
    y = carray(floats(fields[Slot.Y]), (rows, fields[Slot.Y_STRIDE] // 4))
    return q, sums, x_scale, bias, y
