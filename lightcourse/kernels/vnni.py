"""Cores for processors with AVX-512 VNNI, whose ``vpdpbusd`` multiplies bytes."""

from llvmlite import ir
from numba import carray, njit

from lightcourse.kernels import tiles
from lightcourse.kernels.jobs import LENGTH, Slot
from lightcourse.kernels.tiles import Products, all_rows, inlined
from lightcourse.kernels.writer import BYTES, FLOATS, I32, I64, INTS, VECTOR


def load(code, pointer, offset):
    """Read four inputs, for all 16 outputs."""
    return code.everywhere(code.load(I32, pointer, offset))


def _dot(code, sums, unsigned, signed):
    return code.call("llvm.x86.avx512.vpdpbusd.512", INTS, sums, unsigned, signed)


VNNI = Products(4, load, _dot)


def _tile_sparse(rows):
    """Return the tile of a panel of which only some blocks, and some weights, are stored."""

    def write(code, job, panel, row):
        inputs = tiles.inputs_of(code, job, row, rows)
        starts = code.at(job.starts, code.times(panel, 16))
        first, start, last = (code.load(I64, starts, 8 * i) for i in range(3))

        def step(k, carried):
            k, (at, *sums) = code.plus(first, k), carried
            mask = code.load(I64, job.masks, code.times(k, 8))
            column = code.b.sext(code.load(I32, job.columns, code.times(k, 4)), I64)
            weights = expand(code, code.load(BYTES, job.w, at), mask)
            for m, pointer in enumerate(inputs):
                x = _load_unsigned(code, pointer, code.times(column, 4))
                sums[m] = _dot(code, sums[m], x, weights)
            return [code.plus(at, code.call("llvm.ctpop.i64", I64, mask)), *sums]

        sums = [tiles.panel_start(code, job, panel)] * rows
        _, *sums = code.loop(code.b.sub(last, first), [start, *sums], step)
        scale = code.load(FLOATS, job.scale, code.times(panel, VECTOR))
        for m, total in enumerate(sums):
            scaled = code.b.fmul(code.b.sitofp(total, FLOATS), scale)
            tiles.finish(code, job, scaled, code.plus(row, m), panel)

    return write


def _load_unsigned(code, pointer, place):
    """Read four inputs and add 128 to each: here it is they that must be unsigned."""
    return code.everywhere(code.b.xor(code.load(I32, pointer, place), I32(0x80808080)))


def expand(code, packed, mask):
    """Spread the stored weights over the places that the mask names; zeros elsewhere."""
    bits = code.b.bitcast(mask, ir.VectorType(ir.IntType(1), VECTOR))
    name = "llvm.x86.avx512.mask.expand.v64i8"
    return code.call(name, BYTES, packed, ir.Constant(BYTES, None), bits)


# --- cores ----------------------------------------------------------------------------------

# ``ahead``: asked for 3 KB early, weights of the tile of 8 rows by one panel came 1.3 times as fast
# from the caches of a Xeon (Emerald Rapids) and 1.6 times from its memory; 1 KB gained two thirds
# of that, 8 KB no more. A Zen 4 gained 1.5 times from 2 to 4 KB.
# Two and four rows wait for memory as one does: with it asked for early, and two tiles where there
# were four and one, a Xeon without AMX took 1,330 us instead of 1,790 for five rows by (2048, 8192)
# from memory; all tiles of 4 bits gained, eight rows a fifth.
# ``chains``: one row and one panel are one sum, but an instruction takes four or five cycles, and
# some processors start two in each. On that Xeon 4 to 16 chains were 1.9 times as fast as one, and
# 2 were 1.6, with 0.6 MB of weights; with 2 MB 1.2 times, and from memory there was nothing to
# gain. On a Zen 4 too 4 to 16 served.
# ``ROW_PANELS``: one row reads all weights once, and a processor fetches several streams of memory
# faster than one. Of what that Xeon reads at most, 1 GB of weights came at 86 % one panel at a
# time, at 90 % two, and at 92 % four or eight at a time.
ROW_PANELS = 4
# ``ROW_AHEAD``: on another Xeon, of what it reads at most, 0.5 GB of 4-bit weights came at 68 %
# one panel at a time, at 80 % four at a time, at 86 % with the weights asked for early, and at
# 95 % with the scales, too; 8-bit weights at 101 % four at a time, and at 104 % asked for early.
ROW_AHEAD = 1024
W8_WIDE = inlined(tiles.w8(VNNI, 8, 3))
W8 = inlined(
    all_rows(
        (8, tiles.w8(VNNI, 8, 1, ahead=3072)),
        (4, tiles.w8(VNNI, 4, 1, chains=2, ahead=3072)),
        (2, tiles.w8(VNNI, 2, 1, chains=4, ahead=3072)),
        (1, tiles.w8(VNNI, 1, 1, chains=8)),
    )
)
W8_ROW = inlined(tiles.w8(VNNI, 1, ROW_PANELS, chains=4, ahead=ROW_AHEAD))
# In groups of 32, on that Xeon: with 32 and 128 rows 6 by 2 panels were 1.2 times as fast as 8 by
# one; with 8 rows 8 by one were 1.1 times as fast from memory.
G8_WIDE = inlined(all_rows(*[(m, tiles.g8(VNNI, m, 2, ROW_AHEAD)) for m in (6, 2, 1)]))
G8 = inlined(all_rows(*[(m, tiles.g8(VNNI, m, 1, ROW_AHEAD)) for m in (8, 4, 2, 1)]))
G8_ROW = inlined(tiles.g8(VNNI, 1, ROW_PANELS, ROW_AHEAD))
W4 = inlined(all_rows(*[(m, tiles.w4(VNNI, m, False, ahead=ROW_AHEAD)) for m in (8, 4, 2, 1)]))
Z4 = inlined(all_rows(*[(m, tiles.w4(VNNI, m, True, ahead=ROW_AHEAD)) for m in (8, 4, 2, 1)]))
W4_ROW, Z4_ROW = [
    inlined(tiles.w4(VNNI, 1, points, ROW_PANELS, ROW_AHEAD)) for points in (False, True)
]
SPARSE = inlined(all_rows(*[(rows, _tile_sparse(rows)) for rows in (8, 1)]))
PEAK_SUMS = 24  # as many as the widest tile has, 8 rows by 3 panels
PEAK_PRODUCTS = PEAK_SUMS * 16 * 4  # in a step
PEAK = inlined(tiles.peak(VNNI, PEAK_SUMS, lambda total: total))


@njit
def _fours(job, first, last):
    """Return where the panels end that are read by fours: one row alone does."""
    one = carray(job, LENGTH)[Slot.ROWS] == 1
    return first + (last - first) // ROW_PANELS * ROW_PANELS if one else first


def w8(job, first, last):
    """Int8 weights: eight rows by three panels where there are rows enough, one row by four."""
    rows = carray(job, LENGTH)[Slot.ROWS]
    fours = _fours(job, first, last)
    for panel in range(first, fours, ROW_PANELS):
        W8_ROW(job, panel, 0)
    first = fours
    wide = rows // 8 * 8 if rows >= 16 else 0
    threes = first + (last - first) // 3 * 3 if wide else first
    for panel in range(first, threes, 3):
        for row in range(0, wide, 8):
            W8_WIDE(job, panel, row)
    for panel in range(first, last):
        W8(job, panel, wide if panel < threes else 0)


def g8(job, first, last):
    """Int8 weights in groups: six rows by two panels where there are rows enough, one by four."""
    fours = _fours(job, first, last)
    for panel in range(first, fours, ROW_PANELS):
        G8_ROW(job, panel, 0)
    first = fours
    wide = carray(job, LENGTH)[Slot.ROWS] >= 12
    twos = first + (last - first) // 2 * 2 if wide else first
    for panel in range(first, twos, 2):
        G8_WIDE(job, panel, 0)
    for panel in range(twos, last):
        G8(job, panel, 0)


def w4(job, first, last):
    """4-bit weights without zero points."""
    fours = _fours(job, first, last)
    for panel in range(first, fours, ROW_PANELS):
        W4_ROW(job, panel, 0)
    for panel in range(fours, last):
        W4(job, panel, 0)


def z4(job, first, last):
    """4-bit weights with zero points."""
    fours = _fours(job, first, last)
    for panel in range(first, fours, ROW_PANELS):
        Z4_ROW(job, panel, 0)
    for panel in range(fours, last):
        Z4(job, panel, 0)


def sparse(job, first, last):
    """Int8 weights of which the zeros are not stored."""
    for panel in range(first, last):
        SPARSE(job, panel, 0)


def peak(job, first, last):
    """Multiply registers."""
    for panel in range(first, last):
        PEAK(job, panel, 0)
