"""Affine quantization: the error bound holds, zero is exact, order is kept, gradients pass."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch.nn import functional as F

from lightcourse import quantization

arrays = hnp.arrays(
    "float32",
    hnp.array_shapes(min_dims=1, max_dims=3, max_side=9),
    elements=st.floats(-(2.0**100), 2.0**100, width=32),
)
bits = st.integers(2, 8)
dims = st.sampled_from([None, -1])
ends = st.floats(0, 2.0**60, width=32)


def round_trip(x, bits, symmetric, dim):
    scale, zero_point = quantization.choose_qparams_affine(x, bits, symmetric, dim)
    q = quantization.quantize_affine(x, scale, zero_point, bits)
    return q, scale, zero_point, quantization.dequantize_affine(q, scale, zero_point)


@given(arrays, bits, st.booleans(), dims)
def test_values_come_back_within_half_a_step(x, bits, symmetric, dim):
    x = torch.from_numpy(x)
    q, scale, zero_point, back = round_trip(x, bits, symmetric, dim)
    quant_min, quant_max = quantization.quant_range(bits)
    assert q.dtype == torch.int8 and quant_min <= q.min() and q.max() <= quant_max
    assert quant_min <= zero_point.min() and zero_point.max() <= quant_max
    # Rounding the zero point costs up to half a step more at the ends of the range.
    steps = 0.5 if symmetric else 1.0
    bound = scale.double() * (steps + 1e-3) + 1e-37
    assert ((back.double() - x.double()).abs() <= bound).all()


@given(arrays, ends, ends, bits, st.booleans())
def test_only_what_is_clamped_is_off_by_more_than_half_a_step(x, low, high, bits, symmetric):
    x = torch.from_numpy(x)
    scale, zero_point = quantization.choose_qparams_affine_with_min_max(-low, high, bits, symmetric)
    q = quantization.quantize_affine(x, scale, zero_point, bits)
    back = quantization.dequantize_affine(q, scale, zero_point).double()
    quant_min, quant_max = quantization.quant_range(bits)
    level = x.double() / scale.double() + zero_point
    inside = (level >= quant_min) & (level <= quant_max)
    error = (back - x.double()).abs()
    assert (error[inside] <= scale.double() * 0.501 + 1e-37).all()
    assert (q[level > quant_max + 0.51] == quant_max).all()
    assert (q[level < quant_min - 0.51] == quant_min).all()


@given(arrays, bits, st.booleans())
def test_zero_is_exact(x, bits, symmetric):
    x = torch.from_numpy(x).flatten()
    x[0] = 0
    assert round_trip(x, bits, symmetric, None)[3][0] == 0


@given(arrays, bits, st.booleans())
def test_order_is_kept(x, bits, symmetric):
    x = torch.from_numpy(x).flatten().sort().values
    q, _, _, back = round_trip(x, bits, symmetric, None)
    assert (q.int().diff() >= 0).all() and (back.diff() >= 0).all()


@given(arrays, bits, st.booleans(), dims)
def test_quantizing_twice_changes_nothing_more(x, bits, symmetric, dim):
    q, scale, zero_point, back = round_trip(torch.from_numpy(x), bits, symmetric, dim)
    assert torch.equal(quantization.quantize_affine(back, scale, zero_point, bits), q)


@given(arrays, bits, st.booleans(), dims)
def test_parameters_come_from_the_full_range(x, bits, symmetric, dim):
    x = torch.from_numpy(x)
    low, high = quantization.min_max_range(x, dim)
    wanted = quantization.choose_qparams_affine(x, bits, symmetric, dim)
    found = quantization.choose_qparams_affine_with_min_max(low, high, bits, symmetric)
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))
    assert found[0].dtype == torch.float32 and found[1].dtype == torch.int32
    assert found[0].shape == found[1].shape == low.shape
    assert low.shape == (x.shape[:-1] + (1,) if dim == -1 else (1,) * x.ndim)


def test_a_range_that_leaves_zero_out_is_widened():
    for low, high in [(2.0, 4.0), (0.0, 4.0)]:
        scale, zero_point = quantization.choose_qparams_affine_with_min_max(low, high)
        assert scale.item() == pytest.approx(4 / 255) and zero_point == -128


def test_one_scale_a_row_or_one_for_all():
    x = torch.tensor([[1.0, -1.0], [100.0, 50.0]])
    per_row, _ = quantization.choose_qparams_affine(x, symmetric=True, dim=-1)
    per_tensor, _ = quantization.choose_qparams_affine(x, symmetric=True)
    assert per_row.shape == (2, 1) and per_tensor.shape == (1, 1)
    assert per_row[0] < per_tensor and per_row[1] == per_tensor


def test_groups_are_a_view_and_serve_each_its_own_scale():
    x = torch.arange(24.0).view(2, 12)
    groups = quantization.into_groups(x, 4)
    assert groups.shape == (2, 3, 4) and groups.data_ptr() == x.data_ptr()
    assert torch.equal(groups[1, 2], x[1, 8:])
    scale, _ = quantization.choose_qparams_affine(groups, dim=-1)
    assert scale.shape == (2, 3, 1) and len(scale.unique()) == 6


@pytest.mark.parametrize("wrong", [0, -1, 7, 13, 2.0, 2.5, True])
def test_groups_that_do_not_divide_are_refused(wrong):
    with pytest.raises(ValueError, match=f"group_size is {wrong}; a divisor of the 12 columns"):
        quantization.into_groups(torch.ones(2, 12), wrong)


def test_asymmetric_uses_the_whole_range_of_skewed_values():
    x = torch.linspace(0, 10, 101)
    errors = [(round_trip(x, 4, s, None)[3] - x).abs().max() for s in (True, False)]
    assert errors[1] < 0.6 * errors[0]


@pytest.mark.parametrize("value", [0.0, 3.0, -3.0, 1e-42, -1e-42, 1e38])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_constant_tensors_survive(value, bits):
    x = torch.full((4,), value)
    for symmetric in (True, False):
        _, scale, _, back = round_trip(x, bits, symmetric, None)
        assert torch.allclose(back, x, atol=1e-37, rtol=1e-6)
        if value == 0:
            assert scale == 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floats_are_computed_in_float32(dtype):
    x = torch.randn(5, 8, dtype=dtype)
    q, scale, zero_point, back = round_trip(x, 8, False, -1)
    assert scale.dtype == back.dtype == torch.float32
    assert torch.equal(q, round_trip(x.float(), 8, False, -1)[0])
    assert quantization.fake_quantize(x, scale, zero_point).dtype == dtype


@pytest.mark.parametrize("wrong", [0, 1, 9, 17, 2.5, True])
def test_impossible_bits_are_refused(wrong):
    x, one, zero = torch.ones(3), torch.tensor(1.0), torch.tensor(0)
    for refuse in (
        lambda: quantization.choose_qparams_affine(x, wrong),
        lambda: quantization.choose_qparams_affine_with_min_max(-1.0, 1.0, wrong),
        lambda: quantization.quantize_affine(x, one, zero, wrong),
        lambda: quantization.fake_quantize(x, one, zero, wrong),
    ):
        with pytest.raises(ValueError, match=f"bits is {wrong}; a whole number from 2 to 8"):
            refuse()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_not_finite_are_refused(bad):
    with pytest.raises(ValueError, match="x holds NaN or infinity"):
        quantization.choose_qparams_affine(torch.tensor([1.0, bad]))
    with pytest.raises(ValueError, match="low or high is NaN or infinite"):
        quantization.choose_qparams_affine_with_min_max(0.0, bad)


def test_ranges_that_end_before_they_start_are_refused():
    with pytest.raises(ValueError, match="low is above high"):
        quantization.choose_qparams_affine_with_min_max(2.0, 1.0)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_no_integer_stands_for_what_is_not_finite_and_no_grid_hides_it(bad):
    one, zero = torch.tensor(1.0), torch.tensor(0)
    x = torch.tensor([bad, 300.0, 2.4], requires_grad=True)
    with pytest.raises(ValueError, match="x holds NaN or infinity"):
        quantization.quantize_affine(x, one, zero)
    rounded = quantization.fake_quantize(x, one, zero)
    assert rounded.isnan().tolist() == [True, False, False]
    assert rounded[1:].tolist() == [127, 2]
    rounded[1:].sum().backward()
    assert x.grad.tolist() == [0, 0, 1]


def test_empty_tensors_are_refused():
    with pytest.raises(ValueError, match="x is empty"):
        quantization.choose_qparams_affine(torch.empty(0))


@given(arrays, bits, st.booleans(), dims, st.floats(0.25, 1))
def test_fake_quantization_is_quantizing_and_back(x, bits, symmetric, dim, share):
    x = torch.from_numpy(x)
    low, high = (end * share for end in quantization.min_max_range(x, dim))
    scale, zero_point = quantization.choose_qparams_affine_with_min_max(low, high, bits, symmetric)
    fake = quantization.fake_quantize(x, scale, zero_point, bits)
    q = quantization.quantize_affine(x, scale, zero_point, bits)
    assert torch.equal(fake, quantization.dequantize_affine(q, scale, zero_point))
    assert torch.equal(quantization.fake_quantize(fake, scale, zero_point, bits), fake)


def test_the_gradient_passes_where_nothing_was_clamped():
    x = torch.tensor([-9.0, -2.1, -2.0, 0.3, 1.6, 9.0], requires_grad=True)
    one, zero = torch.tensor(1.0), torch.tensor(0)
    fake = quantization.fake_quantize(x, one, zero, bits=2)  # levels -2 to 1
    fake.backward(torch.arange(1.0, 7.0))
    assert fake.tolist() == [-2, -2, -2, 0, 1, 1]
    assert x.grad.tolist() == [0, 2, 3, 4, 0, 0]


@pytest.mark.parametrize("zero_point", [0, 3, -100])
def test_torch_agrees_where_the_step_is_a_power_of_two(zero_point):
    """Then its ``x * (1 / scale)`` is our ``x / scale``, to the last bit."""
    x = torch.randn(1000, requires_grad=True)
    scale, zero = torch.tensor(2.0**-6), torch.tensor(zero_point, dtype=torch.int32)
    theirs = torch.fake_quantize_per_tensor_affine(x, scale, zero, -128, 127)
    (slopes,) = torch.autograd.grad(theirs.sum(), x)
    ours = quantization.fake_quantize(x, scale, zero)
    assert torch.equal(ours, theirs)
    assert torch.equal(torch.autograd.grad(ours.sum(), x)[0], slopes)
    assert 0 < slopes.mean() < 1 or zero_point != -100


@pytest.mark.parametrize("symmetric", [True, False])
def test_torch_agrees_channel_by_channel_within_one_level(symmetric):
    x = torch.randn(7, 200)
    scale, zero_point = quantization.choose_qparams_affine(x, 8, symmetric, dim=-1)
    ours = quantization.quantize_affine(x, scale, zero_point)
    theirs = torch.fake_quantize_per_channel_affine(
        x, scale.flatten(), zero_point.flatten(), 0, -128, 127
    )
    off = (theirs / scale).round() + zero_point - ours
    assert off.abs().max() <= 1 and (off == 0).float().mean() > 0.99


def round_weight(weight):
    scale, zero_point = quantization.choose_qparams_affine(weight, 3, symmetric=True, dim=-1)
    return quantization.fake_quantize(weight, scale, zero_point, bits=3)


def regress(first, second, x, y, fake, steps=300):
    """Fit two layers whose weights are seen through ``fake``; return the last loss."""
    optimizer = torch.optim.Adam([*first.parameters(), *second.parameters()])
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 0.01 * (1 - step / steps)
        hidden = torch.relu(F.linear(x, fake(first.weight), first.bias))
        loss = (F.linear(hidden, fake(second.weight), second.bias) - y).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.item()


@pytest.mark.parametrize("seed", range(3))
def test_training_on_the_grid_beats_rounding_afterwards(seed):
    torch.manual_seed(seed)
    first, second = torch.nn.Linear(4, 64), torch.nn.Linear(64, 1)
    x = torch.rand(256, 4) * 2 - 1
    y = (x[:, :1] * 3).sin() + x[:, 1:2] * x[:, 2:3]
    regress(first, second, x, y, lambda weight: weight)
    frozen = copy.deepcopy((first, second))
    rounded = regress(*copy.deepcopy(frozen), x, y, round_weight, 1)
    assert regress(*copy.deepcopy(frozen), x, y, round_weight) < 0.3 * rounded


def test_without_the_straight_through_estimator_no_gradient_passes():
    weight = torch.tensor([[0.3, -0.8, 1.0]], requires_grad=True)
    scale = torch.tensor(0.25)
    ((weight / scale).round() * scale).sum().backward()
    assert weight.grad.count_nonzero() == 0
    quantization.fake_quantize(weight, scale, torch.tensor(0)).sum().backward()
    assert weight.grad.tolist() == [[1, 1, 1]]
