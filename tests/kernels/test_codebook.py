"""Weights that are looked up: against the reference, and against float64."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightcourse import kernels, panels, reference

EPS = 2.0**-24


@st.composite
def cases(draw):
    bits, rows = draw(st.integers(1, 8)), draw(st.integers(0, 5))
    outputs, blocks = draw(st.integers(1, 9)), draw(st.integers(1, 4))
    inputs = blocks * 8 * draw(st.integers(1, 5))
    dice = np.random.default_rng(draw(st.integers(0, 2**31)))
    codes = dice.integers(0, 2**bits, (outputs, inputs)).astype(np.uint8)
    levels = np.sort(dice.normal(size=2**bits)).astype(np.float32)
    x = (dice.normal(size=(rows, inputs)) * 10.0 ** draw(st.integers(-20, 15))).astype(np.float32)
    return x, codes, bits, levels, dice.random((outputs, blocks)).astype(np.float32)


@settings(max_examples=60, deadline=None)
@given(cases())
def test_the_error_is_within_its_budget(case):
    x, codes, bits, levels, scale = case
    packed = panels.pack_codes(codes, bits)
    weight = levels[codes].astype(float) * np.repeat(scale, x.shape[1] // scale.shape[1], 1)
    exact, sizes = x.astype(float) @ weight.T, np.abs(x).astype(float) @ np.abs(weight).T
    for linear in (reference.linear_codebook, kernels.linear_codebook):
        y = linear(x, packed, levels, scale)
        assert y.dtype == np.float32 and y.shape == exact.shape
        assert (np.abs(y - exact) <= (x.shape[1] + 3) * EPS * sizes).all()


@given(st.integers(1, 8), st.integers(0, 2**31))
def test_codes_come_back_from_their_bytes(bits, seed):
    codes = np.random.default_rng(seed).integers(0, 2**bits, (3, 40)).astype(np.uint8)
    packed = panels.pack_codes(codes, bits)
    assert packed.nbytes == 15 * bits and np.array_equal(panels.unpack_codes(packed, bits), codes)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_stays_in_its_row(value):
    x = np.ones((3, 16), np.float32)
    x[1, 3] = value
    packed = panels.pack_codes(np.ones((2, 16), np.uint8), 1)
    y = kernels.linear_codebook(x, packed, np.array([-1.0, 1.0]), np.ones((2, 1)))
    assert not np.isfinite(y[1]).any() and np.isfinite(y[[0, 2]]).all()


def test_bias_and_strides():
    x = np.ones((32, 4), np.float32).T[:, ::2]
    packed = np.asfortranarray(panels.pack_codes(np.ones((3, 16), np.uint8), 2))
    arguments = x, packed, np.array([0.0, 0.5, 1.0, 2.0]), np.ones((3, 2)), np.arange(3.0)
    wanted = [[8.0, 9.0, 10.0]] * 4
    assert kernels.linear_codebook(*arguments).tolist() == wanted
    assert reference.linear_codebook(*arguments).tolist() == wanted


@pytest.mark.parametrize("linear", [reference.linear_codebook, kernels.linear_codebook])
@pytest.mark.parametrize(
    "change, words",
    [
        ({"x": np.ones((1, 8))}, "x has 8 columns; the weight has 16"),
        ({"levels": np.ones(3)}, "levels has shape"),
        ({"qweight": np.ones((2, 4))}, "qweight is float64"),
        ({"scale": np.ones((2, 3))}, "scale has shape"),
        ({"scale": np.ones((3, 2))}, "scale has shape"),
    ],
)
def test_what_does_not_fit_is_refused(linear, change, words):
    fine = {
        "x": np.ones((1, 16)),
        "qweight": panels.pack_codes(np.ones((2, 16), np.uint8), 2),
        "levels": np.arange(4.0),
        "scale": np.ones((2, 2)),
    }
    linear(**fine)
    with pytest.raises(ValueError, match=words):
        linear(**(fine | change))


def test_codes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="codes below 4"):
        panels.pack_codes(np.full((1, 8), 4, np.uint8), 2)
    with pytest.raises(ValueError, match="multiple of 8"):
        panels.pack_codes(np.zeros((1, 12), np.uint8), 2)
