"""Products of int8 weights on the tiles of AMX, in blocks of 32 rows by two panels.

Four tiles hold the sums of a block, so that each tile that is loaded is used twice. The sums
then wait on the stack: to scale them and write them to y is work for vectors, which the next
block leaves free while its tiles are multiplied. That made products of 768 inputs 1.1 to 1.2 times
as fast as finishing one block before the next begins; to ask for memory early, tiles of x or of
weights, gained nothing (a Xeon with AMX).
"""

from lightcourse.kernels import amx_tiles, tiles
from lightcourse.kernels.amx_tiles import ROWS, SUMS, TILE, W, X
from lightcourse.kernels.writer import F32, FLOATS, I64, INTS, VECTOR

WIDE = 2  # panels at a time


def start(code, job, panel, row):
    """Begin a core: take the tiles; no sums wait."""
    amx_tiles.configure(code, job, I64(VECTOR), code.least(job.rows, I64(ROWS)))
    _wait(code, I64(0), I64(0), I64(0))


def end(code, job, panel, row):
    """End a core: finish what waits, and give the tiles back."""
    rows, block = _waiting(code, job)
    _finish(code, job, block, I64(0), rows)
    amx_tiles.release(code)


def stored(code, job, panel):
    """Return where a panel's weights start, how far off the next panel's are, and their blocks."""
    stride = code.times(job.blocks, VECTOR)
    return code.at(job.w, code.times(panel, stride)), stride, job.blocks


def w8(high, weights=stored):
    """Return what multiplies ``16 * high`` rows of x, or all if they are fewer, by two panels."""

    def write(code, job, panel, row):
        grid = [(r, n) for r in range(high) for n in range(WIDE)]
        for r, n in grid:
            amx_tiles.clear(code, _sum(r, n))
        _multiply(code, job, row, weights(code, job, panel), grid)
        for r, n in grid:
            place = code.at(_sums(code), (r * WIDE * ROWS + n) * VECTOR)
            amx_tiles.store(code, _sum(r, n), place, WIDE * VECTOR)
        _wait(code, panel, row, code.least(job.rows, I64(high * ROWS)))

    return write


def _sum(r, n):
    return SUMS + WIDE * r + n


def _sums(code):
    return code.room(4 * TILE, "sums")


# --- multiplying ------------------------------------------------------------------------------


def _multiply(code, job, row, weights, grid):
    """Walk along the inputs, 64 a step, and finish some of the rows that wait in each."""
    pointer, stride, blocks = weights
    whole = code.b.sdiv(blocks, I64(ROWS))
    rows, block = _waiting(code, job)
    each = code.plus(code.b.udiv(rows, code.plus(whole, 1)), 1)

    def step(k, done):
        _step(code, job, (row, k), (code.at(pointer, code.times(k, TILE)), stride), grid)
        return [_finish(code, job, block, *done, code.least(each, code.b.sub(rows, *done)))]

    done = code.loop(whole, [I64(0)], step)
    _finish(code, job, block, *done, code.b.sub(rows, *done))
    rest = code.b.sub(blocks, code.times(whole, ROWS))
    with code.b.if_then(code.b.icmp_signed(">", rest, I64(0))):
        last = code.at(pointer, code.times(whole, TILE))
        _step(code, job, (row, whole), (_copied(code, last, stride, rest), I64(TILE)), grid)


def _step(code, job, place, weights, grid):
    """Multiply 64 inputs: load each tile once."""
    (row, k), (pointer, stride) = place, weights
    x = code.at(job.x, code.plus(code.times(row, job.x_stride), code.times(k, VECTOR)))
    for r in sorted({r for r, _ in grid}):
        amx_tiles.load(code, X + r, code.at(x, code.times(job.x_stride, ROWS * r)), job.x_stride)
    for n in range(WIDE):
        amx_tiles.load(code, W + n, code.at(pointer, code.times(stride, n)), I64(VECTOR))
    for r, n in grid:
        amx_tiles.dot(code, _sum(r, n), X + r, W + n)


def _copied(code, pointer, stride, rest):
    """Copy the blocks that are left, fewer than a tile has.

    What follows them may be no memory of ours. In the copy anything may follow: it meets the
    zeros that rows of x are filled up with.
    """
    copies = code.room(WIDE * TILE)

    def copy(k, _):
        for n in range(WIDE):
            value = code.load(
                INTS, pointer, code.plus(code.times(stride, n), code.times(k, VECTOR))
            )
            code.store(value, copies, code.plus(code.times(k, VECTOR), n * TILE))
        return []

    code.loop(rest, [], copy)
    return copies


# --- finishing --------------------------------------------------------------------------------


def _wait(code, *block):
    """Note which block's sums wait: its panel, its row, and how many rows."""
    for i, number in enumerate(block):
        code.store(number, code.room(24, "waiting"), 8 * i)


def _waiting(code, job):
    """Return how many rows wait, and what finishing them takes."""
    panel, row, rows = (code.load(I64, code.room(24, "waiting"), 8 * i) for i in range(3))
    places = [code.times(code.plus(panel, n), VECTOR) for n in range(WIDE)]
    scales, biases = ([code.load(FLOATS, a, p) for p in places] for a in (job.scale, job.bias))
    y = code.at(job.y, code.plus(code.times(row, job.y_stride), places[0]))
    return rows, (row, y, scales, biases)


def _finish(code, job, block, first, count):
    """Finish so many rows of a block; return how many are now."""
    code.loop(count, [], lambda m, _: _finish_row(code, job, block, code.plus(first, m)))
    return code.plus(first, count)


def _finish_row(code, job, block, m):
    """Take the weights' offset out of one row's sums, scale them, and write them to y."""
    row, y, scales, biases = block
    offset = tiles.row_start(code, job, code.plus(row, m))
    x_scale = code.everywhere(code.load(F32, job.x_scale, code.times(code.plus(row, m), 4)))
    for n, (scale, bias) in enumerate(zip(scales, biases, strict=True)):
        total = code.load(INTS, _sums(code), code.plus(code.times(m, WIDE * VECTOR), n * VECTOR))
        scaled = code.b.fmul(code.b.sitofp(code.b.add(total, offset), FLOATS), scale)
        value = code.call("llvm.fma.v16f32", FLOATS, scaled, x_scale, bias)
        code.store(value, y, code.plus(code.times(m, job.y_stride), n * VECTOR))
    return []
