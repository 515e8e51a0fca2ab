"""The tiles of AMX: registers of 16 rows by 64 bytes, and their instructions.

One instruction, ``tdpbsud``, does what 256 of ``vpdpbusd`` do: it multiplies a tile of x by a tile
of weights, and adds to a tile of sums::

                             W: 16 blocks of a panel, as they are stored
                             16 rows of 64 bytes: row k has inputs 4k to 4k + 3
                             of each of the 16 outputs
                             +-----+
                             |     |
    X: 16 rows of x,         +-----+
    64 inputs of each        sums: 16 rows by 16 outputs,
    +-----+                  +-----+    32 bits each
    |     |                  |     |
    +-----+                  +-----+

A thread has eight tiles: four of sums, two of x and two of weights.
"""

from llvmlite import ir

from lightcourse.kernels.writer import I8, I64, VECTOR
from lightcourse.panels import INPUTS, OUTPUTS

ROWS = 16  # of a tile
TILE = ROWS * VECTOR  # bytes
SUMS, X, W = 0, 4, 6  # the numbers of the first tile of each sort
PEAK_PRODUCTS = 4 * ROWS * OUTPUTS * VECTOR  # in a step
VOID = ir.VoidType()


def configure(code, job, inputs, rows):
    """Give this thread its tiles, for so many inputs a step, and so many rows of x."""
    settings, values = code.room(VECTOR), [I8(0)] * VECTOR
    inputs, rows = code.b.trunc(inputs, I8), code.b.trunc(rows, I8)
    values[0] = I8(1)  # the palette: eight tiles of at most 16 rows by 64 bytes
    values[16:32] = [I8(VECTOR), I8(0)] * 8  # bytes of a row, each number in 16 bits
    values[16 + 2 * X : 16 + 2 * W] = [inputs, I8(0)] * 2
    values[48:56] = [rows] * W + [code.b.udiv(inputs, I8(INPUTS))] * 2
    for place, value in enumerate(values):
        code.store(value, settings, place)
    code.call("llvm.x86.ldtilecfg", VOID, settings)


def release(code):
    """Give the tiles back: without them Linux has less to keep when it changes threads."""
    code.call("llvm.x86.tilerelease", VOID)


def clear(code, tile):
    """Fill a tile with zeros."""
    code.call("llvm.x86.tilezero", VOID, I8(tile))


def load(code, tile, pointer, stride):
    """Read the rows of a tile, ``stride`` bytes apart."""
    code.call("llvm.x86.tileloadd64", VOID, I8(tile), pointer, stride)


def store(code, tile, pointer, stride):
    """Write the rows of a tile, ``stride`` bytes apart."""
    code.call("llvm.x86.tilestored64", VOID, I8(tile), pointer, I64(stride))


def dot(code, sums, x, w, weights="u"):
    """Add the products of a tile of x and one of weights, unsigned or signed, to one of sums."""
    code.call(f"llvm.x86.tdpbs{weights}d", VOID, I8(sums), I8(x), I8(w))


def peak(code, job, panel, row):
    """Do nothing but multiply: the speed is the processor's limit."""
    configure(code, job, I64(VECTOR), I64(ROWS))
    for tile in range(8):
        clear(code, tile)

    def step(i, _):
        for n in range(SUMS, X):
            dot(code, n, X, W)
        return []

    code.loop(job.blocks, [], step)
    release(code)
