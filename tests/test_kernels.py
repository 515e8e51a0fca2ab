"""Kernels against their NumPy twins, on every path that this machine has.

Run a second time with NUMBA_DISABLE_JIT=1, when only the plain path is there.
"""

import functools
import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numba import config

from lightcourse import kernels, panels, reference
from lightcourse.kernels import linear, paths, portable

SIDE = 9 if config.DISABLE_JIT else 67
FEW = settings(max_examples=10 if config.DISABLE_JIT else 60)
EPSILON = 2.0**-24
floats = st.floats(width=32, allow_nan=True, allow_infinity=True)
seeds = st.integers(0, 2**32 - 1)
sides = st.integers(0, SIDE)
matrices = hnp.arrays(
    np.float32, hnp.array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=SIDE), elements=floats
)


def on_every_path(test):
    """Run a test on each path, on one thread and on two."""

    @functools.wraps(test)
    def run(*arguments, **named):
        for path in paths.available():
            for threads in range(1, min(2, config.NUMBA_NUM_THREADS) + 1):
                with use(path, threads):
                    test(*arguments, **named)

    return run


class use:
    """Run kernels on one path and so many threads, however small the work."""

    def __init__(self, path, threads):
        self.path, self.threads, self.patch = path, threads, pytest.MonkeyPatch()

    def __enter__(self):
        self.patch.setattr(paths, "path", lambda: self.path)
        self.patch.setattr(paths, "LITTLE_WORK", 0)
        kernels.set_threads(self.threads)

    def __exit__(self, *error):
        self.patch.undo()
        kernels.set_threads(1)


def integers(rng, outputs, inputs, low=-127, high=127):
    return rng.integers(low, high + 1, (outputs, inputs)).astype(np.int8)


def rows(rng, count, inputs):
    """Rows of very different sizes, a few with a value that is no number."""
    x = rng.standard_normal((count, inputs)) * 10.0 ** rng.integers(-6, 6, (count, 1))
    for bad in (np.inf, np.nan):
        x[rng.random(count) < 0.05, inputs // 2 : inputs // 2 + 1] = bad
    return x.astype(np.float32)


def assert_close(got, want, terms, count=4):
    """Compare within the budget: ``count`` roundings of float32, relative to the terms."""
    assert got.dtype == np.float32 and got.shape == want.shape
    np.testing.assert_array_equal(np.isnan(got), np.isnan(want))
    close = np.abs(got - want) <= count * EPSILON * terms + 1e-37
    assert (close | np.isnan(want)).all()


# --- quantize_rows --------------------------------------------------------------------------


@given(matrices)
def test_quantize_rows_equals_its_reference_bit_for_bit(x):
    q, scale = kernels.quantize_rows(x)
    expected_q, expected_scale = reference.quantize_rows(x)
    np.testing.assert_array_equal(q, expected_q)
    np.testing.assert_array_equal(scale, expected_scale)
    assert q.dtype == np.int8 and scale.dtype == np.float32


@given(matrices)
def test_quantize_rows_reads_views_as_it_reads_copies(x):
    for view in (x.T, x[::-1, ::2]):
        for got, want in zip(
            kernels.quantize_rows(view), kernels.quantize_rows(view.copy()), strict=True
        ):
            np.testing.assert_array_equal(got, want)


@given(hnp.arrays(np.float32, (3, 40), elements=st.floats(-1e6, 1e6, width=32)))
def test_rounding_is_off_by_half_a_step_at_most(x):
    q, scale = kernels.quantize_rows(x)
    error = np.abs(q * scale[:, None].astype(np.float64) - x)
    bound = np.maximum(scale[:, None] * (0.5 + 1e-4), 1e-36)
    assert (error <= bound).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_row_that_is_not_finite_has_no_scale(bad):
    x = np.array([[bad, -2.0, 1.0], [-2.0, 1.0, 0.0], [1.0, 0.0, bad]], np.float32)
    for module in (kernels, reference):
        q, scale = module.quantize_rows(x)
        assert q.tolist() == [[0, 0, 0], [-127, 64, 0], [0, 0, 0]]
        assert np.isnan(scale).tolist() == [True, False, True]


# NaN of either sign and both kinds, and infinity.
NOT_FINITE = np.array(
    [0x7FC00000, 0xFFC00001, 0x7F800001, 0xFF800001, 0x7F800000, 0xFF800000], np.uint32
).view(np.float32)


@FEW
@given(st.integers(1, 20), st.integers(1, SIDE), st.integers(1, SIDE), seeds)
@on_every_path
def test_what_is_not_finite_spoils_its_row_and_no_other(count, inputs, outputs, seed):
    """Row by row NaN on every path, wherever it stands; other rows bit for bit as without it."""
    rng = np.random.default_rng(seed)
    clean = rng.standard_normal((min(count, SIDE), inputs)).astype(np.float32)
    x, spoilt = clean.copy(), rng.random(len(clean)) < 0.4
    x[spoilt, rng.integers(0, inputs, spoilt.sum())] = rng.choice(NOT_FINITE, spoilt.sum())
    for name, rest in products(rng, outputs, inputs).items():
        kernel, twin = getattr(kernels, name), getattr(reference, name)
        got, want = kernel(x, *rest), kernel(clean, *rest)
        assert np.isnan(got[spoilt]).all() and np.isfinite(got[~spoilt]).all()
        np.testing.assert_array_equal(got[~spoilt], want[~spoilt])
        np.testing.assert_array_equal(np.isnan(twin(x, *rest)), np.isnan(got))


def products(rng, outputs, inputs):
    """Return the arguments after x of each product, and of each form of weights."""
    q, scale = integers(rng, outputs, inputs), rng.random(outputs, np.float32)
    half = panels.pack_groups(rng.random((outputs, 1)).astype(np.float16))
    points = rng.integers(0, 16, half.shape).astype(np.uint8)
    return {
        "linear_w8a8": (panels.pack_w8(q), scale, scale),
        "linear_w4a8": (panels.pack_w4(q >> 4), half, points, scale),
        "linear_sparse": (panels.pack_sparse(np.where(q > 0, q, 0)), scale, None),
    }


# --- packing --------------------------------------------------------------------------------


@given(sides, sides, seeds)
def test_packing_is_undone_exactly(outputs, inputs, seed):
    q = integers(np.random.default_rng(seed), outputs, inputs, -128)
    assert np.array_equal(panels.unpack_w8(panels.pack_w8(q), outputs, inputs), q)
    assert np.array_equal(panels.unpack_w4(panels.pack_w4(q >> 4), outputs, inputs), q >> 4)
    holes = np.where(q % 3 == 0, q, 0)
    assert np.array_equal(panels.unpack_sparse(panels.pack_sparse(holes), outputs), holes)
    assert np.array_equal(panels.unpack_groups(panels.pack_groups(q), outputs), q)


def test_packed_bytes_are_what_the_format_promises():
    q = integers(np.random.default_rng(0), 32, 64, 1, 7)
    assert panels.pack_w8(q).nbytes == 32 * 64
    assert panels.pack_w4(q).nbytes == 32 * 64 // 2
    q[:16] = 0  # a panel without a single block
    assert len(panels.pack_sparse(q).masks) == 16


@pytest.mark.parametrize("pack, wrong", [(panels.pack_w8, 128), (panels.pack_w4, 8)])
def test_what_does_not_fit_is_not_packed(pack, wrong):
    with pytest.raises(ValueError, match=f"q spans 0..{wrong}"):
        pack(np.array([[0, wrong]]))
    with pytest.raises(ValueError, match="a matrix of integers is wanted"):
        pack(np.array([[0.5]]))


# --- products -------------------------------------------------------------------------------


@FEW
@given(st.integers(0, 40), sides, sides, seeds)
@on_every_path
def test_linear_w8a8_equals_its_reference(count, inputs, outputs, seed):
    rng = np.random.default_rng(seed)
    x, q = rows(rng, count % (SIDE + 1), inputs), integers(rng, outputs, inputs, -128)
    scale, bias = rng.random((2, outputs), np.float32)
    qweight = panels.pack_w8(q)
    want = reference.linear_w8a8(x, qweight, scale, bias)
    assert_close(kernels.linear_w8a8(x, qweight, scale, bias), want, np.abs(want - bias) + bias)
    got = kernels.linear_w8a8(x[::-1].T.copy().T, qweight, scale)  # as Fortran stores it
    plain = reference.linear_w8a8(x[::-1], qweight, scale)
    assert_close(got, plain, np.abs(plain))


@FEW
@given(st.integers(0, 20), st.integers(1, SIDE), sides, st.integers(1, 3), st.booleans(), seeds)
@on_every_path
def test_linear_w4a8_equals_its_reference(count, inputs, outputs, groups, asymmetric, seed):
    rng = np.random.default_rng(seed)
    inputs = inputs if groups == 1 else 32 * groups
    x, q = rows(rng, count % (SIDE + 1), inputs), integers(rng, outputs, inputs, -8, 7)
    scale = panels.pack_groups(rng.random((outputs, groups)).astype(np.float16))
    points = rng.integers(0, 16, scale.shape).astype(np.uint8) if asymmetric else None
    bias = rng.random(outputs, np.float32)
    arguments = x, panels.pack_w4(q), scale, points, bias
    want = reference.linear_w4a8(*arguments)
    x_scale = reference.quantize_rows(x)[1][:, None]
    terms = np.abs(want) + bias + x_scale * 127 * 15 * inputs
    assert_close(kernels.linear_w4a8(*arguments), want, terms, groups + 4)


@FEW
@given(st.integers(0, 20), sides, sides, st.floats(0, 1), seeds)
@on_every_path
def test_linear_sparse_equals_its_reference(count, inputs, outputs, sparsity, seed):
    rng = np.random.default_rng(seed)
    x, q = rows(rng, count % (SIDE + 1), inputs), integers(rng, outputs, inputs, -128)
    weight = panels.pack_sparse(np.where(rng.random(q.shape) < sparsity, 0, q))
    scale, bias = rng.random((2, outputs), np.float32)
    want = reference.linear_sparse(x, weight, scale, bias)
    assert_close(kernels.linear_sparse(x, weight, scale, bias), want, np.abs(want - bias) + bias)


@pytest.mark.skipif(config.DISABLE_JIT, reason="too large for Python's own loops")
@on_every_path
def test_large_sums_and_many_rows_are_exact():
    """Every product as large as can be: 16 bits would not hold the sum of two."""
    rng = np.random.default_rng(0)
    for count, inputs, outputs in [(1, 4096, 16), (8, 768, 80), (37, 2049, 65), (64, 65_536, 17)]:
        x = np.ones((count, inputs), np.float32) * rng.choice([-1, 1], (count, 1))
        q = np.full((outputs, inputs), 127, np.int8)
        scale = np.full(outputs, 2.0**-7, np.float32)
        want = x[:, :1] * inputs * 127 / 128 * np.ones(outputs)
        got = kernels.linear_w8a8(x, panels.pack_w8(q), scale)
        np.testing.assert_allclose(got, want, rtol=1e-6)
        half = panels.pack_groups(np.full((outputs, 1), 2.0**-3, np.float16))
        got = kernels.linear_w4a8(x, panels.pack_w4(q >> 4), half, outputs=outputs)
        np.testing.assert_allclose(got, x[:, :1] * inputs * 7 / 8 * np.ones(outputs), rtol=1e-6)


@FEW
@given(matrices, seeds)
@on_every_path
def test_embedding_equals_its_reference_bit_for_bit(scales, seed):
    rng = np.random.default_rng(seed)
    table = integers(rng, max(scales.size, 1), 5)
    scale = np.resize(np.append(scales.ravel(), np.float32(1)), len(table))
    ids = rng.integers(0, len(table), (2, 3))
    got = kernels.embedding_w8(ids, table, scale)
    np.testing.assert_array_equal(got, reference.embedding_w8(ids, table, scale))
    assert got.shape == (2, 3, 5)


def test_arguments_are_not_changed():
    rng = np.random.default_rng(0)
    arrays = rows(rng, 3, 8), panels.pack_w8(integers(rng, 5, 8)), *rng.random((2, 5), np.float32)
    copies = [array.copy() for array in arrays]
    kernels.linear_w8a8(*arrays)
    for array, copy in zip(arrays, copies, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_torch_tensors_are_taken_as_they_are():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    arrays = rows(rng, 3, 8), panels.pack_w8(integers(rng, 5, 8)), *rng.random((2, 5), np.float32)
    tensors = [torch.from_numpy(array) for array in arrays]
    np.testing.assert_array_equal(kernels.linear_w8a8(*tensors), kernels.linear_w8a8(*arrays))


# --- bad input ------------------------------------------------------------------------------

Q = panels.pack_w8(np.ones((5, 8), np.int8))
HALF = np.ones((1, 1, 16), np.float16)
Q4 = panels.pack_w4(np.ones((5, 32), np.int8))
SPARSE = panels.pack_sparse(np.ones((5, 8), np.int8))
ONES = np.ones(5, np.float32)


@pytest.mark.parametrize("module", [kernels, reference])
@pytest.mark.parametrize(
    "name, arguments, message",
    [
        ("quantize_rows", [np.zeros(3)], r"x has shape \(3,\)"),
        ("linear_w8a8", [np.zeros((2, 9)), Q, ONES], "x has 9 columns; the weight has 5 to 8"),
        ("linear_w8a8", [np.zeros((2, 8)), Q[..., 0], ONES], "qweight is uint8 of shape"),
        ("linear_w8a8", [np.zeros((2, 8)), Q, np.ones(40)], "outputs is 40"),
        ("linear_w8a8", [np.zeros((2, 8)), Q, ONES, np.ones(3)], r"bias has shape \(3,\)"),
        ("linear_w4a8", [np.zeros((2, 33)), Q4, HALF], "x has 33 columns"),
        ("linear_w4a8", [np.zeros((2, 32)), Q4, HALF.astype("f")], "scale is float32"),
        ("linear_w4a8", [np.zeros((2, 32)), Q4, HALF.repeat(2, 1)], "scale has 2 groups"),
        ("linear_w4a8", [np.zeros((2, 32)), Q4, HALF, HALF], "zero_point is float16"),
        ("linear_w4a8", [np.zeros((2, 32)), Q4, HALF, None, None, 17], "outputs is 17"),
        ("linear_sparse", [np.zeros((2, 7)), SPARSE, ONES], "x has 7 columns"),
        ("embedding_w8", [np.array([5]), np.ones((5, 2), np.int8), ONES], "ids spans 5..5"),
        ("embedding_w8", [np.array([-1]), np.ones((5, 2), np.int8), ONES], "ids spans -1"),
        ("embedding_w8", [np.array([0.5]), np.ones((5, 2), np.int8), ONES], "ids is float64"),
        ("embedding_w8", [np.array([0]), np.ones((4, 2), np.int8), ONES], r"scale has shape \(5"),
    ],
)
def test_bad_input_is_refused_by_name(module, name, arguments, message):
    with pytest.raises(ValueError, match=message):
        getattr(module, name)(*arguments)


def test_more_inputs_than_a_32_bit_sum_holds_are_refused():
    wide = np.zeros((1, 65_540), np.float32)
    with pytest.raises(ValueError, match="65536 at most"):
        kernels.linear_w8a8(wide, np.zeros((1, 65_540 // 4, 16, 4), np.uint8), np.ones(16, "f"))


# --- paths and threads ----------------------------------------------------------------------


def ask(code, **environment):
    """Run code in a fresh Python, whose environment says which kernels it has."""
    inherited = {name: value for name, value in os.environ.items() if name != "LIGHTCOURSE_KERNELS"}
    return subprocess.run(
        [sys.executable, "-c", code], env=inherited | environment, capture_output=True, text=True
    )


@pytest.mark.skipif(config.DISABLE_JIT, reason="only the plain path is there")
def test_a_variable_chooses_the_path():
    code = "from lightcourse import kernels; print(kernels.path())"
    for path in paths.available():
        assert ask(code, LIGHTCOURSE_KERNELS=path).stdout.strip() == path
    answer = ask(code, LIGHTCOURSE_KERNELS="abacus")
    assert "LIGHTCOURSE_KERNELS is 'abacus'; this machine has" in answer.stderr
    # A processor of which Numba is told nothing gets the plain kernels.
    assert ask(code, NUMBA_CPU_NAME="generic", NUMBA_CPU_FEATURES="").stdout.strip() == "portable"


@pytest.mark.skipif("avx2" not in paths.available(), reason="this machine has no AVX2")
def test_the_avx2_path_compiles_for_a_processor_without_avx512():
    code = """
import numpy as np
from lightcourse import kernels, panels, reference
assert kernels.path() == "avx2"
x, q = np.random.default_rng(0).standard_normal((7, 96)), np.arange(96 * 40).reshape(40, 96) % 15
w8, w4 = panels.pack_w8(q - 7), panels.pack_w4(q - 7)
one, half = np.ones(40, np.float32), panels.pack_groups(np.ones((40, 3), np.float16))
for name, rest in (("linear_w8a8", (w8, one)), ("linear_w4a8", (w4, half, None, one))):
    got, want = (getattr(m, name)(x, *rest) for m in (kernels, reference))
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)
"""
    features = "+avx2,+fma,+f16c,+sse4.2,+popcnt,+bmi2"
    answer = ask(code, NUMBA_CPU_NAME="haswell", NUMBA_CPU_FEATURES=features)
    assert answer.returncode == 0, answer.stderr


@pytest.mark.skipif(config.DISABLE_JIT, reason="nothing is compiled")
@pytest.mark.parametrize("first, then", [(1, 2), (2, 1)])
def test_kernels_from_the_cache_run_in_any_order(first, then):
    """A fresh process must find threads started, and a core's code kept, whatever came first."""
    code = f"""
import gc
import numpy as np
from lightcourse import kernels, panels
from lightcourse.kernels import paths
paths.LITTLE_WORK = 0
x, one = np.ones((4, 32), np.float32), np.ones(16, np.float32)
w8, w4 = panels.pack_w8(np.ones((16, 32), int)), panels.pack_w4(np.ones((16, 32), int))
for threads in {first, then}:
    kernels.set_threads(min(threads, kernels.most_threads()))
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
@pytest.mark.parametrize("kernel", ["linear_w8a8", "linear_w4a8", "linear_sparse"])
@pytest.mark.parametrize("path", paths.available())
def test_the_parallel_kernels_are_parallel(path, kernel):
    """Other threads than ours burn processor time; on one thread they never do."""
    rng = np.random.default_rng(0)
    x, q, scale = rows(rng, 256, 1024), integers(rng, 2048, 1024), np.ones(2048, np.float32)
    arguments = {
        "linear_w8a8": (panels.pack_w8(q), scale),
        "linear_w4a8": (panels.pack_w4(q >> 4), panels.pack_groups(scale[:, None].astype("f2"))),
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
        monkeypatch.setattr(linear, "_quantize", fail)
        with pytest.raises(MemoryError):
            kernels.linear_w8a8(np.zeros((1, 8)), Q, ONES)
        assert paths.claim(1) == most
        if most > 1:
            paths.release()


def test_portable_kernels_are_cached_apart():
    """A serial and a parallel function of one body would be served one and the same binary."""
    if config.DISABLE_JIT:
        pytest.skip("nothing is compiled")
    pairs = [
        (portable.w8_panels, portable.w8_parallel),
        (portable.w4_panels, portable.w4_parallel),
        (portable.sparse_panels, portable.sparse_parallel),
        (portable.quantize, portable.quantize_parallel),
    ]
    for serial, parallel in pairs:
        assert serial.py_func.__code__.co_code != parallel.py_func.__code__.co_code
        assert not serial.targetoptions.get("parallel") and parallel.targetoptions["parallel"]
