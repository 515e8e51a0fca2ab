"""A *job* tells a core what to compute, as a list of addresses and sizes.

A **core** computes the panels from ``first`` to ``last`` of a job. All cores are called in the
same way, so the threads of one pool share the panels of any of them.
"""

import functools
from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numba import cfunc, njit, types

from lightcourse.kernels import caching, pool
from lightcourse.panels import OUTPUTS

CACHE = caching.ready()
SIGNATURE = types.void(types.CPointer(types.int64), types.int64, types.int64)


class Slot(IntEnum):
    """The places of a job: addresses of arrays, their strides in bytes, and counts."""

    ROWS, X, X_STRIDE, X_SUM, X_SCALE, W, BLOCKS, SCALE, BIAS = range(9)
    Y, Y_STRIDE, GROUPS, ZERO, MASKS, COLUMNS, STARTS, W_SUM = range(9, 17)


LENGTH = len(Slot)
NEVER = 2**62  # more rows than there are


class Operands(NamedTuple):
    """What a product reads and writes.

    Parameters
    ----------
    q : ndarray of int8, shape (rows, bytes of a row)
        The quantized rows of x, filled up with zeros.
    sums : ndarray of int32, shape (rows, groups)
        Of each group of ``q``.
    x_scale : ndarray of float32, shape (rows,); g8: (rows, groups)
    weights : tuple of arrays
        w8: panels of bytes, and float32 scales. g8: panels of bytes, and scales in half
        precision, as uint16 since Numba knows no float16. w4: panels of half bytes, and scales
        like g8's. z4: these two, and the zero points.
        sparse: the five arrays of a :class:`lightcourse.panels.SparseWeight`, and scales.
    bias : ndarray of float32, shape (outputs,)
        Outputs are filled up to whole panels.
    y : ndarray of float32, shape (rows, outputs)
        Where the product goes.
    """

    q: np.ndarray
    sums: np.ndarray
    x_scale: np.ndarray
    weights: tuple
    bias: np.ndarray
    y: np.ndarray


class Call(NamedTuple):
    """A product that is described once and computed often, for up to as many rows as fit.

    Parameters
    ----------
    core : core
    job : ndarray of int64
    many, fewest : core and int
        Which core serves from so many rows on.
    before : (core, ndarray of int64), optional
        What must be done with the quantized rows first: a core that counts rows, and its job.
    held : tuple of arrays
        What must live as long as the job.
    """

    core: object
    job: np.ndarray
    many: object = None
    fewest: int = NEVER
    before: tuple | None = None
    held: tuple = ()


def described(kind, core, operands) -> Call:
    """Describe the product of operands whose weights are of this kind."""
    return Call(core, DESCRIBE[kind](*operands))


def multiply(kind, core, threads, operands) -> None:
    """Run a core on operands whose weights are of this kind."""
    launch(core, threads, len(operands.bias) // OUTPUTS, DESCRIBE[kind](*operands))


def launch(core, threads, panels, job) -> None:
    """Run a core on all panels of a job, shared among threads."""
    if threads == 1:
        _run(address(core), panels, job)
    else:
        pool.share(address(core), job, panels, threads)


@functools.cache
def compiled(core):
    """Compile a core, or fetch it from Numba's cache; kept, since its code goes with it."""
    return cfunc(SIGNATURE, cache=caching.ready())(core)


def address(core) -> int:
    """Return where the compiled core starts."""
    return compiled(core).address


@njit(cache=CACHE, nogil=True)
def _run(core, panels, job):
    pool.call(core, job.ctypes.data, 0, panels)


# --- describing jobs ------------------------------------------------------------------------


@njit(cache=CACHE, nogil=True)
def _common(q, sums, x_scale, bias, y):
    """Fill in what the jobs of all products have."""
    job = np.zeros(LENGTH, np.int64)
    job[Slot.ROWS], job[Slot.X], job[Slot.X_STRIDE] = len(q), q.ctypes.data, q.strides[0]
    job[Slot.X_SUM], job[Slot.X_SCALE] = sums.ctypes.data, x_scale.ctypes.data
    job[Slot.BIAS], job[Slot.Y], job[Slot.Y_STRIDE] = bias.ctypes.data, y.ctypes.data, y.strides[0]
    return job


@njit(cache=CACHE, nogil=True)
def _w8(q, sums, x_scale, weights, bias, y):
    """Describe the product of quantized rows and panels of int8 weights."""
    job = _common(q, sums, x_scale, bias, y)
    qweight, scale = weights
    job[Slot.W], job[Slot.BLOCKS] = qweight.ctypes.data, qweight.shape[1]
    job[Slot.SCALE] = scale.ctypes.data
    return job


@njit(cache=CACHE, nogil=True)
def _g8(q, sums, x_scale, weights, bias, y):
    """Describe the product of rows and panels of int8 weights, both quantized in groups."""
    job = _common(q, sums, x_scale, bias, y)
    qweight, scale = weights
    groups = scale.shape[1]
    job[Slot.W], job[Slot.BLOCKS] = qweight.ctypes.data, qweight.shape[1] // (8 * groups)
    job[Slot.SCALE], job[Slot.GROUPS] = scale.ctypes.data, groups
    return job


@njit(cache=CACHE, nogil=True)
def _w4(q, sums, x_scale, weights, bias, y):
    """Describe the product of quantized rows and panels of 4-bit weights."""
    job = _common(q, sums, x_scale, bias, y)
    qweight, scale = weights[0], weights[1]
    groups = scale.shape[1]
    job[Slot.W], job[Slot.BLOCKS] = qweight.ctypes.data, qweight.shape[1] // (4 * groups)
    job[Slot.SCALE], job[Slot.GROUPS] = scale.ctypes.data, groups
    return job


@njit(cache=CACHE, nogil=True)
def _z4(q, sums, x_scale, weights, bias, y):
    """Describe the same with zero points."""
    job = _w4(q, sums, x_scale, weights, bias, y)
    job[Slot.ZERO] = weights[2].ctypes.data
    return job


@njit(cache=CACHE, nogil=True)
def _sparse(q, sums, x_scale, weights, bias, y):
    """Describe the product of quantized rows and the weights that were kept."""
    job = _common(q, sums, x_scale, bias, y)
    values, masks, columns, starts, w_sum, scale = weights
    job[Slot.W], job[Slot.SCALE] = values.ctypes.data, scale.ctypes.data
    job[Slot.MASKS], job[Slot.COLUMNS] = masks.ctypes.data, columns.ctypes.data
    job[Slot.STARTS], job[Slot.W_SUM] = starts.ctypes.data, w_sum.ctypes.data
    return job


@njit(cache=CACHE, nogil=True)
def peak(steps, x, w, y):
    """Describe multiplications of registers."""
    job = np.zeros(LENGTH, np.int64)
    job[Slot.X], job[Slot.W], job[Slot.Y] = x.ctypes.data, w.ctypes.data, y.ctypes.data
    job[Slot.BLOCKS] = steps
    return job


DESCRIBE = {"w8": _w8, "g8": _g8, "w4": _w4, "z4": _z4, "sparse": _sparse}
