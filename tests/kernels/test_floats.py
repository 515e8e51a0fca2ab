"""What stands between the products, against torch in float64."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numba import config, njit
from torch.nn import functional as F

from lightcourse.kernels import float_rows, floats
from lightcourse.kernels.float_tiles import multiply

WIDTHS = st.integers(1, 200)
SEEDS = st.integers(0, 2**32 - 1)


def drawn(width, seed, size=3.0):
    """Return numbers as float32, and the same in float64."""
    x = np.random.default_rng(seed).standard_normal(width).astype(np.float32) * np.float32(size)
    return x, torch.from_numpy(x.astype(np.float64))


def powers(width):
    return np.empty(width, np.int32)


@given(st.lists(st.floats(-87, 88, width=32), min_size=1, max_size=99))
def test_exp_is_within_its_budget(values):
    x = np.array(values, np.float32)
    want = np.exp(x.astype(np.float64))
    floats.exp(x, powers(len(x)))
    assert np.abs(x / want - 1).max() < 2**-21


@pytest.mark.skipif(config.DISABLE_JIT, reason="Python warns of what compiled code does silently")
def test_exp_stays_finite_beyond_its_range_and_keeps_nan():
    x = np.array([-1e30, -np.inf, 1e30, np.inf, np.nan], np.float32)
    floats.exp(x, powers(5))
    assert np.isfinite(x[:4]).all() and (x[:2] < 2e-38).all() and (x[2:4] > 1e38).all()
    assert np.isnan(x[4])


@given(WIDTHS, SEEDS, st.sampled_from([0.01, 3.0, 80.0]))
def test_softmax(width, seed, size):
    x, exact = drawn(width, seed, size)
    floats.softmax(x, powers(width))
    np.testing.assert_allclose(x, exact.softmax(0), atol=1e-6)


@given(WIDTHS, SEEDS)
def test_norms(width, seed):
    (x, exact), (weight, exact_weight), (bias, exact_bias) = (
        drawn(width, seed + i) for i in range(3)
    )
    y = np.empty_like(x)
    floats.rms_norm(x, weight, np.float32(1e-5), y)
    np.testing.assert_allclose(y, F.rms_norm(exact, (width,), exact_weight, 1e-5), rtol=1e-5)
    floats.layer_norm(x, weight, bias, np.float32(1e-5), y)
    want = F.layer_norm(exact, (width,), exact_weight, exact_bias, 1e-5)
    np.testing.assert_allclose(y, want, rtol=1e-5, atol=1e-4 if width > 1 else 1e-2)


@given(WIDTHS, SEEDS, st.sampled_from([0.01, 3.0, 80.0]))
def test_silu(width, seed, size):
    x, exact = drawn(width, seed, size)
    up, exact_up = drawn(width, seed + 1)
    floats.silu(x, up, powers(width))
    np.testing.assert_allclose(up, F.silu(exact) * exact_up, rtol=1e-5, atol=1e-6)


@njit
def vectors_softmax(x, count):
    float_rows.softmax(x.ctypes.data, count)


@njit
def vectors_gelu(x, y, by_erf):
    if by_erf:
        float_rows.gelu_erf(x.ctypes.data, y.ctypes.data, len(x) // 16)
    else:
        float_rows.gelu_tanh(x.ctypes.data, y.ctypes.data, len(x) // 16)


compiled = pytest.mark.skipif(config.DISABLE_JIT, reason="nothing is compiled")


@compiled
@given(WIDTHS, SEEDS, st.sampled_from([0.01, 3.0, 80.0]))
def test_softmax_by_vectors(width, seed, size):
    x, exact = drawn(-(-width // 16) * 16 + 1, seed, size)
    after = x[-1]
    vectors_softmax(x, width)
    np.testing.assert_allclose(x[:width], exact[:width].softmax(0), atol=1e-6)
    assert x[-1] == after  # behind the last vector nothing is written


@compiled
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_softmax_of_what_is_not_finite_is_nan_as_torchs(bad):
    for place in (0, 17, 19):
        x = np.zeros(32, np.float32)
        x[place] = bad
        vectors_softmax(x, 20)
        assert np.isnan(x[place]) and (bad != np.nan or np.isnan(x[:20]).all())
    x = np.full(32, -np.inf, np.float32)
    x[3] = 2
    vectors_softmax(x, 20)
    np.testing.assert_allclose(x[:20], np.arange(20) == 3, atol=1e-30)


@compiled
@given(st.integers(1, 12), SEEDS, st.sampled_from([0.01, 3.0, 80.0]), st.booleans())
def test_gelu_by_vectors(vectors, seed, size, in_place):
    for by_erf, approximate in ((True, "none"), (False, "tanh")):
        x, exact = drawn(16 * vectors, seed, size)
        y = x if in_place else np.empty_like(x)
        vectors_gelu(x, y, by_erf)
        off = np.abs(y - F.gelu(exact, approximate=approximate).numpy())
        assert (off <= 1e-6 * np.maximum(np.abs(exact.numpy()), 1)).all()


@compiled
def test_gelu_hides_nothing_that_is_not_finite():
    for by_erf in (True, False):
        x = np.zeros(16, np.float32)
        x[:2] = np.nan, np.inf
        vectors_gelu(x, x, by_erf)
        assert np.isnan(x[0]) and not np.isfinite(x[1]) and (x[2:] == 0).all()


@given(st.integers(1, 40), SEEDS)
def test_rotations_are_those_of_transformers(half, seed):
    from transformers.models.llama.modeling_llama import rotate_half

    (x, exact), (angles, _) = drawn(2 * half, seed), drawn(2 * half, seed + 1)
    cos, sin = np.cos(angles), np.sin(angles)
    want = exact * torch.from_numpy(cos) + rotate_half(exact) * torch.from_numpy(sin)
    floats.rotate(x, cos, sin)
    np.testing.assert_allclose(x, want, rtol=1e-5, atol=1e-5)


@compiled
@given(st.integers(1, 11), st.integers(0, 70), st.integers(1, 11), SEEDS)
def test_products_of_floats(rows, count, vectors, seed):
    rng = np.random.default_rng(seed)
    a = rng.standard_normal((rows, count + 3)).astype(np.float32)
    b = rng.standard_normal((count, 16 * vectors + 5)).astype(np.float32)
    y = np.full((rows + 1, 16 * vectors + 7), 9, np.float32)
    places = [place for array in (a, b, y) for place in (array.ctypes.data, array.strides[0])]
    multiply(rows, 16 * vectors, count, *places)
    want = a[:, :count].astype(np.float64) @ b[:, : 16 * vectors]
    np.testing.assert_allclose(y[:rows, : 16 * vectors], want, atol=1e-4)
    assert (y[rows:] == 9).all() and (y[:, 16 * vectors :] == 9).all()  # nothing else is written
