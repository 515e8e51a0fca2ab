"""One cell of the table: a weight's shape, a number of rows, a number of threads."""

import math

import numpy as np
import torch

from benchmarks import timing
from benchmarks.contestants import BYTES, DISCIPLINES
from benchmarks.silence import silence
from benchmarks.tables import OURS

SHAPES = [(384, 1536), (768, 3072), (2048, 8192), (4096, 4096)]  # inputs, outputs
ROWS = [1, 8, 32, 128, 512]
LARGER_THAN_CACHE = 2 * 32 * 2**20  # bytes: twice the last cache
MOST_COPIES = 256
ROWS_FOR_ERRORS = 32


def measure(discipline, shape, rows, threads, seconds, limits, absent):
    """Yield a record for each number of rows; fill ``absent`` with who is not installed.

    Parameters
    ----------
    discipline : str
        A key of ``DISCIPLINES``.
    shape : (int, int)
        Inputs and outputs.
    rows : list of int
    threads : int
    seconds : float
        For the timing of one record, without what prepares it.
    limits : callable
        From threads to what the machine reaches now, as a dict.
    absent : dict of str to str
        From a contestant's name to the reason.
    """
    inputs, outputs = shape
    weight = np.random.default_rng(0).standard_normal((outputs, inputs), np.float32)
    copies = count_copies(inputs * outputs * BYTES[discipline]) if 1 in rows else 1
    field = enter(discipline, weight, threads, copies, absent)
    for m in rows:
        x = np.random.default_rng(1).standard_normal((m, inputs), np.float32)
        calls = {name: bind(x)[: copies if m == 1 else 1] for name, (bind, _) in field.items()}
        here = {"discipline": discipline, "inputs": inputs, "outputs": outputs, "rows": m}
        here |= {"threads": threads, "bytes": inputs * outputs * BYTES[discipline]}
        here["errors"] = errors(calls, field, x)
        here |= limits(threads)
        torch.set_num_threads(threads)  # again: Numba's first parallel call changes it
        here["times"] = timing.in_turns(calls, seconds, settle=threads > 1)
        yield here


def count_copies(size) -> int:
    """Return how many copies of so many bytes exceed the cache."""
    return max(1, min(MOST_COPIES, math.ceil(LARGER_THAN_CACHE / size)))


def enter(discipline, weight, threads, copies, absent):
    """Let every contestant that is there prepare the weight; return its ``bind`` and weight."""
    field, pruned = {}, {}
    for name, pattern, contestant in DISCIPLINES[discipline]:
        if pattern not in pruned:
            pruned[pattern] = pattern(weight)
        try:
            with silence():
                field[name] = contestant(pruned[pattern], threads, copies), pruned[pattern]
        except (ImportError, OSError, ValueError) as error:  # not installed, or not this shape
            if name == OURS:
                raise
            absent[name] = f"{type(error).__name__}: {error}"
    return field


def errors(calls, field, x) -> dict[str, float]:
    """Return each contestant's mean error relative to the product in float64, on a few rows."""
    exact, few = {}, x[:ROWS_FOR_ERRORS].astype(np.float64)
    for _, weight in field.values():
        if id(weight) not in exact:
            exact[id(weight)] = few @ weight.T.astype(np.float64)
    return {
        name: relative_error(as_array(calls[name][0]())[:ROWS_FOR_ERRORS], exact[id(weight)])
        for name, (_, weight) in field.items()
    }


def as_array(y) -> np.ndarray:
    """Return what a contestant computed as float64."""
    y = y.float() if hasattr(y, "float") else y  # NumPy has no bfloat16
    return np.asarray(y.numpy() if hasattr(y, "numpy") else y, np.float64)


def relative_error(y, exact) -> float:
    """Return mean |y - exact| / mean |exact|."""
    return float(np.abs(y - exact).mean() / np.abs(exact).mean())
