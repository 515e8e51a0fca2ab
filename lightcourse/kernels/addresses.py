"""Arrays at addresses, for cores: what a job names by a number."""

from numba import carray, njit, types
from numba.extending import intrinsic

from lightcourse.kernels import caching

CACHE = caching.ready()


def _pointer_to(kind):
    @intrinsic
    def pointer(context, address):
        def emit(context, builder, signature, arguments):
            return builder.inttoptr(arguments[0], context.get_value_type(types.CPointer(kind)))

        return types.CPointer(kind)(types.int64), emit

    return pointer


floats, longs, ints, words, shorts, bytes_, ubytes = map(
    _pointer_to,
    (
        types.float32,
        types.int64,
        types.int32,
        types.uint32,
        types.int16,
        types.int8,
        types.uint8,
    ),
)


@njit(cache=CACHE, nogil=True)
def matrix(address, rows, columns):
    """Return the float32 matrix of so many rows that starts at an address."""
    return carray(floats(address), (rows, columns))


@njit(cache=CACHE, nogil=True)
def vector(address, length):
    """Return so many float32 from an address on."""
    return carray(floats(address), (length,))
