"""Cores for processors with AVX-VNNI but no AVX-512: ``vpdpbusd`` on registers of 32 bytes."""

import numpy as np
from llvmlite import ir
from numba import carray

from lightcourse.kernels import avx2, jobs, sparse_tiles, tiles, vnni
from lightcourse.kernels.jobs import LENGTH, Slot
from lightcourse.kernels.tiles import Products, all_rows, inlined
from lightcourse.kernels.writer import I32, INTS


def _dot(code, sums, unsigned, signed):
    """Multiply the first eight outputs, then the other eight."""
    halves = [_dot_half(code, first, sums, unsigned, signed) for first in (0, 8)]
    return code.b.shuffle_vector(*halves, ir.Constant(INTS, list(range(16))))


def _dot_half(code, first, *vectors):
    places = ir.Constant(ir.VectorType(I32, 8), list(range(first, first + 8)))
    halves = [code.b.shuffle_vector(v, v, places) for v in vectors]
    return code.call("llvm.x86.avx512.vpdpbusd.256", ir.VectorType(I32, 8), *halves)


AVXVNNI = Products(4, vnni.load, _dot)
# Of sparse weights the stored ones are signed, so that the places between them are zeros.
SIGNED = Products(4, vnni.load, lambda code, sums, signed, x: _dot(code, sums, x, signed))


def multiply(kind, core, threads, operands) -> None:
    """Run a core; with sparse weights it is the inputs that must be unsigned."""
    if kind == "sparse":
        operands = operands._replace(q=operands.q.view(np.uint8) ^ np.uint8(128))
    jobs.multiply(kind, core, threads, operands)


# --- cores: sixteen registers of 32 bytes, two for each sum ------------------------------------

# What follows was measured on a Xeon (Emerald Rapids), compiled as for an Alder Lake: without
# AVX-512 and its further registers.
# Rows at a time: six rows by one panel are twelve registers of sums, two of weights and one of x,
# and came to 350 billion operations a second; five rows came to 310, four to 270, seven, whose sums
# do not fit, to 230, and two panels side by side to 260 at most.
# ``ahead``: asked for 3 KB early, weights of six rows came 1.1 to 1.2 times as fast from the caches
# and 2.7 times as fast from memory.
# ``chains``: with two rows two chains gained a seventh, with one row four or more chains gained
# three quarters with 0.6 MB of weights, a tenth with 2 MB.
# ``ROW_PANELS``: one row read weights from memory at 16 GB/s one panel at a time, 22 two, 25 four,
# 26 six. Four are eight sums that do not wait for each other: more chains gained nothing, nor did
# asking early.
AHEAD, ROW_PANELS = 3072, 4
W8 = inlined(
    all_rows(
        (6, tiles.w8(AVXVNNI, 6, 1, ahead=AHEAD)),
        (4, tiles.w8(AVXVNNI, 4, 1, ahead=AHEAD)),
        (2, tiles.w8(AVXVNNI, 2, 1, chains=2, ahead=AHEAD)),
        (1, tiles.w8(AVXVNNI, 1, 1, chains=4)),
    )
)
W8_ROW = inlined(tiles.w8(AVXVNNI, 1, ROW_PANELS))
# In groups of 32 four rows, asked for early, were 1.05 to 1.3 times as fast as two, and six no
# faster than four; one row gained a fifth from four panels side by side, less from memory.
G8 = inlined(all_rows(*[(rows, tiles.g8(AVXVNNI, rows, ahead=AHEAD)) for rows in (4, 1)]))
G8_ROW = inlined(tiles.g8(AVXVNNI, 1, ROW_PANELS))
# With 4 bits six rows were 1.2 times as fast as two, and 1.1 times as four.
W4 = inlined(all_rows(*[(rows, tiles.w4(AVXVNNI, rows, False)) for rows in (6, 2, 1)]))
Z4 = inlined(all_rows(*[(rows, tiles.w4(AVXVNNI, rows, True)) for rows in (6, 2, 1)]))
SPARSE = inlined(
    sparse_tiles.sparse(SIGNED, tiles.panel_start, avx2.shuffle, [(6, 1), (2, 2), (1, 4)])
)
PEAK_SUMS = 6
PEAK_PRODUCTS = PEAK_SUMS * 16 * 4  # in a step
PEAK = inlined(tiles.peak(AVXVNNI, PEAK_SUMS, lambda total: total))


def w8(job, first, last):
    """Int8 weights: one row by four panels, more rows by one."""
    if carray(job, LENGTH)[Slot.ROWS] == 1:
        fours = first + (last - first) // ROW_PANELS * ROW_PANELS
        for panel in range(first, fours, ROW_PANELS):
            W8_ROW(job, panel, 0)
        first = fours
    for panel in range(first, last):
        W8(job, panel, 0)


def g8(job, first, last):
    """Int8 weights in groups."""
    if carray(job, LENGTH)[Slot.ROWS] == 1:
        fours = first + (last - first) // ROW_PANELS * ROW_PANELS
        for panel in range(first, fours, ROW_PANELS):
            G8_ROW(job, panel, 0)
        first = fours
    for panel in range(first, last):
        G8(job, panel, 0)


def w4(job, first, last):
    """4-bit weights without zero points."""
    for panel in range(first, last):
        W4(job, panel, 0)


def z4(job, first, last):
    """4-bit weights with zero points."""
    for panel in range(first, last):
        Z4(job, panel, 0)


def sparse(job, first, last):
    """Int8 weights of which the zeros are not stored."""
    for panel in range(first, last):
        SPARSE(job, panel, 0)


def peak(job, first, last):
    """Multiply registers."""
    for panel in range(first, last):
        PEAK(job, panel, 0)
