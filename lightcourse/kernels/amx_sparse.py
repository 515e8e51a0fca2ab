"""Products of sparse weights on the tiles of AMX: two panels are unpacked once, for all rows."""

from llvmlite import ir

from lightcourse.kernels import vnni
from lightcourse.kernels.amx_int8 import WIDE
from lightcourse.kernels.writer import BYTES, I32, I64, VECTOR
from lightcourse.panels import INPUTS, OFFSET_W8, OUTPUTS

MOST = 8192  # inputs: two panels of them take 256 KB of the stack
PANEL = MOST * OUTPUTS  # bytes
OFFSETS = ir.Constant(BYTES, [OFFSET_W8] * VECTOR)


def unpack(code, job, panel, row):
    """Write two panels as int8 weights are stored, for as many inputs as a row of x has room."""
    weights, _, blocks = unpacked(code, job, panel)
    for n in range(WIDE):
        here = code.at(weights, n * PANEL)
        code.loop(blocks, [], lambda k, _, here=here: _write(code, OFFSETS, here, k))
        _unpack_panel(code, job, code.plus(panel, n), here)


def _write(code, block, pointer, k):
    code.store(block, pointer, code.times(k, VECTOR))
    return []


def _unpack_panel(code, job, panel, pointer):
    """Write the blocks that are stored to their places."""
    starts = code.at(job.starts, code.times(panel, 16))
    first, at, last = (code.load(I64, starts, 8 * i) for i in range(3))

    def block(i, carried):
        (at,), i = carried, code.plus(first, i)
        mask = code.load(I64, job.masks, code.times(i, 8))
        column = code.b.sext(code.load(I32, job.columns, code.times(i, 4)), I64)
        weights = vnni.expand(code, code.load(BYTES, job.w, at), mask)
        _write(code, code.b.add(weights, OFFSETS), pointer, column)
        return [code.plus(at, code.call("llvm.ctpop.i64", I64, mask))]

    code.loop(code.b.sub(last, first), [at], block)


def unpacked(code, job, panel):
    """Return where :func:`unpack` has written, as :func:`amx_int8.stored` does."""
    blocks = code.b.sdiv(job.x_stride, I64(INPUTS))
    return code.room(WIDE * PANEL, "unpacked"), I64(PANEL), blocks
