"""Which kernels this machine runs, and on how many threads: one answer for the library."""

import contextlib
import ctypes
import functools
import os
import sys
import threading
from pathlib import Path

import numba
from llvmlite import binding

from lightcourse.kernels import neon, pool, table

# So few weights one thread reads sooner than two could share them: on a Xeon with AMX one row by
# 2^21 weights took 67 us on one thread and 27 on two, on one without AMX 76 and 33, and there by
# 2^20 weights 18 and 23. What work is little the path tells (``KernelPath.little``). A worker that
# was asleep may be late by ten times as much.
LITTLE_WEIGHTS = 2**20

_threads = 1
_sharing = threading.Lock()

# Numba shares loops out by TBB where it finds it, and else by OpenMP, which stalls for
# milliseconds on a busy machine. It does not find what pip has installed: show it.
with contextlib.suppress(OSError):
    ctypes.CDLL(str(Path(sys.prefix, "lib", "libtbb.so.12")), ctypes.RTLD_GLOBAL)


@functools.cache
def path() -> str:
    """Return the name of the path that kernels take, such as ``"vnni"`` or ``"portable"``.

    The first of :data:`lightcourse.kernels.table.PATHS` that this machine has, unless the
    environment variable ``LIGHTCOURSE_KERNELS`` names another one. Chosen once.

    Raises
    ------
    ValueError
        When the variable names a path that this machine has not.
    """
    wanted, here = os.environ.get("LIGHTCOURSE_KERNELS"), available()
    if wanted and wanted not in here:
        raise ValueError(f"LIGHTCOURSE_KERNELS is {wanted!r}; this machine has {', '.join(here)}")
    return wanted or here[0]


def available() -> list[str]:
    """Return the paths that this machine has, the fastest first.

    Numba may compile for another processor than this one (NUMBA_CPU_NAME, and
    NUMBA_CPU_FEATURES such as ``+avx2,+fma``), or not at all (NUMBA_DISABLE_JIT): then the
    answer is what it compiles for.
    """
    features = _features()
    here = [row for row in table.PATHS if row.needs <= features]
    return [row.name for row in here if _prepared(row.prepare)]


@functools.cache
def _prepared(prepare):
    """Prepare once: what a process was granted stays granted."""
    return prepare()


def chosen() -> table.KernelPath:
    """Return the row of the path that kernels take."""
    return next(row for row in table.PATHS if row.name == path())


def serving(kind: str) -> table.KernelPath:
    """Return the row that multiplies weights of a kind: the last one, where ours has no core."""
    row = chosen()
    return row if kind in row.cores else table.PATHS[-1]


def _features():
    if numba.config.DISABLE_JIT:
        return set()
    if numba.config.CPU_NAME is not None or numba.config.CPU_FEATURES is not None:
        named = (numba.config.CPU_FEATURES or "").split(",")
        return {feature[1:] for feature in named if feature.startswith("+")}
    try:
        found = binding.get_host_cpu_features()
    except RuntimeError:  # some ARM machines do not tell
        found = {}
    return {feature for feature, there in found.items() if there} | neon.features()


def threads() -> int:
    """Return the number of threads that kernels may use."""
    return _threads


def max_threads() -> int:
    """Return how many threads there are: Numba's own limit, NUMBA_NUM_THREADS."""
    return numba.config.NUMBA_NUM_THREADS


def set_threads(count: int) -> None:
    """Let every kernel use up to ``count`` threads; one is where the library starts.

    Raises
    ------
    ValueError
        When it is less than one, or more than :func:`max_threads`.
    """
    global _threads
    most = max_threads()
    if count not in range(1, most + 1):
        raise ValueError(f"count is {count}; a whole number from 1 to {most} is wanted")
    _threads = int(count)


def claim(rows: int, weights: int) -> int:
    """Return how many threads a product of so many rows and weights should use.

    One call at a time is shared. A call that comes meanwhile from another Python thread
    runs on that thread alone: the processor is busy already, and neither our own pool nor
    every threading layer of Numba's bears two callers. :func:`release` is told the answer
    when the product is done.
    """
    little = weights < LITTLE_WEIGHTS and rows * weights < chosen().little
    if _threads == 1 or little or not pool.is_worth_it(rows, weights, _threads):
        return 1
    return claim_all()


def claim_all() -> int:
    """Return how many threads there are to share work with, whatever its size, as :func:`claim`."""
    return _threads if _threads > 1 and _sharing.acquire(blocking=False) else 1


def release(threads: int) -> None:
    """Give back as many threads as :func:`claim` gave."""
    pool.note_end()
    if threads > 1:
        _sharing.release()


def _forget():
    """Start anew in a child process: a thread that shared at its birth is not there."""
    global _sharing
    _sharing = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
