"""What this machine can do at the very most: its two roofs, measured."""

import time

import numpy as np
from numba import njit, prange

from lightcourse.kernels import caching, paths, x86

CACHE = caching.ready()
STEPS = 200_000
PRODUCTS = 24 * 16 * 4  # a step multiplies 24 vectors of 16 sums of four products
STREAM_BYTES = 2**28  # far more than any cache holds


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
        the portable path, where the compiler chooses the instruction.
    """
    if paths.path() == "portable":
        return float("nan")
    core = {"vnni": x86.peak_vnni, "avx2": x86.peak_avx2}[paths.path()]
    x, w = np.zeros(64, np.int8), np.zeros(40, np.int32)
    y = np.empty((threads, 24, 16), np.int32)
    job = x86.peak_job(STEPS, x, w, y)
    seconds = _best(lambda: x86.run(core, threads, threads, job), repeats=100)
    return 2 * PRODUCTS * STEPS * threads / seconds


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
