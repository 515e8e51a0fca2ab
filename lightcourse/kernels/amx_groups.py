"""Products of 4-bit weights on the tiles of AMX.

Each group of inputs has a scale of its own, so its sums leave their tile and become floats before
the next group's come. What can be done once for all rows is done before: the weights of a panel
are unpacked, and their offset or zero point is taken out.
"""

from llvmlite import ir

from lightcourse.kernels import amx_tiles, tiles
from lightcourse.kernels.amx_tiles import ROWS, SUMS, TILE, W, X
from lightcourse.kernels.writer import BYTES, FLOATS, I8, I64, INTS, VECTOR, WORDS
from lightcourse.panels import BLOCK_W4, OFFSET_W4, OUTPUTS

MOST = 16_384  # inputs: a panel of them takes 256 KB of the stack
EIGHTS = ir.Constant(BYTES, [OFFSET_W4] * VECTOR)


def start(code, job, panel, row):
    """Begin a core: take the tiles, in the shape that the groups want."""
    amx_tiles.configure(code, job, _inputs_a_step(code, job), I64(ROWS))


def end(code, job, panel, row):
    """End a core: give the tiles back."""
    amx_tiles.release(code)


def w4(zero_points):
    """Return what multiplies all rows of x, at least 16, by one panel."""

    def write(code, job, panel, row):
        weights = code.room(MOST * OUTPUTS)
        _unpack(code, job, panel, weights, zero_points)

        def block(i, _):
            last = code.b.sub(job.rows, I64(ROWS))  # starts early enough to be whole
            _multiply_groups(code, job, panel, code.least(code.times(i, ROWS), last), weights)
            return []

        code.loop(code.b.sdiv(code.plus(job.rows, ROWS - 1), I64(ROWS)), [], block)

    return write


def _unpack(code, job, panel, weights, zero_points):
    """Write a panel's weights as signed bytes, in the order of tiles."""
    before, vectors = code.times(panel, job.groups), code.times(job.blocks, 4)

    def group(g, _):
        here = code.plus(before, g)
        points = _points(code, job, here) if zero_points else EIGHTS
        packed = code.at(job.w, code.times(code.times(here, vectors), VECTOR))
        unpacked = code.at(weights, code.times(code.times(g, vectors), 2 * VECTOR))

        def vector(i, _):
            both = code.load(BYTES, packed, code.times(i, VECTOR))
            for h, half in enumerate(_nibbles(code, both)):
                place = code.plus(code.times(i, 2 * VECTOR), h * VECTOR)
                code.store(code.b.sub(half, points), unpacked, place)
            return []

        code.loop(vectors, [], vector)
        return []

    code.loop(job.groups, [], group)


def _points(code, job, place):
    """Return a group's zero points, each four times: one for each input of a block."""
    points = code.load(ir.VectorType(I8, OUTPUTS), job.zero, code.times(place, OUTPUTS))
    four = ir.Constant(INTS, [0x01010101] * OUTPUTS)
    return code.b.bitcast(code.b.mul(code.b.zext(points, INTS), four), BYTES)


def _nibbles(code, packed):
    """Return the low halves of bytes, and the high ones."""
    words, mask = code.b.bitcast(packed, WORDS), ir.Constant(BYTES, [15] * VECTOR)
    high = code.b.bitcast(code.b.lshr(words, ir.Constant(WORDS, [4] * 32)), BYTES)
    return [code.b.and_(half, mask) for half in (packed, high)]


def _multiply_groups(code, job, panel, row, weights):
    """Multiply 16 rows, group by group; the scaled sums stay in 16 vectors of floats."""
    x = code.at(job.x, code.times(row, job.x_stride))
    sums = code.room(TILE)

    def group(g, totals):
        _multiply_group(code, job, g, (x, weights, sums))
        return _scaled(code, job, code.plus(code.times(panel, job.groups), g), sums, totals)

    totals = code.loop(job.groups, [ir.Constant(FLOATS, None)] * ROWS, group)
    for m, total in enumerate(totals):
        tiles.finish(code, job, total, code.plus(row, m), panel)


def _multiply_group(code, job, g, places):
    """Multiply the inputs of one group, and write the sums."""
    x, weights, sums = places
    inputs = _inputs_a_step(code, job)
    width = code.times(job.blocks, BLOCK_W4)

    def step(i, _):
        place = code.plus(code.times(g, width), code.times(i, inputs))
        amx_tiles.load(code, X, code.at(x, place), job.x_stride)
        amx_tiles.load(code, W, code.at(weights, code.times(place, OUTPUTS)), I64(VECTOR))
        amx_tiles.dot(code, SUMS, X, W, "s")
        return []

    amx_tiles.clear(code, SUMS)
    code.loop(code.b.udiv(width, inputs), [], step)
    amx_tiles.store(code, SUMS, sums, VECTOR)


def _inputs_a_step(code, job):
    """Return 64, or 32 where a group is no multiple of 64 wide: a step must not cross groups."""
    return code.b.lshr(I64(VECTOR), code.b.and_(job.blocks, I64(1)))


def _scaled(code, job, place, sums, totals):
    """Add a group's sums, times its scale."""
    scale = tiles.group_scale(code, job, place)
    new = []
    for m, total in enumerate(totals):
        floats = code.b.sitofp(code.load(INTS, sums, m * VECTOR), FLOATS)
        new.append(code.call("llvm.fma.v16f32", FLOATS, floats, scale, total))
    return new
