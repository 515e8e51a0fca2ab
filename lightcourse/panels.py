"""The order in which kernels store integer weights: panels of 16 outputs by 4 inputs.

A matrix product reads a weight matrix once for each block of inputs. Stored row by row, the
16 outputs that a vector instruction computes together would lie far apart. So the matrix is
cut into **panels** of 16 rows, and a panel into blocks of 16 outputs by 4 inputs: 64 bytes
that lie together, in the order in which they are read::

    weight (outputs, inputs)             panel p, block k: 64 bytes
    row 16p     . . [a b c d] . .        a b c d  e f g h  i j k l  ...
    row 16p+1   . . [e f g h] . .   ->   output   output   output
    row 16p+2   . . [i j k l] . .        16p      16p+1    16p+2
    ...              4k..4k+3

Rows are filled up to a multiple of 16, inputs to a multiple of 4 (32 where two 4-bit values
share a byte, or groups of inputs have a scale each), with weights that stand for 0. Integers are
stored with an offset that makes them unsigned, because ``vpdpbusd`` multiplies unsigned by signed
bytes.
"""

import ctypes
import math
from typing import NamedTuple

import numpy as np

OUTPUTS = 16
INPUTS = 4
BLOCK_W4 = 32
BLOCK_G8 = 32  # int8 weights in groups
OFFSET_W8 = 128
OFFSET_W4 = 8
LINE = 64  # bytes that a processor fetches together


def pack_w8(q: np.ndarray, multiple: int = INPUTS) -> np.ndarray:
    """Store int8 weights as panels.

    Parameters
    ----------
    q : ndarray of int8, shape (outputs, inputs)
    multiple : int
        What inputs are filled up to a multiple of: 4, or 32 where groups of them have a scale
        each.

    Returns
    -------
    ndarray of uint8, shape (ceil(outputs / 16), ceil(inputs / multiple) * multiple / 4, 16, 4)
        ``q + 128``; the padding holds 128, which stands for 0.

    Raises
    ------
    ValueError
        When ``q`` is no matrix of integers, or a value does not fit 8 bits.

    Examples
    --------
    >>> pack_w8(np.array([[1, -1, 0, 2]])).shape
    (1, 1, 16, 4)
    >>> pack_w8(np.array([[1, -1, 0, 2]]))[0, 0, 0].tolist()
    [129, 127, 128, 130]
    """
    q = _padded(_integers(q, -128, 127), multiple)
    return _blocks((q + OFFSET_W8).astype(np.uint8))


def unpack_w8(qweight: np.ndarray, outputs: int, inputs: int) -> np.ndarray:
    """Undo :func:`pack_w8`: int8 of shape (outputs, inputs)."""
    return (_rows(qweight)[:outputs, :inputs].astype(np.int16) - OFFSET_W8).astype(np.int8)


def pack_w4(q: np.ndarray) -> np.ndarray:
    """Store 4-bit weights as panels, two in each byte.

    Parameters
    ----------
    q : ndarray of integers from -8 to 7, shape (outputs, inputs)

    Returns
    -------
    ndarray of uint8, shape (ceil(outputs / 16), 4 * ceil(inputs / 32), 16, 4)
        A block of 64 bytes holds 16 outputs by 8 inputs: inputs 0 to 3 of ``q + 8`` in the
        low halves, inputs 4 to 7 in the high halves. The padding stands for 0.

    Raises
    ------
    ValueError
        When ``q`` is no matrix of integers, or a value does not fit 4 bits.

    Examples
    --------
    >>> packed = pack_w4(np.array([[0, 1, 2, 3, 4, 5, 6, 7]]))
    >>> [hex(byte) for byte in packed[0, 0, 0]]
    ['0xc8', '0xd9', '0xea', '0xfb']
    """
    q = _padded(_integers(q, -8, 7), BLOCK_W4)
    blocks = _blocks((q + OFFSET_W4).astype(np.uint8))
    low, high = blocks[:, 0::2], blocks[:, 1::2]
    return np.bitwise_or(low, high << 4, out=aligned(low.shape, np.uint8))


def unpack_w4(qweight: np.ndarray, outputs: int, inputs: int) -> np.ndarray:
    """Undo :func:`pack_w4`: int8 of shape (outputs, inputs)."""
    halves = np.stack([qweight & 0xF, qweight >> 4], axis=2)
    rows = _rows(halves.reshape(len(qweight), 2 * qweight.shape[1], OUTPUTS, INPUTS))
    return rows[:outputs, :inputs].astype(np.int8) - np.int8(OFFSET_W4)


def pack_groups(values: np.ndarray, fill: float = 0) -> np.ndarray:
    """Bring one value for each output and group into the order of panels.

    Parameters
    ----------
    values : ndarray, shape (outputs, groups)
        Scales or zero points.
    fill : number
        What the outputs that fill up the last panel get.

    Returns
    -------
    ndarray of the same dtype, shape (ceil(outputs / 16), groups, 16)
    """
    missing = -len(values) % OUTPUTS
    padded = np.pad(values, ((0, missing), (0, 0)), constant_values=fill)
    padded = padded.reshape(len(padded) // OUTPUTS, OUTPUTS, values.shape[1])
    return np.ascontiguousarray(padded.transpose(0, 2, 1))


def unpack_groups(packed: np.ndarray, outputs: int) -> np.ndarray:
    """Undo :func:`pack_groups`: shape (outputs, groups)."""
    shape = len(packed) * OUTPUTS, packed.shape[1]
    return packed.transpose(0, 2, 1).reshape(shape)[:outputs]


def aligned(shape: tuple, dtype) -> np.ndarray:
    """Return an array, not filled, that starts where a line of the cache starts.

    NumPy's own start 16 bytes later, so that each 64 bytes which a kernel reads lie on two lines:
    products of many rows on AMX's tiles took 2.2 times as long (a Xeon with AMX).
    """
    memory = np.empty(math.prod(shape) * np.dtype(dtype).itemsize + LINE, np.uint8)
    start = -ctypes.addressof(ctypes.c_char.from_buffer(memory)) % LINE
    return np.ndarray(shape, dtype, memory, start)


class SparseWeight(NamedTuple):
    """A pruned int8 matrix: of each panel only the blocks that hold a weight.

    Parameters
    ----------
    values : ndarray of int8
        The weights that are not 0, block after block; 64 zeros follow the last one.
    masks : ndarray of uint64, shape (blocks,)
        Bit ``4 * output + input`` tells whether that weight of the block is there.
    columns : ndarray of int32, shape (blocks,)
        Where in its row of blocks each one stands: its first input, divided by 4.
    starts : ndarray of int64, shape (panels + 1, 2)
        Each panel's first block and first value.
    sums : ndarray of int32, shape (panels, 16)
        Each output's sum over its weights.
    inputs : int
        Columns of the matrix.
    """

    values: np.ndarray
    masks: np.ndarray
    columns: np.ndarray
    starts: np.ndarray
    sums: np.ndarray
    inputs: int

    @property
    def nbytes(self) -> int:
        """Bytes that are stored."""
        return sum(array.nbytes for array in self[:5])


def pack_sparse(q: np.ndarray) -> SparseWeight:
    """Store the int8 weights that are not 0, and where they stand.

    One format serves masks of any shape. Weights that were removed one by one, or n of m,
    cost a bit each; whole blocks of 16 outputs by 4 inputs cost nothing.

    Parameters
    ----------
    q : ndarray of int8, shape (outputs, inputs)

    Raises
    ------
    ValueError
        When ``q`` is no matrix of integers, or a value does not fit 8 bits.

    Examples
    --------
    >>> packed = pack_sparse(np.eye(16, dtype=np.int8))
    >>> len(packed.masks), int(packed.values.sum())
    (4, 16)
    """
    inputs = np.shape(q)[-1]
    blocks = _blocks(_padded(_integers(q, -128, 127), INPUTS).astype(np.int8))
    sums = blocks.sum(axis=(1, 3), dtype=np.int32)
    blocks = blocks.reshape(*blocks.shape[:2], OUTPUTS * INPUTS)
    kept = blocks != 0
    panel, column = np.nonzero(kept.any(axis=2))
    masks = np.packbits(kept[panel, column], axis=1, bitorder="little").view(np.uint64)
    values = np.concatenate([blocks[kept], np.zeros(OUTPUTS * INPUTS, np.int8)])
    counts = np.stack([kept.any(axis=2).sum(axis=1), kept.sum(axis=(1, 2))], axis=1)
    starts = np.concatenate([np.zeros((1, 2), np.int64), np.cumsum(counts, axis=0)])
    return SparseWeight(values, masks.ravel(), column.astype(np.int32), starts, sums, inputs)


def unpack_sparse(packed: SparseWeight, outputs: int) -> np.ndarray:
    """Undo :func:`pack_sparse`: int8 of shape (outputs, inputs)."""
    panels = len(packed.starts) - 1
    blocks = np.zeros((panels, -(-packed.inputs // INPUTS), OUTPUTS * INPUTS), np.int8)
    bits = np.unpackbits(packed.masks.view(np.uint8).reshape(-1, 8), axis=1, bitorder="little")
    stored = np.zeros((len(packed.masks), OUTPUTS * INPUTS), np.int8)
    stored[bits.astype(bool)] = packed.values[: bits.sum()]
    panel = np.repeat(np.arange(panels), np.diff(packed.starts[:, 0]))
    blocks[panel, packed.columns] = stored
    blocks = blocks.reshape(*blocks.shape[:2], OUTPUTS, INPUTS)
    return _rows(blocks)[:outputs, : packed.inputs]


def _integers(q, low, high):
    q = np.asarray(q)
    if q.ndim != 2 or not np.issubdtype(q.dtype, np.integer):
        raise ValueError(f"q is {q.dtype} of shape {q.shape}; a matrix of integers is wanted")
    if q.size and (q.min() < low or q.max() > high):
        raise ValueError(f"q spans {q.min()}..{q.max()}; integers from {low} to {high} are wanted")
    return q.astype(np.int16)


def _padded(q, multiple):
    """Fill rows up to a multiple of 16, and columns to a multiple of what is given."""
    return np.pad(q, ((0, -q.shape[0] % OUTPUTS), (0, -q.shape[1] % multiple)))


def _blocks(q):
    """Cut a padded matrix into blocks: (panels, blocks, 16, 4)."""
    shape = len(q) // OUTPUTS, OUTPUTS, q.shape[1] // INPUTS, INPUTS
    blocks = q.reshape(shape).transpose(0, 2, 1, 3)
    packed = aligned(blocks.shape, q.dtype)
    packed[...] = blocks
    return packed


def _rows(blocks):
    """Undo :func:`_blocks`."""
    shape = len(blocks) * OUTPUTS, blocks.shape[1] * INPUTS
    return blocks.transpose(0, 2, 1, 3).reshape(shape)


def pack_codes(codes: np.ndarray, bits: int) -> np.ndarray:
    """Store codes of ``bits`` bits without room between them: eight in so many bytes.

    Parameters
    ----------
    codes : ndarray of uint8, shape (rows, columns)
        Below 2**bits; the number of columns is a multiple of 8.
    bits : int
        1 to 8.

    Returns
    -------
    ndarray of uint8, shape (rows, columns * bits / 8)
        The first code in the lowest bits of the first byte.

    Raises
    ------
    ValueError
        When a code has more bits, or the columns are no multiple of 8.

    Examples
    --------
    >>> pack_codes(np.array([[1, 0, 0, 0, 0, 0, 0, 7]], np.uint8), bits=3)
    array([[  1,   0, 224]], dtype=uint8)
    """
    if codes.shape[1] % 8 or codes.max(initial=0) >= 2**bits:
        raise ValueError(
            f"codes has shape {codes.shape} and reaches {codes.max(initial=0)}; a multiple of 8 "
            f"columns and codes below {2**bits} are wanted"
        )
    one_by_one = np.unpackbits(codes[..., None], axis=-1, count=bits, bitorder="little")
    return np.packbits(one_by_one.reshape(len(codes), -1), axis=-1, bitorder="little")


def unpack_codes(packed: np.ndarray, bits: int) -> np.ndarray:
    """Return what :func:`pack_codes` stored: uint8 of shape (rows, columns)."""
    if 8 % bits == 0:  # no code lies across two bytes; ten times as fast
        codes = np.empty((len(packed), packed.shape[1] * 8 // bits), np.uint8)
        for place in range(8 // bits):
            codes[:, place :: 8 // bits] = (packed >> (place * bits)) & (2**bits - 1)
        return codes
    one_by_one = np.unpackbits(packed, axis=-1, bitorder="little").reshape(len(packed), -1, bits)
    return np.packbits(one_by_one, axis=-1, bitorder="little")[..., 0]
