"""Narrower ranges: what is cut off is counted, and the error is never worse for it."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lightcourse import quantization

bits = st.integers(2, 8)
VALUES = st.floats(-1000, 1000, width=32)
matrices = hnp.arrays("float32", st.tuples(st.integers(1, 4), st.integers(1, 40)), elements=VALUES)
dims = st.sampled_from([None, -1, 0])


def mse_by_row(x, bits=4):
    return quantization.choose_qparams_mse(x, bits, dim=-1)


def squared_error(x, scale, zero_point, bits, dim=-1):
    q = quantization.quantize_affine(x, scale, zero_point, bits)
    error = (quantization.dequantize_affine(q, scale, zero_point) - x).double().square()
    return error.sum() if dim is None else error.sum(dim, keepdim=True)


def error_of(x, ranges, bits, symmetric, dim):
    qparams = quantization.choose_qparams_affine_with_min_max(*ranges, bits, symmetric)
    return squared_error(x, *qparams, bits, dim)


@given(matrices, dims)
def test_a_hundred_percent_cut_nothing_off(x, dim):
    x = torch.from_numpy(x)
    found, wanted = quantization.percentile_range(x, 100, dim), quantization.min_max_range(x, dim)
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


@given(matrices, dims, st.floats(50.1, 100))
def test_a_percentile_range_holds_so_many_values(x, dim, percent):
    x = torch.from_numpy(x)
    low, high = quantization.percentile_range(x, percent, dim)
    inside = ((low <= x) & (x <= high)).double()
    share = inside.mean() if dim is None else inside.mean(dim)
    assert (share >= percent / 100 - 1e-6).all() and (low <= high).all()
    assert torch.isin(low, x).all() and torch.isin(high, x).all()


def test_either_end_loses_the_same_number():
    x = torch.randperm(2000).float()
    for percent, cut in [(99.9, 1), (99.0, 10), (98.95, 10), (60.0, 400)]:
        low, high = quantization.percentile_range(x, percent)
        assert (low.item(), high.item()) == (cut, 1999 - cut)


@pytest.mark.parametrize("wrong", [50, 0, -1, 100.1, float("nan")])
def test_other_percents_are_refused(wrong):
    with pytest.raises(ValueError, match=f"percent is {wrong}; more than 50 and at most 100"):
        quantization.percentile_range(torch.ones(3), wrong)


@given(matrices, bits, st.booleans(), dims)
def test_least_squares_is_never_worse_than_the_full_range(x, bits, symmetric, dim):
    x = torch.from_numpy(x)
    full = quantization.min_max_range(x, dim)
    least = quantization.mse_range(x, bits, symmetric, dim)
    assert (least[0] <= 0).all() and (least[1] >= 0).all()
    errors = [error_of(x, ranges, bits, symmetric, dim) for ranges in (least, full)]
    assert (errors[0] <= errors[1] * (1 + 1e-4) + 1e-6).all()


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("sign", [1, -1])
def test_cutting_an_outlier_off_pays(symmetric, sign):
    torch.manual_seed(0)
    x = torch.randn(4000)
    x[7] = sign * 40
    full = error_of(x, quantization.min_max_range(x), 4, symmetric, None)
    low, high = ranges = quantization.mse_range(x, 4, symmetric)
    assert error_of(x, ranges, 4, symmetric, None) < 0.5 * full
    assert max(-low, high) < 20
    assert error_of(x, quantization.percentile_range(x, 99.9), 4, symmetric, None) < 0.7 * full


def test_one_end_alone_may_be_cut_off():
    torch.manual_seed(0)
    x = -torch.rand(4000)
    x[7] = 8
    low, high = quantization.mse_range(x, 4)
    assert -low / high > 0.2  # shrunk together, they would keep their ratio of 1 to 8


def test_at_eight_bits_a_percentile_can_cost_more_than_it_gains():
    torch.manual_seed(0)
    x = torch.randn(4000)
    full, cut = (quantization.percentile_range(x, percent) for percent in (100, 99))
    assert error_of(x, cut, 8, True, None) > 5 * error_of(x, full, 8, True, None)


@pytest.mark.parametrize("value", [0.0, 3.0, -3.0, 1e-42])
def test_constant_tensors_come_back(value):
    x = torch.full((2, 6), value)
    for ranges in (
        quantization.mse_range(x, 4, dim=-1),
        quantization.percentile_range(x, 99, dim=-1),
    ):
        qparams = quantization.choose_qparams_affine_with_min_max(*ranges, 4)
        back = quantization.fake_quantize(x, *qparams, 4)
        assert torch.allclose(back, x, atol=1e-37, rtol=1e-6)


@pytest.mark.parametrize(
    "find",
    [
        quantization.min_max_range,
        quantization.percentile_range,
        quantization.mse_range,
        quantization.search_scale,
    ],
)
def test_values_that_no_range_can_hold_are_refused(find):
    with pytest.raises(ValueError, match="x is empty"):
        find(torch.empty(0))
    for bad in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="x holds NaN or infinity"):
            find(torch.tensor([1.0, bad]))


@pytest.mark.parametrize("wrong", [1, 9, 2.5])
def test_impossible_bits_are_refused(wrong):
    for find in (quantization.mse_range, quantization.search_scale):
        with pytest.raises(ValueError, match=f"bits is {wrong}"):
            find(torch.ones(3), wrong)


@given(matrices, bits)
def test_a_searched_scale_is_no_worse_than_the_one_that_just_fits(x, bits):
    x = torch.from_numpy(x)
    scale = quantization.search_scale(x, bits)
    assert torch.equal(scale, scale.half().float()) and (scale != 0).all()
    fitting = (x.abs().amax(-1, keepdim=True) / (2 ** (bits - 1) - 1)).half().float()
    fitting[fitting == 0] = 1
    zero = torch.zeros_like(scale, dtype=torch.int32)
    errors = [squared_error(x, candidate, zero, bits) for candidate in (scale, fitting)]
    assert (errors[0] <= errors[1] * (1 + 1e-5)).all()


def test_searching_pays_on_gaussian_weights():
    torch.manual_seed(0)
    x = torch.randn(500, 32)
    scale = x.abs().amax(-1, keepdim=True) / 7
    zero = torch.zeros_like(scale, dtype=torch.int32)
    best = squared_error(x, quantization.search_scale(x, 4), zero, 4).sum()
    assert best < 0.8 * squared_error(x, scale, zero, 4).sum()


def test_searching_both_ends_pays_on_skewed_weights():
    torch.manual_seed(0)
    x = torch.randn(500, 32) + 1
    zero = torch.zeros(500, 1, dtype=torch.int32)
    symmetric = squared_error(x, quantization.search_scale(x, 4), zero, 4).sum()
    assert squared_error(x, *mse_by_row(x, 4), 4).sum() < 0.8 * symmetric


@given(matrices, bits)
def test_searched_ends_give_scales_that_float16_holds(x, bits):
    x = torch.from_numpy(x)
    scale, zero_point = mse_by_row(x, bits)
    quant_min, quant_max = quantization.quant_range(bits)
    assert torch.equal(scale, scale.half().float()) and (scale > 0).all()
    assert quant_min <= zero_point.min() and zero_point.max() <= quant_max
    full = quantization.choose_qparams_affine(x, bits, dim=-1)
    errors = squared_error(x, scale, zero_point, bits), squared_error(x, *full, bits)
    # Half precision moves a step by a thousandth, or by 3e-8 where it is very small.
    slack = (x.shape[1] * (2**bits * (scale / 1000 + 1e-7)) ** 2).double()
    assert (errors[0].sqrt() <= errors[1].sqrt() + slack.sqrt()).all()


def test_a_scale_that_no_float16_holds_is_refused():
    for search in (quantization.search_scale, mse_by_row):
        with pytest.raises(ValueError, match="x reaches 1e.09; its scale must fit a float16"):
            search(torch.tensor([[1e9, 1.0]]))
