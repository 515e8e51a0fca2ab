"""One cell of the table: a weight's shape, a number of rows, a number of threads."""

import gc
import math

import numpy as np
import torch

from benchmarks import machine, timing
from benchmarks.contestants import BYTES, DISCIPLINES
from benchmarks.silence import silence
from benchmarks.workers import Failed

SHAPES = [(384, 1536), (768, 3072), (2048, 8192), (4096, 4096)]  # inputs, outputs
ROWS = [1, 8, 32, 128, 512]
LARGER_THAN_CACHE = 2 * 32 * 2**20  # bytes: twice the last cache
MOST_COPIES = 256
ROWS_FOR_ERRORS = 32
WRONG = 0.5  # from this error on an answer is no rounding of the right one


def measure(crew, discipline, shape, rows, threads, seconds):
    """Yield a record for each number of rows; who failed in one is in it with the reason.

    Parameters
    ----------
    crew : workers.Crew
        A worker for each contestant, and one that measures the machine's limits.
    discipline : str
        A key of ``DISCIPLINES``.
    shape : (int, int)
        Inputs and outputs.
    rows : list of int
    threads : int
    seconds : float
        For the timing of one record, without what prepares it.
    """
    inputs, outputs = shape
    copies = count_copies(inputs * outputs * BYTES[discipline]) if 1 in rows else 1
    field = Field(crew, DISCIPLINES[discipline], shape, threads, copies)
    for m in rows:
        here = {"discipline": discipline, "inputs": inputs, "outputs": outputs, "rows": m}
        here |= {"threads": threads, "bytes": inputs * outputs * BYTES[discipline]}
        yield here | field.compete(m, seconds)


class Field:
    """Those who compete over one weight, and who of them is ready or out.

    Who has crashed gets a new process for the next number of rows. Who was too slow, is not
    installed or refuses the shape is out: it would be so again.
    """

    def __init__(self, crew, contestants, shape, threads, copies):
        self.crew, self.shape, self.threads, self.copies = crew, shape, threads, copies
        self.contestants = {name: rest for name, *rest in contestants}
        self.ready, self.out = set(), {}

    def compete(self, rows, seconds) -> dict:
        """Return errors, times, the machine's limits, and who failed and why."""
        failed, bound = dict(self.out), {}
        for name in [name for name in self.contestants if name not in self.out]:
            try:
                bound[name] = self._bind(name, rows)
            except Failed as failure:
                failed[name] = self._note(name, failure)
        limits = _limits(self.crew, self.threads)
        turns = {name: lambda name=name: self.crew.ask(name, take_a_turn) for name in bound}
        estimates = {name: estimate for name, (_, estimate) in bound.items()}
        times, stopped = timing.in_turns(turns, estimates, seconds)
        failed |= {name: self._note(name, failure) for name, failure in stopped.items()}
        errors = {name: error for name, (error, _) in bound.items() if name in times}
        return {"errors": errors, **limits, "times": times, "failed": failed}

    def _bind(self, name, rows):
        if name not in self.ready:
            place = self.shape, self.threads, self.copies
            self.crew.ask(name, prepare, *self.contestants[name], *place)
            self.ready.add(name)
        copies = self.copies if rows == 1 else 1
        error, estimate = self.crew.ask(name, bind, rows, copies, self.threads)
        if not error < WRONG:
            raise Failed(f"wrong: its error is {error:.2g} of what is right")
        return error, estimate

    def _note(self, name, failure):
        self.ready.discard(name)
        if not failure.crashed:
            self.out[name] = failure.reason
        return failure.reason


def count_copies(size) -> int:
    """Return how many copies of so many bytes exceed the cache."""
    return max(1, min(MOST_COPIES, math.ceil(LARGER_THAN_CACHE / size)))


def _limits(crew, threads):
    try:
        return crew.ask("limits", limits, threads)
    except Failed:
        return {"peak": math.nan, "stream": math.nan}


# --- what the workers do -------------------------------------------------------------------


def limits(state, threads):
    """Measure what the machine reaches now."""
    found = machine.limits(threads)
    timing.wait_until_quiet()
    return found


def prepare(state, pattern, contestant, shape, threads, copies):
    """Let a contestant prepare the weight, in which the pattern has left zeros."""
    state.clear()  # the last weight's memory, before there is a new one
    gc.collect()
    inputs, outputs = shape
    weight = pattern(np.random.default_rng(0).standard_normal((outputs, inputs), np.float32))
    with silence():
        state["bind"] = contestant(weight, threads, copies)
    state["weight"] = weight


def bind(state, rows, copies, threads):
    """Make the calls for so many rows; return the error and the seconds of one call."""
    weight = state["weight"]
    x = np.random.default_rng(1).standard_normal((rows, weight.shape[1]), np.float32)
    calls = state["bind"](x)[:copies]
    few = x[:ROWS_FOR_ERRORS].astype(np.float64)
    found = relative_error(as_array(calls[0]())[:ROWS_FOR_ERRORS], few @ weight.T)
    torch.set_num_threads(threads)  # again: Numba's first parallel call changes it
    state["contestant"] = timing.Contestant(calls, settle=threads > 1)
    return found, state["contestant"].estimate


def take_a_turn(state):
    """Return the seconds of one turn's calls."""
    return state["contestant"].take_a_turn()


def as_array(y) -> np.ndarray:
    """Return what a contestant computed as float64."""
    y = y.float() if hasattr(y, "float") else y  # NumPy has no bfloat16
    return np.asarray(y.numpy() if hasattr(y, "numpy") else y, np.float64)


def relative_error(y, exact) -> float:
    """Return mean |y - exact| / mean |exact|."""
    return float(np.abs(y - exact).mean() / np.abs(exact).mean())
