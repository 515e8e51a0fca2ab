"""A tile of floats: some rows times a strip of columns, with all sums in registers."""

from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from lightcourse.kernels import caching
from lightcourse.kernels.writer import F32, FLOATS, I64, POINTER, VECTOR, Code

CACHE = caching.ready()


def _tile(rows, vectors):
    """Return ``tile(a, a_stride, b, b_stride, y, y_stride, count)``, addresses and bytes.

    Writes ``y = a @ b`` for so many rows of ``a``, ``count`` numbers each, and 16 columns of
    ``b`` for each vector.
    """

    @intrinsic
    def tile(context, a, a_stride, b, b_stride, y, y_stride, count):
        def emit(context, builder, signature, arguments):
            code, (a, a_stride, b, b_stride, y, y_stride, count) = Code(builder), arguments
            a, b, y = (builder.inttoptr(address, POINTER) for address in (a, b, y))
            inputs = [code.at(a, code.times(a_stride, m)) for m in range(rows)]

            def step(k, sums):
                line = code.at(b, code.times(k, b_stride))
                columns = [code.load(FLOATS, line, n * VECTOR) for n in range(vectors)]
                sums = list(sums)
                for m, pointer in enumerate(inputs):
                    x = code.everywhere(code.load(F32, pointer, code.times(k, 4)))
                    for n, column in enumerate(columns):
                        i = m * vectors + n
                        sums[i] = code.call("llvm.fma.v16f32", FLOATS, x, column, sums[i])
                return sums

            zero = ir.Constant(FLOATS, None)
            for i, total in enumerate(code.loop(count, [zero] * (rows * vectors), step)):
                m, n = divmod(i, vectors)
                code.store(total, code.at(y, code.times(y_stride, m)), I64(n * VECTOR))
            return context.get_dummy_value()

        return types.void(*[types.int64] * 7), emit

    return tile


# Sixteen sums and four columns leave room among 32 registers of 64 bytes. Eight sums are what it
# takes to hide an instruction's four cycles where two start in each.
TILE_4_4, TILE_4_2, TILE_4_1, TILE_1_4, TILE_1_2, TILE_1_1 = (
    _tile(rows, vectors) for rows in (4, 1) for vectors in (4, 2, 1)
)


@njit(cache=CACHE, nogil=True)
def multiply(rows, columns, count, a, a_stride, b, b_stride, y, y_stride):
    """Write ``y = a @ b``; addresses, and bytes from row to row; columns by sixteens.

    ``a`` is (rows, count), ``b`` (count, columns).
    """
    fours = rows // 4 * 4
    while columns > 0:
        wide = 64 if columns >= 64 else 32 if columns >= 32 else 16
        for row in range(0, fours, 4):
            here, out = a + row * a_stride, y + row * y_stride
            if wide == 64:
                TILE_4_4(here, a_stride, b, b_stride, out, y_stride, count)
            elif wide == 32:
                TILE_4_2(here, a_stride, b, b_stride, out, y_stride, count)
            else:
                TILE_4_1(here, a_stride, b, b_stride, out, y_stride, count)
        for row in range(fours, rows):
            here, out = a + row * a_stride, y + row * y_stride
            if wide == 64:
                TILE_1_4(here, a_stride, b, b_stride, out, y_stride, count)
            elif wide == 32:
                TILE_1_2(here, a_stride, b, b_stride, out, y_stride, count)
            else:
                TILE_1_1(here, a_stride, b, b_stride, out, y_stride, count)
        b, y, columns = b + 4 * wide, y + 4 * wide, columns - wide
