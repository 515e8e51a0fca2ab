"""Threads of our own that share a job's panels: between calls they spin for a while, then sleep.

Numba's threads sleep as soon as a call is over, and to wake one takes longer than many products
do. Here a worker looks for the next job for about half a millisecond before it sleeps, as the
threads of other libraries do. A job is cut into pieces, and each thread, the caller's too, takes
the next one until none is left: who is late finds fewer, and nobody waits for who still wakes.

A worker never holds the interpreter's lock, not even to sleep and to wake. It would take the lock
while the caller is in a core, the caller would have to sleep until it got the lock back, and Linux
would wake the caller on the worker's processor.

All that threads tell each other stands on one *board* of 64-bit numbers. One caller at a time
may use it (:func:`lightcourse.kernels.paths.claim`)::

    caller                                   worker
    closes the old job, describes the new    looks at ROUND until it has changed
    opens it, and raises ROUND               reads the job, takes pieces while NEXT is this
    takes pieces, too                        round's, and counts each in DONE
    waits until DONE counts all of them
"""

import contextlib
import ctypes
import os
import platform
import threading
import time
from enum import IntEnum

import numpy as np
from llvmlite import ir
from numba import config, njit, types
from numba.extending import intrinsic

from lightcourse.kernels import caching
from lightcourse.kernels.writer import I32, I64, POINTER, Code

CACHE = caching.ready()
PIECES = 4  # for each thread: with fewer, all wait for one that is late
GRAIN = 12  # panels of a piece, or a multiple: tiles take two to four side by side
# Of the board, before a worker sleeps: about the time that follows, on a Xeon with AMX.
LOOKS = 20_000
AWAKE_FOR = 5e-4  # seconds
# Multiply-adds for each sleeping worker that is woken though no call came shortly before. After a
# pause this takes up to 40 us on a Xeon without AMX, 80 if only the second call does it: 8 rows by
# (768, 3072) took 173 us on one thread and 180 on two, the next call 116 and 91; 32 rows by it 536
# and 472, then 366 and 238. One row of x counts as eight: the weights must be read for it all the
# same.
WORTH_WAKING = 2**24
IS_X86 = platform.machine() in ("x86_64", "AMD64")
ASLEEP, CALLED, SERVING = range(3)  # what stands on the board of each worker
CLOSED = 2**31  # more pieces than there are
ROUNDS = 2**30  # then they are counted anew, for NEXT has 32 bits for them


class Place(IntEnum):
    """Places of the board, a cache line apart; from AWAKE on there is one number a worker."""

    ROUND, NEXT, DONE, CORE, JOB, PANELS, PIECE, WORKERS, AWAKE = range(0, 72, 8)


# --- one number, seen by all threads ---------------------------------------------------------


@intrinsic
def _look(context, board, place):
    """Read a number of the board."""

    def emit(context, builder, signature, arguments):
        pointer = _pointer(builder, *arguments)
        return builder.load_atomic(pointer, "seq_cst", 8)

    return types.int64(types.int64, types.int64), emit


@intrinsic
def _write(context, board, place, value):
    """Write a number to the board."""

    def emit(context, builder, signature, arguments):
        *where, value = arguments
        builder.store_atomic(value, _pointer(builder, *where), "seq_cst", 8)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), emit


@intrinsic
def _add(context, board, place, value):
    """Add to a number of the board."""

    def emit(context, builder, signature, arguments):
        *where, value = arguments
        builder.atomic_rmw("add", _pointer(builder, *where), value, "seq_cst")
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), emit


@intrinsic
def _swap(context, board, place, old, new):
    """Write a number if the old one still stands there, and tell whether it did."""

    def emit(context, builder, signature, arguments):
        *where, old, new = arguments
        pointer = _pointer(builder, *where)
        found = builder.cmpxchg(pointer, old, new, "seq_cst", "seq_cst")
        return builder.extract_value(found, 1)

    return types.boolean(*[types.int64] * 4), emit


def _pointer(builder, board, place):
    address = builder.add(board, builder.mul(place, I64(8)))
    return builder.inttoptr(address, ir.PointerType(I64))


@intrinsic
def _pause(context):
    """Let the other thread of this core go first, where there is such a thing."""

    def emit(context, builder, signature, arguments):
        if IS_X86:
            Code(builder).call("llvm.x86.sse2.pause", ir.VoidType())
        return context.get_dummy_value()

    return types.void(), emit


@intrinsic
def call(context, core, job, first, last):
    """Call the core at an address."""

    def emit(context, builder, signature, arguments):
        core, *rest = arguments
        kind = ir.FunctionType(ir.VoidType(), [POINTER, I64, I64])
        core = builder.inttoptr(core, ir.PointerType(kind))
        rest[0] = builder.inttoptr(rest[0], POINTER)
        builder.call(core, rest)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 4), emit


@intrinsic
def _wait_for(context, acquire, bell):
    """Sleep until a bell rings: a lock of Python's, whose function is at an address."""

    def emit(context, builder, signature, arguments):
        acquire, bell = arguments
        kind = ir.FunctionType(I32, [POINTER, I32])
        acquire = builder.inttoptr(acquire, ir.PointerType(kind))
        builder.call(acquire, [builder.inttoptr(bell, POINTER), I32(1)])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), emit


# --- what threads do --------------------------------------------------------------------------


@njit(cache=CACHE, nogil=True)
def _take_pieces(board, round):
    """Compute pieces of a round's job until none is left, or another round has begun."""
    core, job = _look(board, Place.CORE), _look(board, Place.JOB)
    panels, piece = _look(board, Place.PANELS), _look(board, Place.PIECE)
    while True:
        old = _look(board, Place.NEXT)
        first = (old - (round << 32)) * piece
        if old >> 32 != round or first >= panels:
            return
        if _swap(board, Place.NEXT, old, old + 1):
            call(core, job, first, min(first + piece, panels))
            _add(board, Place.DONE, 1)


@njit(cache=CACHE, nogil=True)
def _serve(board, number, round):
    """Help with each new round until none has come for a while; return the last one seen."""
    looks = 0
    _write(board, Place.AWAKE + number, SERVING)
    while True:
        now = _look(board, Place.ROUND)
        if now != round:
            round, looks = now, 0
            if number < _look(board, Place.WORKERS):
                _take_pieces(board, round)
        elif looks > LOOKS:
            _write(board, Place.AWAKE + number, ASLEEP)
            if _look(board, Place.ROUND) == round:
                return round
            _write(board, Place.AWAKE + number, SERVING)
        else:
            looks += 1
            _pause()


@njit(cache=CACHE, nogil=True)
def _work(board, number, acquire, bell):
    """Sleep until the bell rings, then serve; for ever, and without the interpreter's lock."""
    round = 0
    while True:
        _wait_for(acquire, bell)
        round = _serve(board.ctypes.data, number, round)


@njit(cache=CACHE)
def _any_asleep(board, workers):
    """Tell whether a worker must be woken."""
    for number in range(workers):
        if _look(board.ctypes.data, Place.AWAKE + number) == ASLEEP:
            return True
    return False


@njit(cache=CACHE, nogil=True)
def _share(board, core, job, panels, piece, workers):
    """Put a job on the board, help with it, and wait until all of it is done."""
    board, job = board.ctypes.data, job.ctypes.data
    round, pieces = (_look(board, Place.ROUND) + 1) % ROUNDS, -(-panels // piece)
    # Closed first: a worker that reads half of the old job and half of the new takes nothing.
    _write(board, Place.NEXT, round << 32 | CLOSED)
    _write(board, Place.CORE, core)
    _write(board, Place.JOB, job)
    _write(board, Place.PANELS, panels)
    _write(board, Place.PIECE, piece)
    _write(board, Place.WORKERS, workers)
    _write(board, Place.DONE, 0)
    _write(board, Place.NEXT, round << 32)
    _write(board, Place.ROUND, round)
    _take_pieces(board, round)
    while _look(board, Place.DONE) < pieces:
        _pause()


@njit(cache=CACHE, nogil=True)
def share_with(board, core, job, panels, workers):
    """Compute all panels of a job with so many workers, who are awake."""
    threads = workers + 1
    piece = max((panels + PIECES * threads - 1) // (PIECES * threads), 1)
    if panels >= GRAIN * threads:
        piece = (piece + GRAIN - 1) // GRAIN * GRAIN
    _share(board, core, job, panels, piece, workers)


class Pool:
    """The workers of this process.

    Parameters
    ----------
    most : int
        Threads at most, the caller's included.
    """

    def __init__(self, most):
        self.board = np.zeros(Place.AWAKE + most, np.int64)
        self.bells, self.threads, self.most = [], [], most
        self.allowed = []  # processors that each worker was told to run on

    def share(self, core, job, panels, threads):
        """Compute all panels of a job with so many threads; ``core`` is an address."""
        share_with(self.board, core, job, panels, self.wake(threads))

    def wake(self, threads):
        """Start the workers that are missing, and wake those that sleep; return how many help."""
        workers = min(threads, self.most) - 1
        while len(self.bells) < workers:
            self._start(len(self.bells))
        if _any_asleep(self.board, workers):
            for number in range(workers):
                self._wake(number)
        return workers

    def _wake(self, number):
        if self.board[Place.AWAKE + number] == ASLEEP:
            self.board[Place.AWAKE + number] = CALLED
            self._keep_away(number)
            ctypes.pythonapi.PyThread_release_lock(self.bells[number])

    def _start(self, number):
        self.bells.append(_bell())
        acquire = ctypes.cast(ctypes.pythonapi.PyThread_acquire_lock, ctypes.c_void_p).value
        name = f"lightcourse kernels {number + 1}"
        arguments = self.board, number, acquire, self.bells[number].value
        self.threads.append(threading.Thread(target=_work, args=arguments, name=name, daemon=True))
        self.threads[-1].start()
        self.allowed.append(None)

    def _keep_away(self, number):
        """Let a worker that is about to wake run on any processor but the caller's.

        Linux may put it there, in front of a caller that waits for it, and let them take turns for
        a millisecond or more: 32 rows by (2048, 8192), after a pause, took two threads 1.5 ms on a
        Xeon with AMX, and 0.45 ms kept apart. One thread takes 1.0.
        """
        with contextlib.suppress(AttributeError, OSError):  # no Linux, or a processor that is gone
            others = os.sched_getaffinity(0) - {ctypes.pythonapi.sched_getcpu()}
            if others and others != self.allowed[number]:
                os.sched_setaffinity(self.threads[number].native_id, others)
                self.allowed[number] = others


def _bell():
    """Return a lock that is taken already; it is never freed, for a thread may wait for it."""
    allocate = ctypes.pythonapi.PyThread_allocate_lock
    allocate.restype = ctypes.c_void_p
    bell = ctypes.c_void_p(allocate())
    ctypes.pythonapi.PyThread_acquire_lock(bell, 1)
    return bell


_pool, _last_call = None, 0.0


def is_worth_it(rows, weights, threads) -> bool:
    """Tell whether a product is worth waking for, or follows another one, so that more may come.

    Parameters
    ----------
    rows, weights, threads : int
    """
    recent = time.perf_counter() - _last_call < AWAKE_FOR
    return recent or max(rows, 8) * weights >= WORTH_WAKING * (threads - 1)


def note_end() -> None:
    """Note that a product is done, shared or not: the next one may come soon."""
    global _last_call
    _last_call = time.perf_counter()


def share(core, job, panels, threads) -> None:
    """Compute all panels of a job with several threads: one caller at a time."""
    _here().share(core, job, panels, threads)


def ready(threads) -> tuple[np.ndarray, int]:
    """Return the board, and how many workers are awake now to help with jobs on it."""
    here = _here()
    return here.board, here.wake(threads)


def _here():
    global _pool
    if _pool is None:
        _pool = Pool(config.NUMBA_NUM_THREADS)
    return _pool


def _forget():
    """Start anew in a child process, which has none of its parent's workers."""
    global _pool
    _pool = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
