"""Tiles of sparse weights without AVX-512: some blocks of a panel are unpacked for all rows.

AVX-512 spreads 64 stored weights over their places in one instruction, ``vpexpandb``. Here a
shuffle spreads eight; a table tells it where to, for each of the 256 masks of eight bits::

    8 bits of a block's mask     1 0 0 1 0 1 0 0
    weights that are stored      a b c . . . . .      as many as there are bits, then others
    from which place             0 - - 1 - 2 - -
    shuffled                     a 0 0 b 0 c 0 0

``pdep`` can do that without a table, but took 1.3 times as long for one row (a Xeon, Emerald
Rapids), and would take far longer on a Zen 1 or 2, which have it in microcode.

It is work enough to be done but once: the unpacked blocks stay in the first cache, while all rows
are multiplied by them. Then come the next blocks; sums wait in y meanwhile.

Beside dense int8 weights on the path avxvnni, on that Xeon and compiled as for an Alder Lake: where
three of four blocks are gone, one row took 0.7 to 1.0 of the time and 128 rows a third to a half.
Zeros that are strewn, however many, take the time of all their blocks: with one row 2.3 to 3 times
that of dense weights, with 128 rows 1.1 to 1.2 times.
"""

from llvmlite import ir

from lightcourse.kernels import tiles
from lightcourse.kernels.writer import FLOATS, I8, I32, I64, INTS, VECTOR

BLOCKS = 256  # that are unpacked at a time, 16 KB; 64 and 512 took as long
SIXTEEN = ir.VectorType(I8, 16)
NOTHING = 0x80  # in the place of a place, makes a zero
ONES = 0x0101010101010101  # times a word: in each byte the sum of this byte and those before it


def _places(mask):
    """Return from which place each of eight bytes comes, as one number."""
    before = [(mask & (1 << i) - 1).bit_count() for i in range(8)]
    places = [before[i] if mask >> i & 1 else NOTHING for i in range(8)]
    return int.from_bytes(places, "little")


PLACES = [*map(_places, range(256)), 0]  # read 16 bytes at a time: one more follows the last


def sparse(products, start, shuffle, heights):
    """Return what multiplies all rows of x by one panel.

    Parameters
    ----------
    products : Products
        Its ``dot`` takes weights that are signed.
    start : function (code, job, panel) -> sums
        What the sums of a row start from.
    shuffle : function (code, bytes, places) -> bytes
        Brings each of 16 bytes from its place; from the place :data:`NOTHING` comes a 0.
    heights : pairs of int
        How many rows are multiplied at a time, from many down to one, and their chains.
    """

    def write(code, job, panel, row):
        starts = code.at(job.starts, code.times(panel, 16))
        first, at, last = (code.load(I64, starts, 8 * i) for i in range(3))
        vector, count = start(code, job, panel), code.b.sub(last, first)
        code.loop(job.rows, [], lambda m, _: _put(code, job, vector, m, panel))

        def some(i, carried):
            done = code.times(i, BLOCKS)
            here = code.plus(first, done)
            size = code.least(code.b.sub(count, done), I64(BLOCKS))
            at = _unpack(code, job, here, size, *carried, shuffle)
            columns = code.at(job.columns, code.times(here, 4))
            tile = [
                (rows, _tile(products, rows, chains, columns, size)) for rows, chains in heights
            ]
            tiles.all_rows(*tile)(code, job, panel, I64(0))
            return [at]

        code.loop(code.b.sdiv(code.plus(count, BLOCKS - 1), I64(BLOCKS)), [at], some)
        scale = code.load(FLOATS, job.scale, code.times(panel, VECTOR))
        code.loop(job.rows, [], lambda m, _: _finish(code, job, scale, m, panel))

    return write


def _place(code, job, row, panel):
    return code.at(job.y, code.plus(code.times(row, job.y_stride), code.times(panel, VECTOR)))


def _put(code, job, sums, row, panel):
    code.store(sums, _place(code, job, row, panel))
    return []


def _finish(code, job, scale, row, panel):
    sums = code.load(INTS, _place(code, job, row, panel))
    tiles.finish(code, job, code.b.fmul(code.b.sitofp(sums, FLOATS), scale), row, panel)
    return []


def _tile(products, rows, chains, columns, size):
    """Return a tile that adds the products of the unpacked blocks."""

    def write(code, job, panel, row):
        inputs, blocks = tiles.inputs_of(code, job, row, rows), _unpacked(code)

        def step(k, sums):
            column = code.b.sext(code.load(I32, columns, code.times(k, 4)), I64)
            place = code.times(column, products.x_bytes)
            weights = code.load(INTS, blocks, code.times(k, VECTOR))
            xs = [products.load_x(code, pointer, place) for pointer in inputs]
            return [products.dot(code, s, weights, x) for s, x in zip(sums, xs, strict=True)]

        places = [_place(code, job, code.plus(row, m), panel) for m in range(rows)]
        sums = [code.load(INTS, place) for place in places]
        for total, place in zip(tiles.chained(code, size, sums, step, chains), places, strict=True):
            code.store(total, place)

    return write


def _unpacked(code):
    return code.room(BLOCKS * VECTOR, "unpacked")


def _unpack(code, job, first, size, at, shuffle):
    """Write so many blocks, zeros where no weight is stored; return where the next one starts."""

    def block(k, carried):
        (at,), masks = carried, code.at(job.masks, code.times(code.plus(first, k), 8))
        counts = _counts(code, code.load(I64, masks))
        out = code.at(_unpacked(code), code.times(k, VECTOR))
        for i in range(8):
            place = code.plus(at, _byte(code, counts, i - 1) if i else 0)
            eight = code.load(SIXTEEN, job.w, place)
            _store_eight(code, shuffle(code, eight, _places_of(code, masks, i)), out, i)
        return [code.plus(at, _byte(code, counts, 7))]

    return code.loop(size, [at], block)[0]


def _places_of(code, masks, i):
    mask = code.b.zext(code.load(I8, masks, i), I64)
    return code.load(SIXTEEN, code.table("places", I64, PLACES), code.times(mask, 8))


def _store_eight(code, vector, pointer, i):
    words = code.b.bitcast(vector, ir.VectorType(I64, 2))
    code.store(code.b.extract_element(words, I32(0)), pointer, 8 * i)


def _byte(code, word, i):
    return code.b.and_(code.b.lshr(word, I64(8 * i)), I64(0xFF))


def _counts(code, mask):
    """Return in each byte how many bits are set in this byte of the mask and those before it."""
    bytes_ = code.b.bitcast(mask, ir.VectorType(I8, 8))
    counts = code.call("llvm.ctpop.v8i8", bytes_.type, bytes_)
    return code.times(code.b.bitcast(counts, I64), ONES)
