"""Quantization: the error bound holds, zero is exact, and integers are really stored."""

from functools import partial

import pytest
import torch
import toys
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lightcourse import files, layers, metrics, quantization

arrays = hnp.arrays(
    "float32",
    hnp.array_shapes(min_dims=1, max_dims=3, max_side=9),
    elements=st.floats(-(2.0**100), 2.0**100, width=32),
)
bits = st.integers(2, 8)
VALUES = st.floats(-1000, 1000, width=32)


def round_trip(x, bits, symmetric, dim):
    scale, zero_point = quantization.choose_qparams_affine(x, bits, symmetric, dim)
    q = quantization.quantize_affine(x, scale, zero_point, bits)
    return q, scale, zero_point, quantization.dequantize_affine(q, scale, zero_point)


@given(arrays, bits, st.booleans(), st.sampled_from([None, -1]))
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


@given(arrays, bits, st.booleans())
def test_zero_is_exact(x, bits, symmetric):
    x = torch.from_numpy(x).flatten()
    x[0] = 0
    assert round_trip(x, bits, symmetric, None)[3][0] == 0


def test_one_scale_a_row_or_one_for_all():
    x = torch.tensor([[1.0, -1.0], [100.0, 50.0]])
    per_row, _ = quantization.choose_qparams_affine(x, symmetric=True, dim=-1)
    per_tensor, _ = quantization.choose_qparams_affine(x, symmetric=True)
    assert per_row.shape == (2, 1) and per_tensor.shape == (1, 1)
    assert per_row[0] < per_tensor and per_row[1] == per_tensor


def test_asymmetric_uses_the_whole_range_of_skewed_values():
    x = torch.linspace(0, 10, 101)
    errors = [(round_trip(x, 4, s, None)[3] - x).abs().max() for s in (True, False)]
    assert errors[1] < 0.6 * errors[0]


@pytest.mark.parametrize("value", [0.0, 3.0, -3.0, 1e-42])
def test_constant_tensors_survive(value):
    x = torch.full((4,), value)
    for symmetric in (True, False):
        back = round_trip(x, 8, symmetric, None)[3]
        assert torch.allclose(back, x, atol=1e-37, rtol=5e-3)


@pytest.mark.parametrize("wrong", [0, 1, 9, 17, 4.5])
def test_impossible_bits_are_refused(wrong):
    with pytest.raises(ValueError, match=f"bits is {wrong}"):
        quantization.choose_qparams_affine(torch.ones(3), wrong)
    with pytest.raises(ValueError, match=f"bits is {wrong}"):
        quantization.quantize_(toys.mlp(), bits=wrong)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused(bad):
    with pytest.raises(ValueError, match="x holds NaN or infinity"):
        quantization.choose_qparams_affine(torch.tensor([1.0, bad]))


def test_infinity_is_clamped_and_nan_refused_when_quantizing():
    one, zero = torch.tensor(1.0), torch.tensor(0)
    x = torch.tensor([float("inf"), -float("inf")])
    assert quantization.quantize_affine(x, one, zero).tolist() == [127, -128]
    with pytest.raises(ValueError, match="x holds NaN"):
        quantization.quantize_affine(torch.tensor([float("nan")]), one, zero)


def test_empty_tensors_are_refused():
    with pytest.raises(ValueError, match="x is empty"):
        quantization.choose_qparams_affine(torch.empty(0))


@given(
    hnp.arrays(
        "int8", st.tuples(st.integers(0, 5), st.integers(1, 17)), elements=st.integers(-8, 7)
    )
)
def test_packing_is_undone_exactly_and_halves_the_bytes(q):
    q = torch.from_numpy(q)
    packed = quantization.pack_int4(q)
    assert packed.dtype == torch.uint8 and packed.shape[1] == (q.shape[1] + 1) // 2
    assert torch.equal(quantization.unpack_int4(packed, q.shape[1]), q)


@pytest.mark.parametrize("value", [8, -9])
def test_what_does_not_fit_4_bits_is_not_packed(value):
    with pytest.raises(ValueError, match="integers from -8 to 7"):
        quantization.pack_int4(torch.tensor([value]))


@pytest.mark.parametrize("bits, group_size", [(8, None), (8, 4), (4, None), (4, 8), (3, 8), (2, 4)])
def test_the_layer_computes_with_what_it_stores(bits, group_size):
    torch.manual_seed(0)
    linear = torch.nn.Linear(24, 5)
    layer = quantization.QuantizedLinear(linear.weight, linear.bias, bits, group_size)
    x = torch.randn(2, 3, 24)
    want = x @ layer.dequantize().T + linear.bias
    assert torch.allclose(layer(x), want, atol=1e-5)
    if bits > 4:  # fewer bits cut the largest weights off, on purpose
        step = layer.scales().repeat_interleave(24 // layer.scales().shape[1], 1)
        assert ((layer.dequantize() - linear.weight).abs() <= step * 0.501).all()


def test_bytes_stored_are_bytes_held():
    weight = torch.randn(64, 128)
    eight = quantization.QuantizedLinear(weight, bits=8)
    four = quantization.QuantizedLinear(weight, bits=4, group_size=32)
    assert metrics.size_in_bytes(eight) == 64 * 128 + 64 * 4
    assert metrics.size_in_bytes(four) == 64 * 128 // 2 + 64 * 4 * 2
    # Panels hold 16 outputs, and blocks of two halves 32 inputs: the rest is filled up.
    odd = quantization.QuantizedLinear(torch.randn(17, 33), bits=4)
    assert metrics.size_in_bytes(odd) == 32 * 64 // 2 + 32 * 2


@given(
    hnp.arrays("float32", st.tuples(st.integers(1, 4), st.integers(1, 40)), elements=VALUES), bits
)
def test_a_searched_scale_is_no_worse_than_the_one_that_just_fits(x, bits):
    x = torch.from_numpy(x)
    scale = quantization.search_scale(x, bits)
    assert torch.equal(scale, scale.half().float()) and (scale != 0).all()
    fitting = (x.abs().amax(-1, keepdim=True) / (2 ** (bits - 1) - 1)).half().float()
    fitting[fitting == 0] = 1
    errors = [squared_error(x, candidate, bits) for candidate in (scale, fitting)]
    assert (errors[0] <= errors[1] * (1 + 1e-5)).all()


def squared_error(x, scale, bits):
    zero = torch.zeros_like(scale, dtype=torch.int32)
    q = quantization.quantize_affine(x, scale, zero, bits)
    return (quantization.dequantize_affine(q, scale, zero) - x).square().sum(-1)


def test_searching_pays_on_gaussian_weights():
    x = torch.randn(500, 32)
    fitting = x.abs().amax(-1, keepdim=True) / 7
    best = squared_error(x, quantization.search_scale(x, 4), 4).sum()
    assert best < 0.8 * squared_error(x, fitting, 4).sum()


def test_a_scale_that_no_float16_holds_is_refused():
    with pytest.raises(ValueError, match="x reaches 1e.09; its scale must fit a float16"):
        quantization.search_scale(torch.tensor([[1e9, 1.0]]))


KERNELS = [(8, None), (6, None), (4, None), (4, 32), (3, 64), (2, 32)]


@pytest.mark.parametrize("bits, group_size", KERNELS)
@pytest.mark.parametrize("inputs, outputs", [(128, 48), (64, 5), (192, 33)])
def test_integer_kernels_compute_what_the_floats_would(bits, group_size, inputs, outputs):
    torch.manual_seed(0)
    linear = torch.nn.Linear(inputs, outputs)
    build = partial(quantization.QuantizedLinear, linear.weight, linear.bias, bits, group_size)
    integer, floating = build(activations=8), build()
    x = torch.randn(2, 3, inputs)
    steps = x.abs().amax(-1, keepdim=True) / 127
    # Rounding x moves each product by half a step of x at most.
    bound = steps / 2 * floating.dequantize().abs().sum(1) + 1e-4
    assert ((integer(x) - floating(x)).abs() <= bound).all()
    assert not torch.equal(integer(x), floating(x))


@pytest.mark.parametrize("bits, group_size", KERNELS)
def test_gradients_flow_through_integer_kernels_to_the_input(bits, group_size):
    layer = quantization.QuantizedLinear(torch.randn(3, 64), torch.randn(3), bits, group_size, 8)
    x = torch.randn(2, 64, requires_grad=True)
    layer(x).sum().backward()
    assert torch.allclose(x.grad, layer.dequantize().sum(0).expand(2, 64), atol=1e-5)


def test_asking_for_the_weight_says_why_there_is_none():
    layer = quantization.QuantizedLinear(torch.randn(3, 64))
    with pytest.raises(AttributeError, match="no gradient for one: it stores integers"):
        layer.weight.requires_grad_(True)
    assert not hasattr(layer, "weight")


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((8, 32, 8), "group_size is 32; above 4 bits"),
        ((4, 16, 8), "group_size is 16; int8 activations want a multiple of 32"),
        ((8, None, 4), "activations is 4; None or 8"),
    ],
)
def test_kernels_that_are_not_there_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        quantization.QuantizedLinear(torch.randn(3, 64), None, *arguments)


def test_half_precision_and_no_rows_pass_through_integer_kernels():
    layer = quantization.QuantizedLinear(torch.randn(3, 64), torch.randn(3), activations=8)
    assert layer(torch.randn(2, 64, dtype=torch.bfloat16)).dtype == torch.bfloat16
    assert layer(torch.randn(0, 64)).shape == (0, 3)
    assert layer(torch.randn(64)).shape == (3,)


@pytest.mark.parametrize("family", toys.ALL)
@pytest.mark.parametrize("bits", [8, 4])
def test_every_family_runs_on_integer_kernels(family, bits):
    model = toys.ALL[family]()
    before = toys.logits(model)
    quantization.quantize_(model, bits=bits, activations=8)
    error = (toys.logits(model) - before).abs().max() / before.abs().max()
    assert 0 < error < {8: 0.08, 4: 1.0}[bits]


def test_gradients_flow_to_the_input_only():
    layer = quantization.QuantizedLinear(torch.randn(3, 4), torch.randn(3))
    x = torch.randn(2, 4, requires_grad=True)
    layer(x).sum().backward()
    assert torch.allclose(x.grad, layer.dequantize().sum(0).expand(2, 4))
    assert list(layer.parameters()) == []


@pytest.mark.parametrize("family", toys.ALL)
@pytest.mark.parametrize("bits", [8, 4])
def test_quantize_converts_every_linear_layer_of_every_family(family, bits):
    model = toys.ALL[family]()
    names = list(layers.linear_layers(model))
    before, size = toys.logits(model), metrics.size_in_bytes(model)
    report = quantization.quantize_(model, bits=bits, group_size=8)
    assert list(report.changed) == names
    assert size - metrics.size_in_bytes(model) == report.total
    error = (toys.logits(model) - before).abs().max() / before.abs().max()
    assert 0 < error < {8: 0.05, 4: 0.8}[bits]


def test_a_tied_output_layer_is_skipped_and_named():
    model = toys.gpt2()
    report = quantization.quantize_(model)
    assert report.skipped == {"lm_head": "shares its weight with transformer.wte"}
    assert model.lm_head.weight is model.transformer.wte.weight


def test_skip_leaves_layers_alone_and_unknown_names_are_refused():
    model = toys.mlp()
    assert list(quantization.quantize_(model, skip=["2"]).changed) == ["0"]
    assert type(model[2]) is torch.nn.Linear
    with pytest.raises(ValueError, match=r"skip names \['5'\]"):
        quantization.quantize_(toys.mlp(), skip=["5"])


def test_converting_nothing_is_an_error():
    model = toys.mlp()
    quantization.quantize_(model)
    with pytest.raises(ValueError, match="nothing was quantized"):
        quantization.quantize_(model)


def test_a_group_that_does_not_fit_changes_nothing():
    model = toys.mlp()
    with pytest.raises(ValueError, match="layer 2: group_size is 8; a divisor of the 12"):
        quantization.quantize_(model, group_size=8)
    assert type(model[0]) is torch.nn.Linear


def test_weights_that_are_not_finite_are_refused_by_name():
    model = toys.mlp()
    model[2].weight.data[0, 0] = float("inf")
    with pytest.raises(ValueError, match="layer 2: x holds NaN or infinity"):
        quantization.quantize_(model)
    assert type(model[0]) is torch.nn.Linear


@pytest.mark.parametrize("how", [{"group_size": 8}, {"activations": 8}])
def test_saved_and_loaded_bit_for_bit(tmp_path, how):
    model, twin = toys.llama(), toys.llama()
    for either in (model, twin):
        quantization.quantize_(either, bits=4, **how)
    for name, tensor in twin.state_dict().items():
        if name.endswith(("qweight", "scale")):
            tensor.zero_()
    assert not torch.equal(toys.logits(model), toys.logits(twin))
    state = {k: v for k, v in model.state_dict().items() if k != "lm_head.weight"}
    files.save_tensors(tmp_path / "m.safetensors", state)
    loaded, _ = files.load_tensors(tmp_path / "m.safetensors")
    twin.load_state_dict(loaded, strict=False)
    assert torch.equal(toys.logits(model), toys.logits(twin))
