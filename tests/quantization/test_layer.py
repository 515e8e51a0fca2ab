"""QuantizedLinear stores integers, computes with what it stores, and runs on the kernels."""

import copy
from functools import partial

import pytest
import torch

from lightcourse import metrics, quantization

FORMS = [(8, None), (8, 4), (5, 8), (4, None), (4, 8), (3, 8), (2, 4)]


def build(linear, *arguments, **keywords):
    return quantization.QuantizedLinear(linear.weight, linear.bias, *arguments, **keywords)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits, group_size", FORMS)
def test_the_layer_computes_with_what_it_stores(bits, group_size, symmetric):
    torch.manual_seed(0)
    linear = torch.nn.Linear(24, 5)
    layer = build(linear, bits, group_size, symmetric=symmetric)
    x = torch.randn(2, 3, 24)
    want = x @ layer.dequantize().T + linear.bias
    assert torch.allclose(layer(x), want, atol=1e-5)
    groups = 24 // (group_size or 24)
    assert layer.scales().shape == layer.zero_points().shape == (5, groups)
    if bits > 4:  # fewer bits cut the largest weights off, on purpose
        step = layer.scales().repeat_interleave(24 // groups, 1)
        bound = step * (0.501 if symmetric else 1.001)
        assert ((layer.dequantize() - linear.weight).abs() <= bound).all()


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits, group_size", FORMS)
def test_integers_scales_and_zero_points_are_the_matrix(bits, group_size, symmetric):
    layer = build(torch.nn.Linear(24, 17), bits, group_size, symmetric=symmetric)
    q, scales, zeros = layer.integers(), layer.scales(), layer.zero_points()
    quant_min, quant_max = quantization.quant_range(bits)
    assert q.dtype == torch.int8 and quant_min <= q.min() and q.max() <= quant_max
    assert zeros.dtype == torch.int32 and bool(zeros.any()) is not symmetric
    groups = quantization.into_groups(q, 24 // scales.shape[1])
    back = quantization.dequantize_affine(groups, scales[..., None], zeros[..., None])
    assert torch.equal(back.view(17, 24), layer.dequantize())


def test_above_four_bits_the_integers_are_those_of_the_functions():
    weight = torch.randn(6, 12)
    for symmetric in (True, False):
        layer = quantization.QuantizedLinear(weight, bits=6, group_size=4, symmetric=symmetric)
        groups = quantization.into_groups(weight, 4)
        qparams = quantization.choose_qparams_affine(groups, 6, symmetric, dim=-1)
        q = quantization.quantize_affine(groups, *qparams, 6)
        assert torch.equal(layer.integers(), q.view(6, 12))
        assert torch.equal(layer.zero_points(), qparams[1].squeeze(-1))


def test_up_to_four_bits_the_scales_are_those_of_least_squares():
    weight = torch.randn(6, 32)
    groups = quantization.into_groups(weight, 8)
    layer = quantization.QuantizedLinear(weight, bits=4, group_size=8)
    assert layer.scale.dtype == torch.float16
    assert torch.equal(layer.scales(), quantization.search_scale(groups, 4).squeeze(-1))
    layer = quantization.QuantizedLinear(weight, bits=4, group_size=8, symmetric=False)
    scale, zero_point = quantization.choose_qparams_mse(groups, 4, dim=-1)
    assert torch.equal(layer.scales(), scale.squeeze(-1))
    assert torch.equal(layer.zero_points(), zero_point.squeeze(-1))


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_zero_points_pay_on_skewed_weights(bits):
    torch.manual_seed(0)
    weight = torch.randn(20, 64) + 2
    errors = []
    for symmetric in (True, False):
        layer = quantization.QuantizedLinear(weight, None, bits, 32, symmetric=symmetric)
        errors.append((layer.dequantize() - weight).square().mean())
    assert errors[1] < 0.8 * errors[0]


def test_bytes_stored_are_bytes_held():
    weight = torch.randn(64, 128)
    eight = quantization.QuantizedLinear(weight, bits=8)
    four = quantization.QuantizedLinear(weight, bits=4, group_size=32)
    assert metrics.size_in_bytes(eight) == 64 * 128 + 64 * 4
    assert metrics.size_in_bytes(four) == 64 * 128 // 2 + 64 * 4 * 2
    shifted = quantization.QuantizedLinear(weight, bits=4, group_size=32, symmetric=False)
    assert metrics.size_in_bytes(shifted) == 64 * 128 // 2 + 64 * 4 * 3
    # Panels hold 16 outputs, and blocks of two halves 32 inputs: the rest is filled up.
    odd = quantization.QuantizedLinear(torch.randn(17, 33), bits=4)
    assert metrics.size_in_bytes(odd) == 32 * 64 // 2 + 32 * 2


KERNELS = [
    (8, None, True),
    (6, None, True),
    (4, None, True),
    (4, 32, True),
    (3, 64, True),
    (2, 32, True),
    (8, 32, True),
    (5, 64, True),
    (4, None, False),
    (4, 32, False),
    (2, 64, False),
]


@pytest.mark.parametrize("bits, group_size, symmetric", KERNELS)
@pytest.mark.parametrize("inputs, outputs", [(128, 48), (64, 5), (192, 33)])
def test_integer_kernels_compute_what_the_floats_would(
    bits, group_size, symmetric, inputs, outputs
):
    torch.manual_seed(0)
    linear = torch.nn.Linear(inputs, outputs)
    make = partial(build, linear, bits, group_size, symmetric=symmetric)
    integer, floating = make(activations=8), make()
    x = torch.randn(2, 3, inputs)
    steps = x.abs().amax(-1, keepdim=True) / 127
    # Rounding x moves each product by half a step of x at most.
    bound = steps / 2 * floating.dequantize().abs().sum(1) + 1e-4
    assert ((integer(x) - floating(x)).abs() <= bound).all()
    assert not torch.equal(integer(x), floating(x))


@pytest.mark.parametrize("bits, group_size, symmetric", KERNELS)
def test_gradients_flow_through_integer_kernels_to_the_input(bits, group_size, symmetric):
    weight, bias = torch.randn(3, 64), torch.randn(3)
    layer = quantization.QuantizedLinear(weight, bias, bits, group_size, 8, symmetric)
    x = torch.randn(2, 64, requires_grad=True)
    layer(x).sum().backward()
    assert torch.allclose(x.grad, layer.dequantize().sum(0).expand(2, 64), atol=1e-5)


def test_a_static_grid_rounds_the_inputs_and_clamps_what_lies_outside():
    torch.manual_seed(0)
    linear = torch.nn.Linear(16, 4)
    layer, plain = build(linear, activations=8, activation_range=(-1.0, 2.0)), build(linear)
    assert layer.activations == 8 and layer.static
    scale, zero_point = quantization.choose_qparams_affine_with_min_max(-1.0, 2.0)
    x = torch.randn(5, 16) * 2
    assert torch.equal(layer(x), plain(quantization.fake_quantize(x, scale, zero_point)))
    lifted = x.clamp(min=2)
    assert torch.allclose(layer(lifted), plain(torch.full_like(x, 2.0)), atol=1e-5)
    fixed = layer(torch.cat([x, x * 100]))[:5]
    assert torch.equal(fixed, layer(x))  # unlike a dynamic grid, it does not look at the input


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("activations, ends", [(None, None), (8, None), (8, (-1.0, 2.0))])
@pytest.mark.parametrize("bits, group_size, symmetric", [(8, None, True), (4, 32, False)])
def test_a_row_that_is_not_finite_is_never_hidden(
    bits, group_size, symmetric, activations, ends, bad
):
    torch.manual_seed(0)
    linear = torch.nn.Linear(64, 20)
    layer = build(linear, bits, group_size, activations, symmetric, activation_range=ends)
    clean = torch.randn(2, 3, 64)
    x = clean.clone()
    x[1, 0, 5] = bad
    got, want = layer(x), layer(clean)
    spoilt = torch.zeros(2, 3, dtype=torch.bool)
    spoilt[1, 0] = True
    assert not got[spoilt].isfinite().any()
    assert torch.equal(got[~spoilt], want[~spoilt])
    if activations is not None:
        assert got[spoilt].isnan().all()


def test_a_static_grid_passes_gradients_where_it_does_not_clamp():
    grid = {"activations": 8, "activation_range": (-1.0, 1.0)}
    layer = quantization.QuantizedLinear(torch.ones(1, 3), **grid)
    x = torch.tensor([[0.5, 3.0, -3.0]], requires_grad=True)
    layer(x).sum().backward()
    assert torch.allclose(x.grad, torch.tensor([[1.0, 0.0, 0.0]]), atol=1e-6)


@pytest.mark.parametrize("kind", [quantization.QuantizedLinear, quantization.QuantizedEmbedding])
def test_code_that_reads_the_weight_finds_floats_which_nothing_trains(kind):
    module = kind(torch.randn(3, 64).bfloat16())
    assert torch.equal(module.weight, module.dequantize().bfloat16())
    assert not list(module.parameters()) and "weight" not in module.state_dict()
    with pytest.raises((AttributeError, KeyError)):
        module.weight = torch.nn.Parameter(torch.ones(3, 64))


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((8, 16, 8), "group_size is 16; int8 activations want a multiple of 32"),
        ((8, 32, 8, False), "symmetric is False; above 4 bits, int8 activations want True"),
        ((4, 16, 8), "group_size is 16; int8 activations want a multiple of 32"),
        ((8, None, 8, False), "symmetric is False; above 4 bits, int8 activations want True"),
        ((8, None, 4), "activations is 4; None or 8 is wanted"),
        ((8, None, True), "activations is True; None or 8"),
        ((8, None, 8.0), "activations is 8.0; None or 8"),
        ((8, None, (-1.0, 1.0)), "activations is .-1.0, 1.0.; None or 8 is wanted"),
        ((17,), "bits is 17; a whole number from 2 to 8"),
        ((2.5,), "bits is 2.5; a whole number from 2 to 8"),
        ((True,), "bits is True; a whole number from 2 to 8"),
        ((8, 0), "group_size is 0; a divisor of the 64 columns"),
        ((4, -1), "group_size is -1; a divisor of the 64 columns"),
        ((4, 7), "group_size is 7; a divisor of the 64 columns"),
    ],
)
def test_what_cannot_be_computed_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        quantization.QuantizedLinear(torch.randn(3, 64), None, *arguments)


@pytest.mark.parametrize(
    "ends, message",
    [
        ((1.0,), "activation_range is .1.0,.; .low, high. is wanted"),
        ((2.0, 1.0), "low is above high"),
        ((0.0, float("nan")), "low or high is NaN or infinite"),
    ],
)
def test_a_range_that_is_none_is_refused(ends, message):
    with pytest.raises(ValueError, match=message):
        quantization.QuantizedLinear(torch.randn(3, 64), activations=8, activation_range=ends)


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("symmetric", [True, False])
def test_weights_that_no_grid_can_hold_are_refused(bits, symmetric):
    make = partial(quantization.QuantizedLinear, bits=bits, symmetric=symmetric)
    for bad in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="x holds NaN or infinity"):
            make(torch.tensor([[1.0, bad]]))
    for shape in [(0, 4), (4, 0)]:
        with pytest.raises(ValueError, match="weight has shape .*; at least one value is wanted"):
            make(torch.empty(shape))


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("value", [0.0, 1.5, -1.5, 1e-30, -1e-42])
def test_constant_and_tiny_rows_come_back(bits, symmetric, value):
    """Exactly where it is zero; else to float16's precision, below which all is zero."""
    weight = torch.randn(3, 32)
    weight[1] = value
    layer = quantization.QuantizedLinear(weight, None, bits, symmetric=symmetric)
    back = layer.dequantize()
    assert torch.allclose(back[1], weight[1], rtol=1e-3, atol=1e-7)
    assert torch.isfinite(back).all() and (value != 0 or back[1].count_nonzero() == 0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_weights_are_quantized_as_they_are(dtype):
    linear = torch.nn.Linear(64, 3, dtype=dtype)
    layer, same = build(linear), build(copy.deepcopy(linear).float())
    assert torch.equal(layer.integers(), same.integers())
    assert layer.dtype == layer.bias.dtype == dtype
    assert layer(torch.randn(2, 64, dtype=dtype)).dtype == dtype


def test_half_precision_and_no_rows_pass_through_integer_kernels():
    layer = quantization.QuantizedLinear(torch.randn(3, 64), torch.randn(3), activations=8)
    assert layer(torch.randn(2, 64, dtype=torch.bfloat16)).dtype == torch.bfloat16
    assert layer(torch.randn(0, 64)).shape == (0, 3)
    assert layer(torch.randn(64)).shape == (3,)


@pytest.mark.parametrize("bits", [8, 4])
def test_a_models_new_dtype_leaves_integers_and_scales_alone(bits):
    layer = quantization.QuantizedLinear(torch.randn(3, 64), torch.randn(3), bits, activations=8)
    before = {name: buffer.clone() for name, buffer in layer.named_buffers()}
    x = torch.randn(2, 64)
    wanted = layer(x)
    for dtype in (torch.float16, torch.float64, torch.float32):
        layer.to(dtype)
        assert layer.dtype == dtype
        for name, buffer in layer.named_buffers():
            assert torch.equal(buffer, before[name]) and buffer.dtype == before[name].dtype
    assert torch.equal(layer(x), wanted)


def test_gradients_flow_to_the_input_only():
    layer = quantization.QuantizedLinear(torch.randn(3, 4), torch.randn(3))
    x = torch.randn(2, 4, requires_grad=True)
    layer(x).sum().backward()
    assert torch.allclose(x.grad, layer.dequantize().sum(0).expand(2, 4))
    assert list(layer.parameters()) == []


def test_layers_describe_themselves():
    weight = torch.randn(3, 64)
    layer = quantization.QuantizedLinear(weight, None, 4, 32, symmetric=False)
    shown = "QuantizedLinear(64, 3, bits=4, group_size=32, activations=None, symmetric=False)"
    assert str(layer) == shown
    table = quantization.QuantizedEmbedding(weight)
    assert str(table) == "QuantizedEmbedding(3, 64, bits=8, group_size=None)"
