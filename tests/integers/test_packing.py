"""Finished integers, whoever found them: packed, read back, and refused where they do not fit."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightcourse import quantization
from lightcourse.integers import pack, quant_range, storable
from lightcourse.quantization import QuantizedLinear


def drawn(bits, rows, groups, size, seed):
    """Return random integers, scales of either sign and zero points."""
    torch.manual_seed(seed)
    quant_min, quant_max = quant_range(bits)
    q = torch.randint(quant_min, quant_max + 1, (rows, groups * size))
    scale = (torch.rand(rows, groups) + 0.01) * torch.sign(torch.randn(rows, groups))
    return q, scale, torch.randint(quant_min, quant_max + 1, (rows, groups))


@given(
    st.integers(2, 8),
    st.integers(1, 35),
    st.integers(1, 3),
    st.integers(1, 9),
    st.booleans(),
    st.integers(0, 99),
)
def test_whatever_is_packed_is_read_back(bits, rows, groups, size, symmetric, seed):
    q, scale, zero_point = drawn(bits, rows, groups, size, seed)
    zero_point = None if symmetric else zero_point
    layer = QuantizedLinear.from_integers(q, scale, zero_point, bits)
    scale, zeros = storable(scale, bits), torch.zeros_like(q[:, :groups])
    assert torch.equal(layer.integers().long(), q)
    assert torch.equal(layer.scales(), scale)
    assert torch.equal(layer.zero_points().long(), zeros if symmetric else zero_point)
    steps = (q - layer.zero_points().repeat_interleave(size, 1)).float()
    assert torch.equal(layer.dequantize(), steps * scale.repeat_interleave(size, 1))
    assert layer.group_size == (None if groups == 1 else size)


@pytest.mark.parametrize("bits, group_size", [(8, None), (8, 32), (4, 32)])
def test_integer_kernels_multiply_by_integers_that_others_found(bits, group_size):
    q, scale, _ = drawn(bits, 20, 64 // (group_size or 64), group_size or 64, 0)
    layer = QuantizedLinear.from_integers(q, scale, None, bits, torch.ones(20), activations=8)
    x = torch.randn(3, 64)
    want = x @ layer.dequantize().T + 1
    assert (layer(x) - want).norm() < 0.02 * want.norm()


def test_a_layer_that_rounds_for_itself_holds_what_rounding_to_nearest_gives():
    weight = torch.randn(5, 24)
    for bits, symmetric in [(8, True), (3, False)]:
        own = QuantizedLinear(weight, None, bits, 8, symmetric=symmetric)
        handed = QuantizedLinear.from_integers(
            *quantization.round_to_nearest(weight, bits, 8, symmetric), bits
        )
        assert own.settings() == handed.settings()
        assert all(torch.equal(a, b) for a, b in zip(own.buffers(), handed.buffers(), strict=True))


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_the_caller_chooses_the_range(bits, symmetric):
    weight = torch.randn(5, 24)
    weight[0, 0] = 9.0
    errors = {}
    for name in ("choose_qparams_affine", "choose_qparams_mse"):
        choose = getattr(quantization, name)
        layer = QuantizedLinear(weight, None, bits, 8, symmetric=symmetric, choose_qparams=choose)
        scale, _ = choose(quantization.into_groups(weight, 8), bits, symmetric, dim=-1)
        assert torch.equal(layer.scales(), storable(scale.squeeze(-1), bits))
        errors[name] = (layer.dequantize() - weight).square().sum()
    # At 8 bits there is nothing to gain, and its scales are float16's.
    assert errors["choose_qparams_mse"] <= 1.1 * errors["choose_qparams_affine"]


def test_a_range_of_the_callers_own_is_taken():
    def clipped(x, bits, symmetric, dim):
        ends = quantization.percentile_range(x, 90, dim)
        return quantization.choose_qparams_affine_with_min_max(*ends, bits, symmetric)

    weight = torch.randn(4, 40)
    layer = QuantizedLinear(weight, choose_qparams=clipped)
    assert layer.dequantize().abs().max() < weight.abs().max()


GOOD = {
    "q": torch.ones(2, 6, dtype=torch.int8),
    "scale": torch.ones(2, 3),
    "zero_point": torch.zeros(2, 3, dtype=torch.int32),
    "bits": 4,
}


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"bits": 9}, "bits is 9; a whole number from 2 to 8"),
        ({"q": torch.ones(2, 6)}, "q is torch.float32; a tensor of integers"),
        ({"q": [[1, 2]]}, "q is list; a tensor of integers"),
        ({"q": torch.ones(6, dtype=torch.int8)}, r"q has shape \(6,\); rows and columns"),
        ({"q": torch.ones(2, 0, dtype=torch.int8)}, r"q has shape \(2, 0\)"),
        ({"q": torch.full((2, 6), 8)}, r"q spans 8..8; -8 to 7 is wanted for 4 bits"),
        ({"scale": torch.ones(2, 3, dtype=torch.int8)}, "scale is torch.int8; a tensor of floats"),
        ({"scale": torch.ones(2, 4)}, r"scale has shape \(2, 4\); \(2, groups\), .* 6 columns"),
        ({"scale": torch.ones(3, 3)}, r"scale has shape \(3, 3\)"),
        ({"scale": torch.zeros(2, 3)}, "scale holds 0, NaN or infinity"),
        ({"scale": torch.full((2, 3), float("nan"))}, "scale holds 0, NaN or infinity"),
        ({"scale": torch.full((2, 3), 1e6)}, "scale reaches 1e.06, which no torch.float16 holds"),
        ({"scale": torch.full((2, 3), 1e-9)}, "scale falls to 1e-09, .* stored as 0; .*storable"),
        ({"q": torch.ones(2, 6, dtype=bool)}, "q is torch.bool; a tensor of integers"),
        ({"q": torch.ones(2, 6, dtype=int, device="meta")}, "q is on the device meta"),
        ({"q": torch.ones(2, 6, dtype=int).to_sparse()}, "q is torch.sparse_coo; a tensor of int"),
        ({"zero_point": torch.zeros(2, 3)}, "zero_point is torch.float32; a tensor of integers"),
        ({"zero_point": torch.full((2, 3), -9)}, "zero_point spans -9..-9; -8 to 7"),
        ({"zero_point": torch.zeros(2, 1, dtype=int)}, r"zero_point has shape \(2, 1\); the scale"),
    ],
)
def test_what_is_no_quantized_matrix_is_refused(wrong, message):
    pack(**GOOD)
    with pytest.raises(ValueError, match=message):
        pack(**GOOD | wrong)


def test_a_matrix_that_is_rounded_by_storable_scales_is_read_back_exactly():
    scale = storable(torch.tensor([[1e-9], [0.1], [1 / 3]]), bits=4)
    q = torch.tensor([[0, 0], [7, -8], [1, 3]])
    layer = QuantizedLinear.from_integers(q, scale, None, bits=4)
    assert torch.equal(layer.dequantize(), q * scale)


@pytest.mark.parametrize(
    "choose, message",
    [
        (lambda x, *_, dim: (x.amax(dim), None), "choose_qparams gave .* wanted"),
        (lambda x, *_, dim: x.amax(dim, keepdim=True), "choose_qparams gave .* wanted"),
        (lambda x, bits, _, dim: quantization.choose_qparams_affine(x, bits, False, dim), "zero p"),
        ("mse", "choose_qparams is a str; a function is wanted"),
    ],
)
def test_a_choice_that_is_no_grid_is_refused(choose, message):
    weight = torch.rand(4, 8)
    with pytest.raises(ValueError, match=message):
        quantization.round_to_nearest(weight, 8, choose_qparams=choose)


def test_a_bias_of_another_length_is_refused():
    with pytest.raises(ValueError, match=r"bias has shape \(3,\); \(4,\) is wanted"):
        QuantizedLinear(torch.rand(4, 8), torch.rand(3))
