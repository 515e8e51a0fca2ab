"""The steps of a program: each a core, and a job that says where it reads and writes."""

import numpy as np

from lightcourse import panels
from lightcourse.kernels import attention, between, linear, paths, rows, whole_texts
from lightcourse.kernels.fields import FIELDS, Field
from lightcourse.kernels.jobs import Operands, Slot
from lightcourse.kernels.program import Each, Step

HARD = 16  # multiply-adds that exp takes as long as


class Room:
    """Arrays for so many rows, which steps write and read; they live as long as it does.

    Parameters
    ----------
    rows : int
    """

    def __init__(self, rows: int):
        self.rows, self.arrays = rows, {}

    def floats(self, name: str, width: int) -> np.ndarray:
        """Return the matrix of this name, whose rows are filled up to whole panels.

        Up to an odd number of panels, each of which is a line of the cache: rows an even number
        of lines apart would compete for half of its places, or fewer.
        """
        if name not in self.arrays:
            lines = -(-width // panels.OUTPUTS) | 1
            self.arrays[name] = panels.aligned((self.rows, lines * panels.OUTPUTS), np.float32)
            self.arrays[name][...] = 0
        return self.arrays[name]

    def keep(self, array: np.ndarray) -> int:
        """Keep an array, and return where it starts."""
        self.arrays[len(self.arrays)] = array
        return array.ctypes.data

    def number(self, value: float) -> int:
        """Keep a float32, and return where it stands."""
        return self.keep(np.full(1, value, np.float32))

    def quantized(self, columns: int, groups: int, scales: int) -> tuple:
        """Return room for quantized rows of x: integers, sums of groups, and scales."""
        name = columns, groups, scales
        if name not in self.arrays:
            q = panels.aligned((self.rows, linear.row_bytes(columns)), np.int8)
            sums = np.empty((self.rows, groups), np.int32)
            shape = self.rows if scales == 1 else (self.rows, scales)
            self.arrays[name] = q, sums, np.empty(shape, np.float32)
        return self.arrays[name]


def _job(x, y, **fields):
    """Describe rows of x and y, and what else a core between products must know."""
    job = np.zeros(FIELDS, np.int64)
    job[Slot.X], job[Slot.X_STRIDE] = x.ctypes.data, x.strides[0] // 4
    job[Slot.Y], job[Slot.Y_STRIDE] = y.ctypes.data, y.strides[0] // 4
    for name, value in fields.items():
        job[Slot[name] if name in Slot.__members__ else Field[name]] = value
    return job


def by_rows(core, x, y, work, **fields) -> Step:
    """Return a step of :mod:`lightcourse.kernels.between`; fields by their names."""
    return Step(core, _job(x, y, **fields), Each.ROWS, 1, work)


def norm(room, weight, bias, epsilon, x, y) -> Step:
    """Return the RMS norm of x's rows, or with a bias the layer norm."""
    width, number = len(weight), room.number(epsilon)
    if bias is None:
        return by_rows(
            between.rms_norm, x, y, 4 * width, WIDTH=width, W=room.keep(weight), NUMBER=number
        )
    where = {"W": room.keep(weight), "BIAS": room.keep(bias), "NUMBER": number}
    return by_rows(between.layer_norm, x, y, 6 * width, WIDTH=width, **where)


def add_norm(room, weight, bias, epsilon, x, y) -> Step:
    """Return the step that adds x to y, and replaces y by the layer norm of the sum."""
    where = {"W": room.keep(weight), "BIAS": room.keep(bias), "NUMBER": room.number(epsilon)}
    return by_rows(between.add_norm, x, y, 7 * len(weight), WIDTH=len(weight), **where)


def add(x, y, width) -> Step:
    """Return the step that adds x to y."""
    return by_rows(between.add, x, y, width, WIDTH=width)


def activation(name, x, y, width) -> Step:
    """Return GELU of x, or with "silu" the step that lets the gate x through to y."""
    return by_rows(getattr(between, name), x, y, 2 * HARD * width, WIDTH=width)


def quantize(x, width, quantized, columns) -> Step:
    """Return the step that quantizes x's rows, of so many numbers."""
    q, sums, scale = quantized
    job = np.zeros(FIELDS, np.int64)
    job[Slot.X], job[Slot.X_STRIDE], job[Field.WIDTH] = x.ctypes.data, x.strides[0] // 4, width
    job[Slot.Y], job[Slot.Y_STRIDE] = q.ctypes.data, q.shape[1]
    job[Slot.X_SUM], job[Slot.GROUPS] = sums.ctypes.data, sums.shape[1]
    job[Slot.BLOCKS], job[Slot.X_SCALE] = columns // sums.shape[1], scale.ctypes.data
    core = rows.part if scale.ndim == 1 else rows.part_groups
    return Step(core, job, Each.ROWS, 1, 4 * width)


def product(room, kind, weights, bias, quantized, y) -> list[Step]:
    """Return the steps that multiply quantized rows by a matrix: one, and maybe one before it."""
    path = paths.serving(kind)
    operands = Operands(*quantized, weights, bias, y)
    call = path.described(kind, path.cores[kind], operands)
    for array in (*weights, bias, *call.held):
        room.keep(array)
    count, inputs = len(bias) // panels.OUTPUTS, quantized[0].shape[1]
    work = len(bias) * inputs
    step = Step(call.core, call.job, Each.PANELS, count, work, call.many, call.fewest)
    if not call.before:
        return [step]
    return [Step(*call.before, Each.ROWS, 1, inputs), step]


def attend(room, x, y, cache, sizes, scaling, starts) -> Step:
    """Return attention of queries x over a layer's keys and values."""
    keys, values, capacity = cache
    heads, key_heads, size = sizes
    fields = {"HEADS": key_heads, "SIZE": size, "GROUP": heads // key_heads, "PADDING": starts}
    fields |= {"CACHE": keys, "OTHER": values, "CAPACITY": capacity}
    job = _job(x, y, NUMBER=room.number(scaling), **fields)
    return Step(attention.attend, job, Each.BLOCKS, key_heads, heads * size * 256)


def attend_whole(room, queries, keys, values, y, sizes, scaling, ends) -> Step:
    """Return attention among the positions of each text; all matrices lie alike."""
    heads, size = sizes
    fields = {"HEADS": heads, "SIZE": size, "ENDS": ends, "NUMBER": room.number(scaling)}
    fields |= {"CACHE": keys.ctypes.data, "OTHER": values.ctypes.data}
    job = _job(queries, y, **fields)
    return Step(whole_texts.attend, job, Each.TEXTS, heads, heads * size * 256)
