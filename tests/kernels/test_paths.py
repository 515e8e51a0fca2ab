"""Which path runs, the table that says so, and how threads share the work."""

import dataclasses
import functools
import inspect
import itertools
import threading
import time

import numpy as np
import pytest
from numba import config

from lightcourse import doctor, kernels, panels, reference
from lightcourse.kernels import jobs, limits, linear, paths, portable, table, trials
from tests.kernels.every_path import ask, integers, on_every_path, rows, use

Q, ONES = panels.pack_w8(np.ones((5, 8), np.int8)), np.ones(5, np.float32)


def here():
    """Return the rows of the paths that this machine has."""
    return [row for row in table.PATHS if row.name in paths.available()]


# --- the table ------------------------------------------------------------------------------


def test_the_last_path_takes_whatever_the_others_leave():
    last = table.PATHS[-1]
    assert set(last.cores) == set(jobs.DESCRIBE) and not last.needs and last.prepare()
    for row in table.PATHS:
        assert set(row.cores) <= set(last.cores)


@pytest.fixture
def add(monkeypatch):
    """A function that puts a toy ahead of the table: the plain path by another name."""

    def add(**changes):
        row = dataclasses.replace(table.PATHS[-1], name="toy", **changes)
        monkeypatch.setattr(table, "PATHS", (row, *table.PATHS))
        return row

    monkeypatch.delenv("LIGHTCOURSE_KERNELS", raising=False)
    paths.path.cache_clear()
    yield add
    paths.path.cache_clear()


def test_a_new_row_is_a_new_path_everywhere(add):
    calls, before = [], kernels.available()

    def multiply(kind, *rest):
        calls.append((kernels.path(), kind))
        portable.multiply(kind, *rest)

    add(multiply=multiply)
    assert kernels.available() == ["toy", *before]
    (finding,) = doctor.check_kernels()
    assert finding.mark == ("!" if config.DISABLE_JIT else "✓")
    assert config.DISABLE_JIT or finding.detail.startswith("path toy, equal to NumPy")
    assert set(calls) == {("toy", kind) for kind in table.PATHS[-1].cores}
    seen = []
    on_every_path(lambda: seen.append(paths.path()))()
    assert dict.fromkeys(seen) == dict.fromkeys(["toy", *before])
    assert [row.name for row in here()] == ["toy", *before]


def test_the_doctor_finds_a_new_path_that_is_wrong(add):
    add(multiply=lambda kind, core, threads, operands: operands.y.fill(1))
    (finding,) = doctor.check_kernels()
    assert finding.mark == "✗" and finding.detail.startswith("toy: ")
    for name in ("linear_w8a8", "linear_w8a8_grouped", "linear_w4a8", "linear_sparse"):
        assert name in finding.detail


def idle(job, first, last):
    """Do nothing: a core like any other."""


@pytest.mark.skipif(config.DISABLE_JIT, reason="nothing is compiled")
def test_the_peak_of_a_new_path_is_measured(add, monkeypatch):
    row = add(peak=table.Peak(idle, products=3))
    monkeypatch.setattr(limits, "_best", lambda function, repeats: function() or 2.0)
    assert limits.int8_peak() == 2 * 3 * limits.STEPS / 2
    monkeypatch.setattr(table, "PATHS", (dataclasses.replace(row, peak=None), *table.PATHS[1:]))
    assert np.isnan(limits.int8_peak())


@pytest.mark.skipif(config.DISABLE_JIT, reason="nothing is compiled")
def test_a_peak_is_above_what_kernels_reach_and_falls_from_path_to_path():
    """It would not be, if the compiler could take a multiplication out of the loop."""
    rng = np.random.default_rng(0)
    x, q = rows(rng, 128, 512), panels.pack_w8(integers(rng, 768, 512))
    peaks = []
    for row in here():
        if row.peak:
            with use(row.name, 1):
                call = functools.partial(kernels.linear_w8a8, x, q, np.ones(768))
                reached = 2 * 128 * 768 * 512 / limits._best(call, 50)
                peaks.append(limits.int8_peak())
            assert reached < 1.1 * peaks[-1]
    # Some processors multiply 64 bytes in the time of twice 32: those two paths are even there.
    assert all(later < 1.1 * before for before, later in itertools.pairwise(peaks))


def test_what_a_path_has_no_core_for_the_last_one_takes(add):
    add(cores={}, multiply=None)
    assert trials.wrong() == []


@pytest.mark.parametrize("granted", [True, False])
def test_a_path_is_prepared_once_and_only_there_if_that_succeeds(add, granted):
    asked, before = [], kernels.available()

    def prepare():
        asked.append("may I?")
        return granted

    add(prepare=prepare)
    for _ in range(3):
        assert kernels.available() == ["toy"] * granted + before
        assert kernels.path() == ("toy" if granted else before[0])
    assert asked == ["may I?"]


def test_nothing_is_prepared_on_a_processor_that_cannot_run_the_path(add):
    before = kernels.available()
    add(needs=frozenset({"a feature that no processor has"}), prepare=pytest.fail)
    assert kernels.available() == before


def test_every_kernel_is_tried_with_its_twins_arguments():
    assert set(trials.arguments()) == set(trials.twins()) >= {"quantize_rows", "linear_sparse"}
    assert trials.wrong() == []
    for name in trials.twins():
        ours, numpys = (inspect.signature(getattr(m, name)) for m in (kernels, reference))
        assert [*ours.parameters] == [*numpys.parameters]


# --- the path of this machine ---------------------------------------------------------------


@pytest.mark.skipif(config.DISABLE_JIT, reason="only the plain path is there")
def test_a_variable_chooses_the_path():
    code = "from lightcourse import kernels; print(kernels.path())"
    for path in paths.available():
        assert ask(code, LIGHTCOURSE_KERNELS=path).stdout.strip() == path
    answer = ask(code, LIGHTCOURSE_KERNELS="abacus")
    assert "LIGHTCOURSE_KERNELS is 'abacus'; this machine has" in answer.stderr
    # A processor of which Numba is told nothing gets the plain kernels.
    assert ask(code, NUMBA_CPU_NAME="generic", NUMBA_CPU_FEATURES="").stdout.strip() == "portable"


@pytest.mark.parametrize("row", [row for row in here() if row.needs], ids=lambda row: row.name)
def test_a_path_compiles_for_a_processor_that_has_no_more_than_it_needs(row):
    code = f"""
from lightcourse import kernels
from lightcourse.kernels import trials
assert kernels.path() == {row.name!r}
assert trials.wrong() == []
"""
    features = ",".join("+" + feature for feature in sorted(row.needs))
    answer = ask(code, NUMBA_CPU_NAME="x86-64", NUMBA_CPU_FEATURES=features)
    assert answer.returncode == 0, answer.stderr


# --- threads and processes --------------------------------------------------------------------


@pytest.mark.skipif(config.DISABLE_JIT, reason="nothing is compiled")
@pytest.mark.parametrize("first, then", [(1, 2), (2, 1)])
def test_kernels_from_the_cache_run_in_any_order(first, then):
    """A fresh process must find threads started, and a core's code kept, whatever came first."""
    code = f"""
import gc
import numpy as np
from lightcourse import kernels, panels
from lightcourse.kernels import paths, pool
paths.LITTLE_WEIGHTS = pool.WORTH_WAKING = 0
x, one = np.ones((4, 32), np.float32), np.ones(16, np.float32)
w8, w4 = panels.pack_w8(np.ones((16, 32), int)), panels.pack_w4(np.ones((16, 32), int))
for threads in {first, then}:
    kernels.set_threads(min(threads, kernels.max_threads()))
    assert kernels.linear_w4a8(x, w4, np.ones((1, 1, 16), np.float16)).min() > 31
    assert kernels.linear_w8a8(x, w8, one).min() > 31
    gc.collect()
"""
    for _ in range(2):  # what the first process compiled, the second finds in the cache
        answer = ask(code)
        assert answer.returncode == 0, answer.stderr


@pytest.mark.parametrize("count", [0, -1, 1.5, 10_000])
def test_impossible_thread_counts_are_refused(count):
    with pytest.raises(ValueError, match=f"count is {count}"):
        kernels.set_threads(count)


@pytest.mark.skipif(
    config.DISABLE_JIT or config.NUMBA_NUM_THREADS < 2, reason="there is one thread"
)
@pytest.mark.parametrize(
    "kernel", ["linear_w8a8", "linear_w8a8_grouped", "linear_w4a8", "linear_sparse"]
)
@pytest.mark.parametrize("path", paths.available())
def test_the_parallel_kernels_are_parallel(path, kernel):
    """Other threads than ours burn processor time; on one thread they never do."""
    rng = np.random.default_rng(0)
    x, q, scale = rows(rng, 256, 1024), integers(rng, 2048, 1024), np.ones(2048, np.float32)
    halves = panels.pack_groups(scale[:, None].astype("f2"))
    arguments = {
        "linear_w8a8": (panels.pack_w8(q), scale),
        "linear_w8a8_grouped": (panels.pack_w8(q), halves),
        "linear_w4a8": (panels.pack_w4(q >> 4), halves),
        "linear_sparse": (panels.pack_sparse(q), scale),
    }[kernel]
    shares = {}
    for threads in (1, 2):
        with use(path, threads):
            call = functools.partial(getattr(kernels, kernel), x, *arguments)
            call()
            shares[threads] = time_of_others(call)
    assert shares[1] < 0.005 < 0.02 < shares[2]


def time_of_others(function):
    """Return the processor time of all threads but this one while ``function`` runs.

    Repeated until it shows or two seconds are over: on a busy machine the other threads
    may be late for many calls.
    """
    start, first = time.perf_counter(), time.process_time() - time.thread_time()
    others = 0
    while others < 0.02 and time.perf_counter() < start + 2:
        function()
        others = time.process_time() - time.thread_time() - first
    return others


@on_every_path
def test_calls_from_several_python_threads_do_not_disturb_each_other():
    rng = np.random.default_rng(0)
    count, outputs, inputs = (2, 20, 8) if config.DISABLE_JIT else (9, 640, 256)
    jobs = [
        (rows(rng, count, inputs), panels.pack_w8(integers(rng, outputs, inputs))) for _ in range(4)
    ]
    scale = np.ones(outputs, np.float32)
    want = [kernels.linear_w8a8(x, q, scale) for x, q in jobs]
    got = [[] for _ in jobs]

    def work(i):
        for _ in range(20):
            got[i].append(kernels.linear_w8a8(*jobs[i], scale))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(jobs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for results, wanted in zip(got, want, strict=True):
        assert len(results) == 20
        assert all(np.array_equal(result, wanted, equal_nan=True) for result in results)


def test_threads_are_given_back_after_an_error(monkeypatch):
    def fail(*arguments):
        raise MemoryError

    most = min(2, config.NUMBA_NUM_THREADS)
    with use("portable", most):
        monkeypatch.setattr(linear.rows, "quantize", fail)
        with pytest.raises(MemoryError):
            kernels.linear_w8a8(np.zeros((1, 8)), Q, ONES)
        assert paths.claim(1, 1) == most
        paths.release(most)


@pytest.mark.skipif(config.DISABLE_JIT, reason="nothing is compiled")
@pytest.mark.parametrize("row", table.PATHS, ids=lambda row: row.name)
def test_every_path_describes_products_of_every_kind_for_a_program(row):
    """Described, not run: also what this machine has not."""
    q, sums = np.zeros((4, 64), np.int8), np.zeros((4, 2), np.int32)
    scale, bias, y = np.ones(4, np.float32), np.zeros(32, np.float32), np.empty((4, 32), np.float32)
    eight, four = np.zeros((2, 16, 16, 4), np.uint8), np.zeros((2, 8, 16, 4), np.uint8)
    halves, points = np.zeros((2, 2, 16), np.uint16), np.zeros((2, 2, 16), np.uint8)
    kinds = {"w8": (eight, bias), "g8": (eight, halves), "w4": (four, halves)}
    kinds["z4"] = four, halves, points
    for kind, weights in kinds.items():
        operands = jobs.Operands(q, sums, scale, weights, bias, y)
        call = row.described(kind, row.cores[kind], operands)
        assert callable(call.core) and call.job[jobs.Slot.BLOCKS] > 0
        assert (call.many is None) == (call.fewest == jobs.NEVER)
