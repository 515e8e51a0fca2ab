"""Cores for processors with AMX, whose ``tdpbsud`` multiplies whole tiles of bytes."""

import ctypes
import sys

from numba import carray, njit

from lightcourse.kernels import amx_groups, amx_int8, amx_sparse, amx_tiles, jobs, vnni
from lightcourse.kernels.amx_int8 import WIDE
from lightcourse.kernels.jobs import LENGTH, Slot
from lightcourse.kernels.tiles import inlined
from lightcourse.panels import INPUTS, OUTPUTS

# What Linux calls them: arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA).
ARCH_PRCTL, REQUEST, TILES = 158, 0x1023, 18


def prepare() -> bool:
    """Ask Linux for the tiles, which a process may not use before; tell whether it has them."""
    if sys.platform != "linux":
        return False
    return ctypes.CDLL(None).syscall(ARCH_PRCTL, REQUEST, TILES) == 0


# With fewer rows VNNI's cores run. In int8 they are as fast there, since all wait for the weights:
# read from memory, tiles were 1.0 times as fast with one row and 1.0 to 1.2 with two; then 1.0 to
# 1.3 with three, 1.0 to 1.7 with five, and 0.9 to 1.3 with eight, which suit a tile of VNNI's. With
# 4 bits a tile must be full; with 16 rows tiles were 1.1 to 1.8 times as fast, with 128 they were
# 1.7 (groups of 32) to 2.8 (of 128). A Xeon with AMX. Int8 weights in groups have no tiles.
FEWEST = {"w8": 3, "g8": sys.maxsize, "w4": 16, "z4": 16, "sparse": 16}
# A panel that is unpacked lies on the stack, which has no room for more inputs.
MOST = {"w8": 2**20, "g8": 0, "w4": amx_groups.MOST, "z4": amx_groups.MOST}
MOST |= {"sparse": amx_sparse.MOST}
# Tiles multiply the blocks that are not stored, too: rows, up to 40, times the part of the blocks
# that is stored must be this much. There both ways were even, with 16 rows and with 32. Where all
# blocks are stored tiles were 1.5 to 2.5 times as fast with 16 rows, and 5 to 6 times with 128.
STORED = 6
# Bytes of x that are gone through for one pair of panels after the other: half of what that Xeon's
# second cache holds. With 512 rows of 4,096 inputs 256 KB took 1.5 times as long, 2 MB 1.3 times.
BAND = 2**20


def multiply(kind, core, threads, operands) -> None:
    """Run a core on operands, or VNNI's where they do not suit tiles."""
    core = core if _suited(kind, operands) else getattr(vnni, kind)
    jobs.multiply(kind, core, threads, operands)


def _suited(kind, operands):
    """Tell whether there are rows and panels enough for tiles, and not too many inputs."""
    (rows, inputs), panels = operands.q.shape, len(operands.bias) // OUTPUTS
    if rows < FEWEST[kind] or panels < WIDE or inputs > MOST[kind]:
        return False
    blocks = panels * inputs // INPUTS
    return kind != "sparse" or len(operands.weights[1]) * min(rows, 40) >= STORED * blocks


def described(kind, core, operands) -> jobs.Call:
    """Describe a product that VNNI's core computes of few rows, and tiles of many, if at all."""
    (_, inputs), panels = operands.q.shape, len(operands.bias) // OUTPUTS
    call = jobs.described(kind, getattr(vnni, kind), operands)
    if panels < WIDE or inputs > MOST[kind]:
        return call
    return call._replace(many=core, fewest=FEWEST[kind])


START, END = inlined(amx_int8.start), inlined(amx_int8.end)
W8_16, W8_32 = [inlined(amx_int8.w8(high)) for high in (1, 2)]
UNPACK = inlined(amx_sparse.unpack)
SPARSE_16, SPARSE_32 = [inlined(amx_int8.w8(high, amx_sparse.unpacked)) for high in (1, 2)]
START_GROUPS, END_GROUPS = inlined(amx_groups.start), inlined(amx_groups.end)
W4, Z4 = inlined(amx_groups.w4(False)), inlined(amx_groups.w4(True))
PEAK, PEAK_PRODUCTS = inlined(amx_tiles.peak), amx_tiles.PEAK_PRODUCTS


# What stands last, a panel or some rows, is part of a block that starts earlier, so as to be whole:
# some sums are made twice, and no other shape of tiles is needed. A lone panel brings in one that
# is another thread's, perhaps: then both write the same numbers to the same places.


@njit
def _tall(rows):
    """Return where blocks of 32 rows end, of which the last one may start earlier."""
    return (rows + 15) // 32 * 32 if rows >= 32 else 0


@njit
def _pair(panel, last):
    """Return the first of two panels, of which one is ``panel``; there are two at least."""
    return max(0, min(panel, last - WIDE))


def w8(job, first, last):
    """Int8 weights: 32 rows by two panels at a time, then 16 rows."""
    fields = carray(job, LENGTH)
    rows = fields[Slot.ROWS]
    tall = _tall(rows)
    band = max(BAND // fields[Slot.X_STRIDE] // 32 * 32, 32)
    START(job, 0, 0)
    for top in range(0, rows, band):
        for panel in range(first, last, WIDE):
            pair = _pair(panel, last)
            for row in range(top, min(top + band, tall), 32):
                W8_32(job, pair, min(row, rows - 32))
            for row in range(max(top, tall), min(top + band, rows), 16):
                W8_16(job, pair, max(0, min(row, rows - 16)))
    END(job, 0, 0)


def sparse(job, first, last):
    """Int8 weights of which the zeros are not stored."""
    rows = carray(job, LENGTH)[Slot.ROWS]
    tall = _tall(rows)
    START(job, 0, 0)
    for panel in range(first, last, WIDE):
        pair = _pair(panel, last)
        UNPACK(job, pair, 0)
        for row in range(0, tall, 32):
            SPARSE_32(job, pair, min(row, rows - 32))
        for row in range(tall, rows, 16):
            SPARSE_16(job, pair, min(row, rows - 16))
    END(job, 0, 0)


def w4(job, first, last):
    """4-bit weights without zero points."""
    START_GROUPS(job, 0, 0)
    for panel in range(first, last):
        W4(job, panel, 0)
    END_GROUPS(job, 0, 0)


def z4(job, first, last):
    """4-bit weights with zero points."""
    START_GROUPS(job, 0, 0)
    for panel in range(first, last):
        Z4(job, panel, 0)
    END_GROUPS(job, 0, 0)


def peak(job, first, last):
    """Multiply tiles."""
    for panel in range(first, last):
        PEAK(job, panel, 0)
