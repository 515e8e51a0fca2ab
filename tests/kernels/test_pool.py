"""Each panel is computed once, whoever is late, asleep or not there any more."""

import ctypes
import os
import sys
import time

import numpy as np
import pytest
from numba import carray, config

from lightcourse.kernels import jobs, pool
from lightcourse.kernels.addresses import ints
from lightcourse.kernels.jobs import LENGTH, Slot
from tests.kernels.every_path import ask

pytestmark = [
    pytest.mark.alone,  # threads wait for each other, some without giving up their processor
    pytest.mark.skipif(config.DISABLE_JIT, reason="nothing is compiled"),
]
MOST = config.NUMBA_NUM_THREADS


def count(job, first, last):
    """Count how often each panel is computed."""
    job = carray(job, LENGTH)
    times = carray(ints(job[Slot.Y]), (job[Slot.ROWS],))
    for panel in range(first, last):
        times[panel] += 1


def shared(panels, threads):
    """Return how often each of so many panels was computed."""
    times, job = np.zeros(panels + 1, np.int32), np.zeros(LENGTH, np.int64)
    job[Slot.Y], job[Slot.ROWS] = times.ctypes.data, panels + 1
    pool.share(jobs.address(count), job, panels, threads)
    assert times[-1] == 0
    return times[:-1]


@pytest.mark.parametrize("threads", range(1, MOST + 1))
@pytest.mark.parametrize("panels", [0, 1, 2, 5, 6, 7, 12, 23, 24, 100, 1000])
def test_every_panel_is_computed_once(panels, threads):
    assert (shared(panels, threads) == 1).all()


def test_one_job_after_the_other_without_a_pause():
    """A worker that is late for a job must not take pieces of the next one for it."""
    draw = np.random.default_rng(0)
    for _ in range(5000):
        assert (shared(int(draw.integers(0, 40)), int(draw.integers(1, MOST + 1))) == 1).all()


def test_rounds_are_counted_anew_before_their_number_grows_too_large():
    assert (shared(48, MOST) == 1).all()
    pool._pool.board[pool.Place.ROUND] = pool.ROUNDS - 3
    for _ in range(6):
        assert (shared(48, MOST) == 1).all()
    assert pool._pool.board[pool.Place.ROUND] == 3


@pytest.mark.skipif(MOST < 2, reason="there is one thread")
def test_workers_sleep_after_a_while_and_wake_again():
    for _ in range(3):
        assert (shared(48, 2) == 1).all()
        asleep, end = False, time.monotonic() + 30
        while not asleep and time.monotonic() < end:
            time.sleep(0.01)
            asleep = pool._pool.board[pool.Place.AWAKE] == pool.ASLEEP
        assert asleep


def test_large_work_is_worth_waking_for_and_small_work_where_calls_follow(monkeypatch):
    monkeypatch.setattr(pool, "_last_call", 0.0)
    large = pool.WORTH_WAKING // 8
    assert not pool.is_worth_it(8, large - 1, 2)
    assert pool.is_worth_it(8, large, 2) and pool.is_worth_it(1, large, 2)
    assert not pool.is_worth_it(8, 2 * large, 4)  # three workers must be woken
    pool.note_end()
    assert pool.is_worth_it(1, 1, 2)


@pytest.mark.skipif(MOST < 2, reason="there is one thread")
def test_workers_sleep_and_wake_while_another_thread_holds_the_interpreters_lock():
    """A caller must never wait for a worker that waits for the interpreter."""
    before = sys.getswitchinterval()
    assert (shared(48, 2) == 1).all()
    state = pool._pool.board[pool.Place.AWAKE :].ctypes.data
    asleep = ctypes.c_int64.from_address(state)
    sys.setswitchinterval(100.0)  # nobody takes the lock from this thread
    try:
        for wanted in (pool.ASLEEP, pool.SERVING):
            if wanted == pool.SERVING:
                pool._pool.wake(2)
            end = time.monotonic() + 30
            while asleep.value != wanted and time.monotonic() < end:
                pass
            assert asleep.value == wanted
    finally:
        sys.setswitchinterval(before)


@pytest.mark.skipif(
    MOST < 2 or not hasattr(os, "sched_setaffinity"), reason="one thread, or no Linux"
)
def test_a_worker_that_wakes_leaves_the_callers_processor_to_the_caller():
    before = os.sched_getaffinity(0)
    assert (shared(48, 2) == 1).all()
    pool._pool.board[pool.Place.AWAKE] = 0  # whatever it does: it is told where to run
    assert (shared(48, 2) == 1).all()
    allowed = os.sched_getaffinity(pool._pool.threads[0].native_id)
    assert allowed < before if len(before) > 1 else allowed == before
    assert os.sched_getaffinity(0) == before


@pytest.mark.skipif(MOST < 2, reason="there is one thread")
def test_a_child_process_has_workers_of_its_own():
    code = """
import os
import numpy as np
from lightcourse import kernels, panels
from lightcourse.kernels import paths, pool
paths.LITTLE_WEIGHTS = pool.WORTH_WAKING = 0
kernels.set_threads(2)
x, weight = np.ones((64, 512), np.float32), panels.pack_w8(np.ones((160, 512), int))
right = lambda: np.allclose(kernels.linear_w8a8(x, weight, np.ones(160, np.float32)), 512)
assert right()
child = os.fork()
if not child:
    os._exit(0 if right() and right() else 1)
assert os.waitpid(child, 0)[1] == 0 and right()
"""
    answer = ask(code)
    assert answer.returncode == 0, answer.stderr
