"""Cores for ARM processors with NEON, whose ``sdot`` multiplies bytes, signed by signed.

Not measured: no such processor was at hand. Sizes follow from the number of registers, 32 of 16
bytes; answers were compared with NumPy's in an emulator.
"""

import ctypes
import platform
import sys

import numpy as np
from llvmlite import binding, ir
from numba import carray

from lightcourse.kernels import jobs, sparse_tiles, tiles
from lightcourse.kernels.jobs import LENGTH, Slot
from lightcourse.kernels.tiles import Products, all_rows, inlined
from lightcourse.kernels.writer import I8, I32, INTS, ZERO

QUARTER, SIXTEEN = ir.VectorType(I32, 4), ir.VectorType(I8, 16)
OFFSETS = ir.Constant(INTS, [0x80808080] * 16)
HWCAP, DOTPROD = 16, 1 << 20  # what Linux calls them: getauxval(AT_HWCAP), HWCAP_ASIMDDP


def features() -> set[str]:
    """Return what LLVM compiles for, on ARM, but does not tell: whether there is ``sdot``.

    It knows the instructions of a processor by its name; nothing is sure of one without.
    """
    if platform.machine() not in ("aarch64", "arm64") or binding.get_host_cpu_name() == "generic":
        return set()
    return {"neon", "dotprod"} if _has_sdot() else set()


def _has_sdot():
    if sys.platform == "linux":
        return bool(ctypes.CDLL(None).getauxval(HWCAP) & DOTPROD)
    return sys.platform == "darwin"  # all of Apple's own processors for computers


def _load(code, pointer, offset):
    return code.everywhere(code.load(I32, pointer, offset))


def _dot(code, sums, weights, x):
    """Multiply four outputs at a time."""
    parts = [_dot_quarter(code, first, sums, weights, x) for first in range(0, 16, 4)]
    eight = ir.Constant(ir.VectorType(I32, 8), list(range(8)))
    halves = [code.b.shuffle_vector(*parts[i : i + 2], eight) for i in (0, 2)]
    return code.b.shuffle_vector(*halves, ir.Constant(INTS, list(range(16))))


def _dot_quarter(code, first, *vectors):
    places = ir.Constant(QUARTER, list(range(first, first + 4)))
    sums, *factors = (code.b.shuffle_vector(v, v, places) for v in vectors)
    factors = [code.b.bitcast(factor, SIXTEEN) for factor in factors]
    return code.call("llvm.aarch64.neon.sdot.v4i32.v16i8", QUARTER, sums, *factors)


def _dot_offset(code, sums, weights, x):
    """Take the offset of 128 out of int8 weights: turn their highest bits over, and multiply."""
    return _dot(code, sums, code.b.xor(weights, OFFSETS), x)


def shuffle(code, values, places):
    """Bring bytes to other places; zeros where a place is not among them."""
    return code.call("llvm.aarch64.neon.tbl1.v16i8", SIXTEEN, values, places)


def _zeros(code, job, panel):
    return ZERO


NEON = Products(4, _load, _dot)
OFFSET = Products(4, _load, _dot_offset)


def multiply(kind, core, threads, operands) -> None:
    """Run a core."""
    jobs.multiply(kind, core, threads, _started(kind, operands))


def described(kind, core, operands) -> jobs.Call:
    """Describe a product."""
    operands = _started(kind, operands)
    return jobs.described(kind, core, operands)._replace(held=(operands.sums,))


def _started(kind, operands):
    """Let sums start at 0 where int8 weights have lost their offset before."""
    if kind not in ("w8", "g8"):
        return operands
    return operands._replace(sums=np.zeros_like(operands.sums))


# --- cores: six rows by one panel are 24 registers of sums, and one row by four panels 16 -----

AHEAD, ROW_PANELS = 1024, 4
W8 = inlined(
    all_rows(
        (6, tiles.w8(OFFSET, 6, 1, ahead=AHEAD)),
        (2, tiles.w8(OFFSET, 2, 1)),
        (1, tiles.w8(OFFSET, 1, 1, chains=2)),
    )
)
W8_ROW = inlined(tiles.w8(OFFSET, 1, ROW_PANELS))
G8 = inlined(all_rows(*[(rows, tiles.g8(OFFSET, rows)) for rows in (4, 1)]))
W4 = inlined(all_rows(*[(rows, tiles.w4(NEON, rows, False)) for rows in (4, 1)]))
Z4 = inlined(all_rows(*[(rows, tiles.w4(NEON, rows, True)) for rows in (4, 1)]))
SPARSE = inlined(sparse_tiles.sparse(NEON, _zeros, shuffle, [(6, 1), (1, 2)]))
PEAK_SUMS = 6
PEAK_PRODUCTS = PEAK_SUMS * 16 * 4  # in a step
PEAK = inlined(tiles.peak(NEON, PEAK_SUMS, lambda total: total))


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
