"""Cores for processors with AVX2, which multiply bytes once these are widened to 16 bits."""

import numpy as np
from llvmlite import ir
from numba import carray, njit

from lightcourse.kernels import caching, jobs, sparse_tiles, tiles
from lightcourse.kernels.addresses import bytes_, shorts
from lightcourse.kernels.jobs import Slot
from lightcourse.kernels.tiles import Products, all_rows, inlined
from lightcourse.kernels.writer import I8, I32, INTS, WORDS, ZERO

CACHE = caching.ready()


def _load_pairs(code, pointer, offset):
    """Read inputs 0 and 2, then 1 and 3, each widened to 16 bits."""
    return [code.everywhere(code.load(I32, code.at(pointer, offset), 4 * half)) for half in (0, 1)]


def _dot(code, sums, weights, pairs):
    """Multiply even and odd bytes apart: ``vpmaddwd`` of 16 bits is exact.

    ``vpmaddubsw``, which takes bytes, would not do: it cuts sums off at 32,767.
    """
    b, words = code.b, code.b.bitcast(weights, WORDS)
    even = b.and_(words, ir.Constant(WORDS, [0xFF] * 32))
    odd = b.lshr(words, ir.Constant(WORDS, [8] * 32))
    return _multiply(code, sums, (even, odd), pairs)


def _multiply(code, sums, parts, pairs):
    for part, pair in zip(parts, pairs, strict=True):
        pair = code.b.bitcast(pair, WORDS)
        halves = [_multiply_half(code, part, pair, first) for first in (0, 16)]
        sums = code.b.add(sums, code.b.shuffle_vector(*halves, ir.Constant(INTS, list(range(16)))))
    return sums


def _multiply_half(code, a, b, first):
    places = ir.Constant(ir.VectorType(I32, 16), list(range(first, first + 16)))
    a, b = (code.b.shuffle_vector(v, v, places) for v in (a, b))
    return code.call("llvm.x86.avx2.pmadd.wd", ir.VectorType(I32, 8), a, b)


def _dot_signed(code, sums, weights, pairs):
    """Multiply weights that have no offset."""
    eight, words = ir.Constant(WORDS, [8] * 32), code.b.bitcast(weights, WORDS)
    even, odd = code.b.ashr(code.b.shl(words, eight), eight), code.b.ashr(words, eight)
    return _multiply(code, sums, (even, odd), pairs)


def shuffle(code, values, places):
    """Bring bytes to other places; zeros where a place is not among them."""
    return code.call("llvm.x86.ssse3.pshuf.b.128", ir.VectorType(I8, 16), values, places)


def _zeros(code, job, panel):
    return ZERO


AVX2 = Products(8, _load_pairs, _dot)
SIGNED = Products(8, _load_pairs, _dot_signed)


def multiply(kind, core, threads, operands) -> None:
    """Run a core on inputs of 16 bits."""
    pairs = np.empty(operands.q.shape, np.int16)
    _widen(operands.q, pairs)
    jobs.multiply(kind, core, threads, operands._replace(q=pairs))


def described(kind, core, operands) -> jobs.Call:
    """Describe a product, and before it the rows that it wants."""
    pairs = np.empty(operands.q.shape, np.int16)
    job = np.zeros(jobs.LENGTH, np.int64)
    job[Slot.X], job[Slot.X_STRIDE] = operands.q.ctypes.data, operands.q.shape[1]
    job[Slot.Y] = pairs.ctypes.data
    call = jobs.described(kind, core, operands._replace(q=pairs))
    return call._replace(before=(widen, job), held=(pairs,))


def widen(job, first, last):
    """Widen some rows: a core."""
    fields = carray(job, jobs.LENGTH)
    rows, columns = fields[Slot.ROWS], fields[Slot.X_STRIDE]
    q = carray(bytes_(fields[Slot.X]), (rows, columns))
    pairs = carray(shorts(fields[Slot.Y]), (rows, columns))
    _widen(q[first:last], pairs[first:last])


@njit(cache=CACHE, nogil=True)
def _widen(q, pairs):
    """Write inputs as the products want them: 16 bits each, 0 and 2 of four before 1 and 3."""
    for i in range(len(q)):
        for k in range(0, q.shape[1], 4):
            pairs[i, k], pairs[i, k + 1] = q[i, k], q[i, k + 2]
            pairs[i, k + 2], pairs[i, k + 3] = q[i, k + 1], q[i, k + 3]


# --- cores: few rows at a time, since there are but sixteen registers of 32 bytes -------------

# Compiled for AVX2 alone, on a Xeon (Emerald Rapids).
# ``chains``: one row and one panel are two sums already, one a register; 1 to 8 chains were within
# 5 % of each other from the caches.
# ``ahead``: asked for 3 KB early, weights for one row came 1.1 to 1.3 times as fast from the caches
# and 1.6 to 3 times from memory; four rows were twice as fast from memory. Four panels side by side
# gained one row less.
AHEAD = 3072
W8 = inlined(
    all_rows(
        (4, tiles.w8(AVX2, 4, 1, ahead=AHEAD)), (1, tiles.w8(AVX2, 1, 1, chains=2, ahead=AHEAD))
    )
)
# In groups of 32 four rows were 1.1 times as fast as two or six, and lost by asking early; one row
# gained a twelfth from memory.
G8 = inlined(all_rows((4, tiles.g8(AVX2, 4)), (1, tiles.g8(AVX2, 1, ahead=AHEAD))))
W4 = inlined(all_rows(*[(rows, tiles.w4(AVX2, rows, False)) for rows in (2, 1)]))
Z4 = inlined(all_rows(*[(rows, tiles.w4(AVX2, rows, True)) for rows in (2, 1)]))
SPARSE = inlined(sparse_tiles.sparse(SIGNED, _zeros, shuffle, [(4, 1), (1, 2)]))
PEAK_SUMS = 4  # eight registers; the weights, in two halves of even and odd bytes, take four
PEAK_PRODUCTS = PEAK_SUMS * 16 * 4  # in a step
PEAK = inlined(tiles.peak(AVX2, PEAK_SUMS, lambda total: [total, total]))


def w8(job, first, last):
    """Int8 weights."""
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
