"""What this machine can do at the very most: its two roofs, measured."""

import time

import numpy as np
from numba import njit, prange

from lightcourse.kernels import caching, jobs, paths

CACHE = caching.ready()
# About a millisecond on a processor of 3 GHz: very long beside what a call costs, and so short
# that of a hundred calls some are not disturbed.
STEPS = 200_000
STREAM_BYTES = 2**28  # far more than the caches of a laptop hold


def int8_peak(threads: int = 1) -> float:
    """Measure how many int8 operations a second the processor does at most.

    Parameters
    ----------
    threads : int

    Returns
    -------
    float
        Operations (a multiplication and an addition are two) per second, with all numbers
        in registers, by the instruction that :func:`lightcourse.kernels.path` uses. NaN on
        a path that has no peak: on the portable one the compiler chooses the instruction.
    """
    peak = paths.chosen().peak
    if peak is None:
        return float("nan")
    x, w = np.zeros((2, 64), np.int32)
    y = np.empty((threads, peak.products), np.int32)  # room enough: a sum is of many products
    job = jobs.peak(STEPS, x, w, y)
    seconds = _best(lambda: jobs.launch(peak.core, threads, threads, job), repeats=100)
    return 2 * peak.products * STEPS * threads / seconds


def stream_read(threads: int = 1) -> float:
    """Measure how many bytes a second can be read from memory, one after the other.

    Parameters
    ----------
    threads : int

    Returns
    -------
    float
        Bytes per second.
    """
    words, totals = np.ones(STREAM_BYTES // 8, np.int64), np.empty(threads, np.int64)
    read = _read if threads == 1 else _read_parallel
    return STREAM_BYTES / _best(lambda: read(words, totals))


def _best(function, repeats=7):
    """Return the shortest of several times: a limit is what nothing disturbed.

    Short calls need many: threads that were asleep are late for the first ones.
    """
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times[1:])


@njit(cache=CACHE, nogil=True)
def _add_words(words):
    """Add up eight streams side by side: one alone would wait for memory between its pages."""
    part = len(words) // 8
    total = np.int64(0)
    for i in range(part):
        for stream in range(8):
            total += words[stream * part + i]
    return total


@njit(cache=CACHE, nogil=True)
def _read(words, totals):
    totals[0] = _add_words(words)


@njit(cache=CACHE, nogil=True, parallel=True)
def _read_parallel(words, totals):
    for t in prange(len(totals)):
        first, last = len(words) * t // len(totals), len(words) * (t + 1) // len(totals)
        totals[t] = _add_words(words[first:last])
