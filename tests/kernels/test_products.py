"""Kernels against their NumPy twins, on every path that this machine has.

This folder is run a second time with NUMBA_DISABLE_JIT=1, when only the plain path is there.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numba import config

from lightcourse import kernels, panels, reference
from lightcourse.kernels import rows as rows_of
from tests.kernels.every_path import integers, on_every_path, rows

SIDE = 9 if config.DISABLE_JIT else 67
FEW = settings(max_examples=10 if config.DISABLE_JIT else 60)
EPSILON = 2.0**-24
floats = st.floats(width=32, allow_nan=True, allow_infinity=True)
seeds = st.integers(0, 2**32 - 1)
sides = st.integers(0, SIDE)
matrices = hnp.arrays(
    np.float32, hnp.array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=SIDE), elements=floats
)


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


widths = st.integers(1, 80)


@given(matrices, widths)
def test_quantize_groups_equals_its_reference_bit_for_bit(x, width):
    for view in (x, x.T, x[::-1, ::2]):
        q, scale = kernels.quantize_groups(view, width)
        expected_q, expected_scale = reference.quantize_groups(view, width)
        np.testing.assert_array_equal(q, expected_q)
        np.testing.assert_array_equal(scale, expected_scale)
        assert q.dtype == np.int8 and scale.dtype == np.float32
        assert scale.shape == (len(view), max(1, -(-view.shape[1] // width)))


@given(matrices, widths)
def test_a_group_is_quantized_as_a_row_of_its_own(x, width):
    x = np.where(np.isfinite(x), x, 0)
    q, scale = reference.quantize_groups(x, width)
    for g in range(-(-x.shape[1] // width)):
        own, its = reference.quantize_rows(x[:, g * width : (g + 1) * width])
        np.testing.assert_array_equal(q[:, g * width : (g + 1) * width], own)
        np.testing.assert_array_equal(scale[:, g], its)


@pytest.mark.skipif(config.DISABLE_JIT, reason="nothing is shared among threads")
def test_threads_quantize_groups_as_one_does():
    x = rows(np.random.default_rng(0), 70, 1000)
    one, two = (rows_of.quantize_groups(x, 1024, 32, 32, threads) for threads in (1, 2))
    for mine, theirs in zip(one, two, strict=True):
        np.testing.assert_array_equal(mine, theirs)


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
        "linear_w8a8_grouped": (panels.pack_w8(q, 32), half, scale),
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


def test_packed_weights_start_where_a_line_of_the_cache_starts():
    for _ in range(5):
        q = np.ones((16, 40), np.int8)
        for packed in (panels.pack_w8(q), panels.pack_w4(q), panels.aligned((3, 5), np.float32)):
            assert packed.ctypes.data % 64 == 0 and packed.flags.c_contiguous
    assert panels.aligned((0, 5), np.float32).shape == (0, 5)


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
@given(st.integers(0, 20), st.integers(1, SIDE), sides, st.integers(1, 3), seeds)
@on_every_path
def test_linear_w8a8_grouped_equals_its_reference_and_float64(count, inputs, outputs, groups, seed):
    rng = np.random.default_rng(seed)
    inputs = inputs if groups == 1 else 32 * groups * (1 + inputs % 2)
    x, q = rows(rng, count % (SIDE + 1), inputs), integers(rng, outputs, inputs, -128)
    scale, bias = rng.random((outputs, groups)).astype(np.float16), rng.random(outputs, np.float32)
    arguments = panels.pack_w8(q, 32), panels.pack_groups(scale), bias, outputs
    x_q, x_scale = reference.quantize_groups(x, -(-inputs // groups))
    parts = [(len(a), groups, inputs // groups) for a in (q, x)]
    sums = [a.reshape(part).astype(float) for a, part in zip((q, x_q), parts, strict=True)]
    sums = np.einsum("ngk,mgk->mng", *sums) * scale * x_scale[:, None].astype(float)
    terms = np.abs(sums).sum(2) + bias
    got = kernels.linear_w8a8_grouped(x, *arguments)
    assert_close(got, sums.sum(2) + bias, terms, groups + 4)
    assert_close(got, reference.linear_w8a8_grouped(x, *arguments), terms, groups + 4)
    backwards = kernels.linear_w8a8_grouped(x[::-1].T.copy().T, *arguments)  # as Fortran stores it
    np.testing.assert_array_equal(backwards[::-1], got)


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
        half = panels.pack_groups(np.full((outputs, 1), 2.0**-7, np.float16))
        got = kernels.linear_w8a8_grouped(x, panels.pack_w8(q, 32), half, outputs=outputs)
        np.testing.assert_allclose(got, want, rtol=1e-6)
        half = panels.pack_groups(np.full((outputs, 1), 2.0**-3, np.float16))
        got = kernels.linear_w4a8(x, panels.pack_w4(q >> 4), half, outputs=outputs)
        np.testing.assert_allclose(got, x[:, :1] * inputs * 7 / 8 * np.ones(outputs), rtol=1e-6)


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
