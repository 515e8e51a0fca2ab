"""Kernels in vector instructions, for x86 processors with AVX-512 VNNI or with AVX2.

No compiler makes ``vpdpbusd`` out of plain loops, so this file writes the inner loops in
LLVM's own language: a *tile* keeps the sums of a few rows by one to three panels in
registers, and walks along the inputs once::

            panel of 16 outputs: 64 bytes a step      vpdpbusd, for each of the 16:
    x       +-----+-----+-----+-- -+-----+            sum += w0*x0 + w1*x1 + w2*x2 + w3*x3
    row 0 ->| sum | sum | sum | .. | sum |   4 bytes     unsigned * signed bytes, exact in
    row 1 ->| sum | sum | sum | .. | sum |   a step      32 bits, in one instruction
    ...     +-----+-----+-----+-- -+-----+

Weights are stored with an offset, so that they are unsigned; the sums start at minus the
offset times the sum over the row of x, which takes it out again. Scales wait until the end
(of a group, where there are groups).

Everything stands in one file because Numba's cache does not notice a change in another.
A **core** computes the panels from ``first`` to ``last`` of a *job*, a list of addresses and
sizes. So one parallel function serves all of them.
"""

import functools
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
from llvmlite import ir
from numba import carray, cfunc, njit, prange, types
from numba.extending import intrinsic

from lightcourse.kernels import caching

CACHE = caching.ready()
I8, I16, I32, I64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
F32, POINTER = ir.FloatType(), ir.PointerType()
INTS, FLOATS = ir.VectorType(I32, 16), ir.VectorType(F32, 16)
BYTES, WORDS = ir.VectorType(I8, 64), ir.VectorType(I16, 32)
ZERO = ir.Constant(INTS, None)
VECTOR = 64  # bytes


class Code:
    """A writer of vector instructions; offsets are in bytes, and may be Python integers."""

    def __init__(self, builder):
        self.b = builder

    def at(self, pointer, offset):
        """Return the address that lies ``offset`` bytes further."""
        offset = I64(offset) if isinstance(offset, int) else offset
        return self.b.gep(pointer, [offset], source_etype=I8)

    def plus(self, a, b):
        """Add integers, the second of which may be a Python integer."""
        return self.b.add(a, I64(b) if isinstance(b, int) else b)

    def times(self, a, b):
        """Multiply integers, the second of which may be a Python integer."""
        return self.b.mul(a, I64(b) if isinstance(b, int) else b)

    def load(self, kind, pointer, offset=0):
        """Read a value of any kind, aligned or not."""
        return self.b.load(self.at(pointer, offset), typ=kind, align=1)

    def store(self, value, pointer, offset=0):
        """Write a value, aligned or not."""
        self.b.store(value, self.at(pointer, offset), align=1)

    def call(self, name, result, *values):
        """Call an LLVM intrinsic."""
        kind = ir.FunctionType(result, [value.type for value in values])
        function = self.b.module.globals.get(name) or ir.Function(self.b.module, kind, name)
        return self.b.call(function, values)

    def everywhere(self, value):
        """Copy one value into all 16 places of a vector."""
        vector = ir.Constant(ir.VectorType(value.type, 16), ir.Undefined)
        vector = self.b.insert_element(vector, value, I32(0))
        return self.b.shuffle_vector(vector, vector, ir.Constant(INTS, [0] * 16))

    def prefetch(self, pointer, offset):
        """Ask for memory that is needed soon."""
        values = self.at(pointer, offset), I32(0), I32(3), I32(1)
        self.call("llvm.prefetch.p0", ir.VoidType(), *values)

    def loop(self, count, values, body):
        """Write ``for i in range(count): values = body(i, values)``; return the values."""
        b, before = self.b, self.b.block
        start, end = b.append_basic_block("loop"), b.append_basic_block("after")
        b.cbranch(b.icmp_signed(">", count, I64(0)), start, end)
        b.position_at_end(start)
        i, *carried = [b.phi(value.type) for value in [I64(0), *values]]
        new = body(i, carried)
        following, last = b.add(i, I64(1)), b.block
        b.cbranch(b.icmp_signed("<", following, count), start, end)
        _join([i, *carried], before, [I64(0), *values], last, [following, *new])
        b.position_at_end(end)
        results = [b.phi(value.type) for value in values]
        _join(results, before, values, last, new)
        return results


def _join(phis, before, early, last, late):
    """Let each phi be one value when coming from one block, another from the other."""
    for phi, first, later in zip(phis, early, late, strict=True):
        phi.add_incoming(first, before)
        phi.add_incoming(later, last)


# --- the four products of an instruction set ------------------------------------------------


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


def _load_bytes(code, pointer, offset):
    return code.everywhere(code.load(I32, pointer, offset))


def _dot_vnni(code, sums, weights, x):
    return code.call("llvm.x86.avx512.vpdpbusd.512", INTS, sums, weights, x)


def _load_pairs(code, pointer, offset):
    """Read inputs 0 and 2, then 1 and 3, each widened to 16 bits."""
    return [code.everywhere(code.load(I32, code.at(pointer, offset), 4 * half)) for half in (0, 1)]


def _dot_avx2(code, sums, weights, pairs):
    """Multiply even and odd bytes apart: ``vpmaddwd`` of 16 bits is exact.

    ``vpmaddubsw``, which takes bytes, would not do: it cuts sums off at 32,767.
    """
    b, words = code.b, code.b.bitcast(weights, WORDS)
    even = b.and_(words, ir.Constant(WORDS, [0xFF] * 32))
    odd = b.lshr(words, ir.Constant(WORDS, [8] * 32))
    for part, pair in zip((even, odd), pairs, strict=True):
        pair = b.bitcast(pair, WORDS)
        halves = [_multiply_half(code, part, pair, first) for first in (0, 16)]
        sums = b.add(sums, b.shuffle_vector(*halves, ir.Constant(INTS, list(range(16)))))
    return sums


def _multiply_half(code, a, b, first):
    places = ir.Constant(ir.VectorType(I32, 16), list(range(first, first + 16)))
    a, b = (code.b.shuffle_vector(v, v, places) for v in (a, b))
    return code.call("llvm.x86.avx2.pmadd.wd", ir.VectorType(I32, 8), a, b)


VNNI = Products(4, _load_bytes, _dot_vnni)
AVX2 = Products(8, _load_pairs, _dot_avx2)


# --- tiles ----------------------------------------------------------------------------------

# What a job holds, in this order: addresses of arrays, their strides in bytes, and counts.
JOB = (
    *("rows", "x", "x_stride", "x_sum", "x_scale", "w", "blocks", "scale", "bias"),
    *("y", "y_stride", "groups", "zero", "masks", "columns", "starts", "w_sum"),
)
ADDRESSES = {"x", "x_sum", "x_scale", "w", "scale", "bias", "y"}
ADDRESSES |= {"zero", "masks", "columns", "starts", "w_sum"}


def _tile(write):
    """Turn ``write(code, job, panel, row)`` into a function that compiled code can call."""

    @intrinsic
    def tile(context, job, panel, row):
        def emit(context, builder, signature, arguments):
            code, (job, panel, row) = Code(builder), arguments
            fields = {}
            for i, name in enumerate(JOB):
                value = code.load(I64, job, 8 * i)
                fields[name] = builder.inttoptr(value, POINTER) if name in ADDRESSES else value
            write(code, SimpleNamespace(**fields), panel, row)
            return context.get_dummy_value()

        return types.void(job, types.int64, types.int64), emit

    return tile


def _tile_w8(products, rows, panels, chains=1, ahead=0):
    """Return the tile of int8 weights: ``rows`` of x by ``panels`` of 16 outputs.

    ``chains`` sums run side by side where there are too few to hide the four cycles that
    an instruction takes; ``ahead`` is how many bytes early memory is asked for.
    """

    def write(code, job, panel, row):
        stride = code.times(job.blocks, VECTOR)
        weights = [code.at(job.w, code.times(code.plus(panel, n), stride)) for n in range(panels)]
        inputs = _rows(code, job, row, rows)

        def step(k, sums):
            return _step_w8(code, products, weights, inputs, k, sums, ahead)

        start = [_start(code, job, code.plus(row, m), 128) for m in range(rows)]
        sums = [value for value in start for _ in range(panels)]
        sums = _chained(code, job.blocks, sums, step, chains)
        for i, total in enumerate(sums):
            m, n = divmod(i, panels)
            place = code.times(code.plus(panel, n), VECTOR)
            scaled = code.b.fmul(code.b.sitofp(total, FLOATS), code.load(FLOATS, job.scale, place))
            _finish(code, job, scaled, code.plus(row, m), code.plus(panel, n))

    return _tile(write)


def _rows(code, job, row, rows):
    return [code.at(job.x, code.times(code.plus(row, m), job.x_stride)) for m in range(rows)]


def _start(code, job, row, offset):
    """Return what the sums start from: minus the weights' offset, times the row's sum."""
    total = code.load(I32, job.x_sum, code.times(row, 4))
    return code.everywhere(code.b.mul(total, I32(-offset)))


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


def _chained(code, count, sums, step, chains):
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


def _finish(code, job, total, row, panel):
    """Write ``total * x_scale + bias`` to its place in y."""
    factor = code.everywhere(code.load(F32, job.x_scale, code.times(row, 4)))
    bias = code.load(FLOATS, job.bias, code.times(panel, VECTOR))
    out = code.at(job.y, code.times(row, job.y_stride))
    value = code.call("llvm.fma.v16f32", FLOATS, total, factor, bias)
    code.store(value, out, code.times(panel, VECTOR))


def _tile_w4(products, rows, zero_points):
    """Return the tile of 4-bit weights in groups: ``rows`` of x by one panel.

    A job's ``blocks`` counts those of one group, 32 inputs each.
    """

    def write(code, job, panel, row):
        inputs, before = _rows(code, job, row, rows), code.times(panel, job.groups)

        def group(g, totals):
            here = code.plus(before, g)
            sums = _start_group(code, job, row, rows, g, here if zero_points else None)
            sums += [ZERO] * (rows if rows < 4 else 0)  # so few sums need a second chain

            def step(i, values):
                block = code.plus(code.times(g, job.blocks), i)
                weights = code.at(job.w, code.times(code.times(before, job.blocks), 4 * VECTOR))
                return _step_w4(code, products, weights, inputs, block, values)

            sums = code.loop(job.blocks, sums, step)
            if len(sums) > rows:
                pairs = zip(sums[:rows], sums[rows:], strict=True)
                sums = [code.b.add(one, two) for one, two in pairs]
            halves = code.load(ir.VectorType(ir.HalfType(), 16), job.scale, code.times(here, 32))
            scale = code.b.fpext(halves, FLOATS)
            return [
                code.call("llvm.fma.v16f32", FLOATS, code.b.sitofp(s, FLOATS), scale, total)
                for s, total in zip(sums, totals, strict=True)
            ]

        totals = code.loop(job.groups, [ir.Constant(FLOATS, None)] * rows, group)
        for m, total in enumerate(totals):
            _finish(code, job, total, code.plus(row, m), panel)

    return _tile(write)


def _start_group(code, job, row, rows, g, place):
    """Return minus the zero point (8, where none are stored) times each row's sum of the group."""
    starts = []
    for m in range(rows):
        index = code.plus(code.times(code.plus(row, m), job.groups), g)
        total = code.b.neg(code.load(I32, job.x_sum, code.times(index, 4)))
        if place is None:
            starts.append(code.everywhere(code.b.mul(total, I32(8))))
        else:
            points = code.load(ir.VectorType(I8, 16), job.zero, code.times(place, 16))
            starts.append(code.b.mul(code.b.zext(points, INTS), code.everywhere(total)))
    return starts


def _step_w4(code, products, weights, inputs, block, values):
    """Add the products of 32 inputs: four vectors, each of two halves."""
    values, rows = list(values), len(inputs)
    nibble = ir.Constant(BYTES, [15] * VECTOR)
    for u in range(8):
        if u % 2 == 0:
            both = code.load(BYTES, weights, code.plus(code.times(block, 4 * VECTOR), u * 32))
        words = code.b.lshr(code.b.bitcast(both, WORDS), ir.Constant(WORDS, [u % 2 * 4] * 32))
        quarter = code.b.bitcast(code.b.and_(code.b.bitcast(words, BYTES), nibble), INTS)
        place = code.times(code.plus(code.times(block, 8), u), products.x_bytes)
        for m, pointer in enumerate(inputs):
            at = (m + u % 2 * rows) % len(values)
            x = products.load_x(code, pointer, place)
            values[at] = products.dot(code, values[at], quarter, x)
    return values


def _tile_sparse(rows):
    """Return the tile of a panel of which only some blocks, and some weights, are stored."""

    def write(code, job, panel, row):
        inputs = _rows(code, job, row, rows)
        starts = code.at(job.starts, code.times(panel, 16))
        first, start, last = (code.load(I64, starts, 8 * i) for i in range(3))

        def step(k, carried):
            k, (at, *sums) = code.plus(first, k), carried
            mask = code.load(I64, job.masks, code.times(k, 8))
            column = code.b.sext(code.load(I32, job.columns, code.times(k, 4)), I64)
            weights = _expand(code, code.load(BYTES, job.w, at), mask)
            for m, pointer in enumerate(inputs):
                x = _load_unsigned(code, pointer, code.times(column, 4))
                sums[m] = _dot_vnni(code, sums[m], x, weights)
            return [code.plus(at, code.call("llvm.ctpop.i64", I64, mask)), *sums]

        vector = code.load(INTS, job.w_sum, code.times(panel, VECTOR))
        sums = [code.b.mul(vector, ir.Constant(INTS, [-128] * 16))] * rows
        _, *sums = code.loop(code.b.sub(last, first), [start, *sums], step)
        scale = code.load(FLOATS, job.scale, code.times(panel, VECTOR))
        for m, total in enumerate(sums):
            scaled = code.b.fmul(code.b.sitofp(total, FLOATS), scale)
            _finish(code, job, scaled, code.plus(row, m), panel)

    return _tile(write)


def _tile_peak(products):
    """Return a tile that does nothing but multiply: its speed is the processor's limit.

    24 sums are independent of each other, and nothing is read from memory.
    """

    def write(code, job, panel, row):
        weights = code.load(INTS, job.w)
        x = products.load_x(code, job.x, 0)

        def step(i, sums):
            return [products.dot(code, s, weights, x) for s in sums]

        sums = code.loop(job.blocks, [code.load(INTS, job.w, 4 * i) for i in range(24)], step)
        for i, total in enumerate(sums):
            code.store(total, job.y, code.plus(code.times(panel, 24 * VECTOR), i * VECTOR))

    return _tile(write)


def _load_unsigned(code, pointer, place):
    """Read four inputs and add 128 to each: here it is they that must be unsigned."""
    return code.everywhere(code.b.xor(code.load(I32, pointer, place), I32(0x80808080)))


def _expand(code, packed, mask):
    """Spread the stored weights over the places that the mask names; zeros elsewhere."""
    bits = code.b.bitcast(mask, ir.VectorType(ir.IntType(1), VECTOR))
    name = "llvm.x86.avx512.mask.expand.v64i8"
    return code.call(name, BYTES, packed, ir.Constant(BYTES, None), bits)


# --- cores: which tile where ----------------------------------------------------------------

W8_VNNI_1, W8_VNNI_4 = _tile_w8(VNNI, 1, 1, chains=8), _tile_w8(VNNI, 4, 1)
W8_VNNI_8, W8_VNNI_8X3 = _tile_w8(VNNI, 8, 1, ahead=3072), _tile_w8(VNNI, 8, 3)
W8_AVX2_1, W8_AVX2_4 = _tile_w8(AVX2, 1, 1, chains=2), _tile_w8(AVX2, 4, 1)
W4_VNNI_1, W4_VNNI_4, W4_VNNI_8 = (_tile_w4(VNNI, rows, False) for rows in (1, 4, 8))
Z4_VNNI_1, Z4_VNNI_4, Z4_VNNI_8 = (_tile_w4(VNNI, rows, True) for rows in (1, 4, 8))
W4_AVX2_1, W4_AVX2_2 = (_tile_w4(AVX2, rows, False) for rows in (1, 2))
Z4_AVX2_1, Z4_AVX2_2 = (_tile_w4(AVX2, rows, True) for rows in (1, 2))
SPARSE_1, SPARSE_8 = _tile_sparse(1), _tile_sparse(8)
PEAK_VNNI, PEAK_AVX2 = _tile_peak(VNNI), _tile_peak(AVX2)


def w8_vnni(job, first, last):
    """Int8 weights: eight rows by three panels where there are rows enough."""
    rows = carray(job, 1)[0]
    wide = rows // 8 * 8 if rows >= 16 else 0
    threes = first + (last - first) // 3 * 3 if wide else first
    for panel in range(first, threes, 3):
        for row in range(0, wide, 8):
            W8_VNNI_8X3(job, panel, row)
    for panel in range(first, last):
        row = wide if panel < threes else 0
        for _ in range((rows - row) // 8):
            W8_VNNI_8(job, panel, row)
            row += 8
        for _ in range((rows - row) // 4):
            W8_VNNI_4(job, panel, row)
            row += 4
        for m in range(row, rows):
            W8_VNNI_1(job, panel, m)


def w8_avx2(job, first, last):
    """Int8 weights, on the sixteen registers that AVX2 has."""
    rows = carray(job, 1)[0]
    for panel in range(first, last):
        for row in range(0, rows // 4 * 4, 4):
            W8_AVX2_4(job, panel, row)
        for row in range(rows // 4 * 4, rows):
            W8_AVX2_1(job, panel, row)


def w4_vnni(job, first, last):
    """4-bit weights without zero points."""
    rows = carray(job, 1)[0]
    for panel in range(first, last):
        for row in range(0, rows // 8 * 8, 8):
            W4_VNNI_8(job, panel, row)
        row = rows // 8 * 8
        for _ in range((rows - row) // 4):
            W4_VNNI_4(job, panel, row)
            row += 4
        for m in range(row, rows):
            W4_VNNI_1(job, panel, m)


def z4_vnni(job, first, last):
    """4-bit weights with zero points."""
    rows = carray(job, 1)[0]
    for panel in range(first, last):
        for row in range(0, rows // 8 * 8, 8):
            Z4_VNNI_8(job, panel, row)
        row = rows // 8 * 8
        for _ in range((rows - row) // 4):
            Z4_VNNI_4(job, panel, row)
            row += 4
        for m in range(row, rows):
            Z4_VNNI_1(job, panel, m)


def w4_avx2(job, first, last):
    """4-bit weights without zero points."""
    rows = carray(job, 1)[0]
    for panel in range(first, last):
        for row in range(0, rows // 2 * 2, 2):
            W4_AVX2_2(job, panel, row)
        for row in range(rows // 2 * 2, rows):
            W4_AVX2_1(job, panel, row)


def z4_avx2(job, first, last):
    """4-bit weights with zero points."""
    rows = carray(job, 1)[0]
    for panel in range(first, last):
        for row in range(0, rows // 2 * 2, 2):
            Z4_AVX2_2(job, panel, row)
        for row in range(rows // 2 * 2, rows):
            Z4_AVX2_1(job, panel, row)


def sparse_vnni(job, first, last):
    """Int8 weights of which the zeros are not stored."""
    rows = carray(job, 1)[0]
    for panel in range(first, last):
        for row in range(0, rows // 8 * 8, 8):
            SPARSE_8(job, panel, row)
        for row in range(rows // 8 * 8, rows):
            SPARSE_1(job, panel, row)


def peak_vnni(job, first, last):
    """Multiply registers."""
    for panel in range(first, last):
        PEAK_VNNI(job, panel, 0)


def peak_avx2(job, first, last):
    """Multiply registers."""
    for panel in range(first, last):
        PEAK_AVX2(job, panel, 0)


@functools.cache
def compiled(core):
    """Compile a core, or fetch it from Numba's cache; kept, since its code goes with it."""
    signature = types.void(types.CPointer(types.int64), types.int64, types.int64)
    return cfunc(signature, cache=caching.ready())(core)


def address(core) -> int:
    """Return where the compiled core starts."""
    return compiled(core).address


# --- running a job --------------------------------------------------------------------------


@intrinsic
def _call(context, core, job, first, last):
    """Call the core at an address."""

    def emit(context, builder, signature, arguments):
        core, *rest = arguments
        kind = ir.FunctionType(ir.VoidType(), [POINTER, I64, I64])
        core = builder.inttoptr(core, ir.PointerType(kind))
        rest[0] = builder.inttoptr(rest[0], POINTER)
        builder.call(core, rest)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 4), emit


@njit(cache=CACHE, nogil=True)
def w8_job(q, sums, x_scale, qweight, scale, bias, y):
    """Describe the product of quantized rows and panels of int8 weights."""
    job = _job(q, sums, x_scale, bias, y)
    job[5], job[6], job[7] = qweight.ctypes.data, qweight.shape[1], scale.ctypes.data
    return job


@njit(cache=CACHE, nogil=True)
def w4_job(q, sums, x_scale, qweight, scale, zero_point, bias, y):
    """Describe the product of quantized rows and panels of 4-bit weights."""
    job = _job(q, sums, x_scale, bias, y)
    groups = scale.shape[1]
    job[5], job[6] = qweight.ctypes.data, qweight.shape[1] // (4 * groups)
    job[7], job[11], job[12] = scale.ctypes.data, groups, zero_point.ctypes.data
    return job


@njit(cache=CACHE, nogil=True)
def sparse_job(q, sums, x_scale, weight, scale, bias, y):
    """Describe the product of quantized rows and the weights that were kept."""
    job = _job(q, sums, x_scale, bias, y)
    values, masks, columns, starts, w_sum = weight
    job[5], job[7], job[13] = values.ctypes.data, scale.ctypes.data, masks.ctypes.data
    job[14], job[15], job[16] = columns.ctypes.data, starts.ctypes.data, w_sum.ctypes.data
    return job


@njit(cache=CACHE, nogil=True)
def _job(q, sums, x_scale, bias, y):
    """Fill in what all jobs have; :data:`JOB` names the places."""
    job = np.zeros(17, np.int64)
    job[0], job[1], job[2] = len(q), q.ctypes.data, q.strides[0]
    job[3], job[4], job[8] = sums.ctypes.data, x_scale.ctypes.data, bias.ctypes.data
    job[9], job[10] = y.ctypes.data, y.strides[0]
    return job


@njit(cache=CACHE, nogil=True)
def peak_job(steps, x, w, y):
    """Describe multiplications of registers, 24 vectors in each step."""
    job = np.zeros(17, np.int64)
    job[1], job[5], job[6], job[9] = x.ctypes.data, w.ctypes.data, steps, y.ctypes.data
    return job


def run(core, threads, panels, job):
    """Run a core on all panels of a job, shared among threads."""
    if threads == 1:
        _run(address(core), panels, job)
    else:
        _share(address(core), panels, job, threads)


@njit(cache=CACHE, nogil=True)
def _run(core, panels, job):
    _call(core, job.ctypes.data, 0, panels)


# Called from Python alone: a compiled caller, read from Numba's cache, would not start the
# threads that this function needs, and jump to nowhere.
@njit(cache=CACHE, nogil=True, parallel=True)
def _share(core, panels, job, threads):
    for t in prange(threads):
        _call(core, job.ctypes.data, panels * t // threads, panels * (t + 1) // threads)


@njit(cache=CACHE, nogil=True)
def widen(q, pairs):
    """Write inputs as AVX2 wants them: 16 bits each, 0 and 2 of four before 1 and 3."""
    for i in range(len(q)):
        for k in range(0, q.shape[1], 4):
            pairs[i, k], pairs[i, k + 1] = q[i, k], q[i, k + 2]
            pairs[i, k + 2], pairs[i, k + 3] = q[i, k + 1], q[i, k + 3]
