"""Tiles: the inner loops of the kernels for x86 processors, as vector instructions.

No compiler makes ``vpdpbusd`` out of plain loops, so the inner loops are written in LLVM's own
language: a *tile* keeps the sums of a few rows by one to three panels in registers, and walks
along the inputs once::

            panel of 16 outputs: 64 bytes a step      vpdpbusd, for each of the 16:
    x       +-----+-----+-----+-- -+-----+            sum += w0*x0 + w1*x1 + w2*x2 + w3*x3
    row 0 ->| sum | sum | sum | .. | sum |   4 bytes     unsigned * signed bytes, exact in
    row 1 ->| sum | sum | sum | .. | sum |   a step      32 bits, in one instruction
    ...     +-----+-----+-----+-- -+-----+

Weights are stored with an offset, so that they are unsigned; the sums start at minus the
offset times the sum over the row of x, which takes it out again. Scales wait until the end
(of a group, where there are groups).

A tile is a function ``write(code, job, panel, row)`` that writes instructions; :func:`inlined`
makes of it what compiled code can call.
"""

from itertools import product
from types import SimpleNamespace
from typing import NamedTuple

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from lightcourse.kernels.jobs import Slot
from lightcourse.kernels.writer import (
    BYTES,
    F32,
    FLOATS,
    I8,
    I32,
    I64,
    INTS,
    POINTER,
    VECTOR,
    WORDS,
    ZERO,
    Code,
)
from lightcourse.panels import OFFSET_W4, OFFSET_W8

COUNTS = {Slot.ROWS, Slot.X_STRIDE, Slot.BLOCKS, Slot.Y_STRIDE, Slot.GROUPS}


class Products(NamedTuple):
    """How an instruction set adds four products to each of 16 sums.

    Parameters
    ----------
    x_bytes : int
        Bytes of four inputs in memory.
    load_x : function (code, pointer, offset) -> operand
    dot : function (code, sums, weights, operand) -> sums
    """

    x_bytes: int
    load_x: object
    dot: object


def inlined(write):
    """Turn a tile into a function that compiled code can call with (job, panel, row)."""

    @intrinsic
    def tile(context, job, panel, row):
        def emit(context, builder, signature, arguments):
            code, (job, panel, row) = Code(builder), arguments
            write(code, _fields(code, job), panel, row)
            return context.get_dummy_value()

        return types.void(job, types.int64, types.int64), emit

    return tile


def _fields(code, job):
    """Read a job, and name what it holds as its slots are named, in small letters."""
    fields = {slot: code.load(I64, job, 8 * slot) for slot in Slot}
    addresses = set(Slot) - COUNTS
    fields |= {slot: code.b.inttoptr(fields[slot], POINTER) for slot in addresses}
    return SimpleNamespace(**{slot.name.lower(): value for slot, value in fields.items()})


def all_rows(*tiles):
    """Return a tile of all rows from ``row`` on.

    Parameters
    ----------
    *tiles : pairs of an int and a tile
        How many rows it takes, from many down to one: each goes over what the ones before it
        left.
    """

    def write(code, job, panel, row):
        for height, tile in tiles:
            count = code.b.sdiv(code.b.sub(job.rows, row), I64(height))
            _repeat(code, count, height, tile, (job, panel, row))
            row = code.plus(row, code.times(count, height))

    return write


def _repeat(code, count, height, tile, place):
    """Write a tile ``count`` times, one below the other."""
    job, panel, row = place

    def body(i, _):
        tile(code, job, panel, code.plus(row, code.times(i, height)))
        return []

    code.loop(count, [], body)


def w8(products, rows, panels, chains=1, ahead=0):
    """Return the tile of int8 weights: ``rows`` of x by ``panels`` of 16 outputs.

    ``chains`` sums run side by side where there are too few to hide the four cycles that
    an instruction takes; ``ahead`` is how many bytes early memory is asked for. What the cores
    choose was measured: they say on what.
    """

    def write(code, job, panel, row):
        stride = code.times(job.blocks, VECTOR)
        weights = [code.at(job.w, code.times(code.plus(panel, n), stride)) for n in range(panels)]
        inputs = inputs_of(code, job, row, rows)

        def step(k, sums):
            return _step_w8(code, products, weights, inputs, k, sums, ahead)

        start = [row_start(code, job, code.plus(row, m)) for m in range(rows)]
        sums = [value for value in start for _ in range(panels)]
        sums = chained(code, job.blocks, sums, step, chains)
        for i, total in enumerate(sums):
            m, n = divmod(i, panels)
            place = code.times(code.plus(panel, n), VECTOR)
            scaled = code.b.fmul(code.b.sitofp(total, FLOATS), code.load(FLOATS, job.scale, place))
            finish(code, job, scaled, code.plus(row, m), code.plus(panel, n))

    return write


def inputs_of(code, job, row, rows):
    """Return where each of so many rows of x starts."""
    return [code.at(job.x, code.times(code.plus(row, m), job.x_stride)) for m in range(rows)]


def row_start(code, job, row):
    """Return what the sums start from: minus the weights' offset, times the row's sum."""
    total = code.load(I32, job.x_sum, code.times(row, 4))
    return code.everywhere(code.b.mul(total, I32(-OFFSET_W8)))


def panel_start(code, job, panel):
    """Return what the sums start from where it is x that has an offset: minus that, times w's."""
    sums = code.load(INTS, job.w_sum, code.times(panel, VECTOR))
    return code.b.mul(sums, ir.Constant(INTS, [-OFFSET_W8] * 16))


def _step_w8(code, products, weights, inputs, k, sums, ahead):
    """Add the products of block ``k``: every row with every panel."""
    place = code.times(k, VECTOR)
    vectors = [code.load(INTS, pointer, place) for pointer in weights]
    if ahead:
        for pointer in weights:
            code.prefetch(pointer, code.plus(place, ahead))
    new = []
    for m, pointer in enumerate(inputs):
        x = products.load_x(code, pointer, code.times(k, products.x_bytes))
        mine = sums[m * len(vectors) : (m + 1) * len(vectors)]
        new += [products.dot(code, s, w, x) for s, w in zip(mine, vectors, strict=True)]
    return new


def chained(code, count, sums, step, chains):
    """Write a loop over blocks whose sums run in several chains, and add those up."""
    size, rounds = len(sums), code.b.sdiv(count, I64(chains))

    def several(i, values):
        first = code.times(i, chains)
        parts = [values[c * size : (c + 1) * size] for c in range(chains)]
        return [s for c, part in enumerate(parts) for s in step(code.plus(first, c), part)]

    values = code.loop(rounds, sums + [ZERO] * (size * (chains - 1)), several)
    for c in range(1, chains):
        part = values[c * size : (c + 1) * size]
        values[:size] = [code.b.add(s, v) for s, v in zip(values[:size], part, strict=True)]
    done = code.times(rounds, chains)
    left = code.b.sub(count, done)
    return code.loop(left, values[:size], lambda i, s: step(code.plus(done, i), s))


def finish(code, job, total, row, panel):
    """Write ``total * x_scale + bias`` to its place in y."""
    factor = code.everywhere(code.load(F32, job.x_scale, code.times(row, 4)))
    bias = code.load(FLOATS, job.bias, code.times(panel, VECTOR))
    _put(code, job, code.call("llvm.fma.v16f32", FLOATS, total, factor, bias), row, panel)


def _put(code, job, value, row, panel):
    out = code.at(job.y, code.times(row, job.y_stride))
    code.store(value, out, code.times(panel, VECTOR))


def g8(products, rows, panels=1, ahead=0):
    """Return the tile of int8 weights in groups: ``rows`` of x by ``panels`` of 16 outputs.

    A job's ``blocks`` counts those of one group, 32 inputs each. ``ahead`` is how many bytes
    early weights are asked for, and scales, of which there are fewer, a sixteenth of it.
    """

    def write(code, job, panel, row):
        inputs = inputs_of(code, job, row, rows)
        before = [code.times(code.plus(panel, n), job.groups) for n in range(panels)]
        size = code.times(job.blocks, 8 * VECTOR)
        weights = [code.at(job.w, code.times(first, size)) for first in before]

        def group(g, totals):
            def step(i, sums):
                k = code.times(code.plus(code.times(g, job.blocks), i), 8)
                for u in range(8):
                    at = code.plus(k, u)
                    sums = _step_w8(code, products, weights, inputs, at, sums, ahead)
                return sums

            here = [code.plus(first, g) for first in before]
            for h in here if ahead else ():
                code.prefetch(job.scale, code.plus(code.times(h, 32), ahead // 16))
            places = [group_place(code, job, code.plus(row, m), g) for m in range(rows)]
            sums = [row_start(code, job, p) for p in places for _ in range(panels)]
            sums = code.loop(job.blocks, sums, step)
            return _add_group(code, job, (places, here), sums, totals)

        totals = code.loop(job.groups, [ir.Constant(FLOATS, None)] * (rows * panels), group)
        for i, total in enumerate(totals):
            m, n = divmod(i, panels)
            bias = code.load(FLOATS, job.bias, code.times(code.plus(panel, n), VECTOR))
            value = code.b.fadd(total, bias)
            _put(code, job, value, code.plus(row, m), code.plus(panel, n))

    return write


def group_place(code, job, row, g):
    """Return where, among all groups of all rows, this one of a row stands."""
    return code.plus(code.times(row, job.groups), g)


def _add_group(code, job, places, sums, totals):
    """Add the sums of a group, times the scales of x and of the weights, to the totals."""
    rows, panels = places
    scales = [group_scale(code, job, panel) for panel in panels]
    new = []
    for row in rows:
        factor = code.everywhere(code.load(F32, job.x_scale, code.times(row, 4)))
        new += [code.b.fmul(scale, factor) for scale in scales]
    return [
        code.call("llvm.fma.v16f32", FLOATS, code.b.sitofp(s, FLOATS), factor, total)
        for s, factor, total in zip(sums, new, totals, strict=True)
    ]


def w4(products, rows, zero_points, panels=1, ahead=0):
    """Return the tile of 4-bit weights in groups: ``rows`` of x by ``panels`` of 16 outputs.

    A job's ``blocks`` counts those of one group, 32 inputs each. ``ahead`` is how many bytes
    early weights are asked for, and scales, of which there are fewer, a quarter of it.
    """

    def write(code, job, panel, row):
        inputs = inputs_of(code, job, row, rows)
        before = [code.times(code.plus(panel, n), job.groups) for n in range(panels)]
        chains = 2 if rows * panels < 4 else 1  # so few sums need a second chain

        def group(g, totals):
            here = [code.plus(first, g) for first in before]
            sums = _start_group(code, job, row, rows, g, here if zero_points else [None] * panels)
            sums += [ZERO] * (rows * panels * (chains - 1))
            starts = [
                code.at(job.w, code.times(code.times(h, job.blocks), 4 * VECTOR)) for h in here
            ]

            def step(i, values):
                block = code.plus(code.times(g, job.blocks), i)
                places = [code.at(start, code.times(i, 4 * VECTOR)) for start in starts]
                for place, line in product(places, range(4)) if ahead else ():
                    code.prefetch(place, ahead + line * VECTOR)
                return _step_w4(code, products, places, inputs, block, values)

            sums = code.loop(job.blocks, sums, step)
            if chains == 2:
                half = len(sums) // 2
                sums = [code.b.add(*pair) for pair in zip(sums[:half], sums[half:], strict=True)]
            scales = [group_scale(code, job, h) for h in here] * rows
            for h in here if ahead else ():
                code.prefetch(job.scale, code.plus(code.times(h, 32), ahead // 4))
            return [
                code.call("llvm.fma.v16f32", FLOATS, code.b.sitofp(s, FLOATS), scale, total)
                for s, scale, total in zip(sums, scales, totals, strict=True)
            ]

        totals = code.loop(job.groups, [ir.Constant(FLOATS, None)] * (rows * panels), group)
        for i, total in enumerate(totals):
            m, n = divmod(i, panels)
            finish(code, job, total, code.plus(row, m), code.plus(panel, n))

    return write


def group_scale(code, job, place):
    """Return the scales of a group, one for each of a panel's outputs."""
    halves = code.load(ir.VectorType(ir.HalfType(), 16), job.scale, code.times(place, 32))
    return code.b.fpext(halves, FLOATS)


def _start_group(code, job, row, rows, g, places):
    """Return minus the zero point (8, where none are stored) times each row's sum of the group.

    For every row with every panel; ``places`` are those of the panels' zero points, or None.
    """
    starts = []
    for m in range(rows):
        index = group_place(code, job, code.plus(row, m), g)
        total = code.b.neg(code.load(I32, job.x_sum, code.times(index, 4)))
        for place in places:
            if place is None:
                starts.append(code.everywhere(code.b.mul(total, I32(OFFSET_W4))))
            else:
                points = code.load(ir.VectorType(I8, 16), job.zero, code.times(place, 16))
                starts.append(code.b.mul(code.b.zext(points, INTS), code.everywhere(total)))
    return starts


def _step_w4(code, products, weights, inputs, block, values):
    """Add the products of 32 inputs: of each panel four vectors, each of two halves."""
    values, size = list(values), len(inputs) * len(weights)
    nibble = ir.Constant(BYTES, [15] * VECTOR)
    for u in range(8):
        if u % 2 == 0:
            both = [code.load(BYTES, place, u * 32) for place in weights]
        place = code.times(code.plus(code.times(block, 8), u), products.x_bytes)
        operands = [products.load_x(code, pointer, place) for pointer in inputs]
        quarters = [_half(code, vector, u % 2, nibble) for vector in both]
        for i in range(size):
            m, n = divmod(i, len(weights))
            at = (i + u % 2 * size) % len(values)
            values[at] = products.dot(code, values[at], quarters[n], operands[m])
    return values


def _half(code, both, which, nibble):
    """Return the low or the high half of each byte."""
    words = code.b.lshr(code.b.bitcast(both, WORDS), ir.Constant(WORDS, [which * 4] * 32))
    return code.b.bitcast(code.b.and_(code.b.bitcast(words, BYTES), nibble), INTS)


def peak(products, count, operand):
    """Return a tile that does nothing but multiply: its speed is the processor's limit.

    ``count`` sums are independent of each other, and nothing is read from memory. Each sum is
    multiplied itself, as ``operand(sum)``: with the same inputs in each step the compiler would
    multiply but once, before the loop.
    """

    def write(code, job, panel, row):
        weights = code.load(INTS, job.w)

        def step(i, sums):
            return [products.dot(code, s, weights, operand(s)) for s in sums]

        sums = code.loop(job.blocks, [code.load(INTS, job.x, 4 * i) for i in range(count)], step)
        for i, total in enumerate(sums):
            code.store(total, job.y, code.plus(code.times(panel, count * VECTOR), i * VECTOR))

    return write
