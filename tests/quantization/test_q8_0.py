"""8 bits in groups of 32: the integers of ggml's Q8_0, and no more error than its product."""

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Kind
from gguf import quants

from lightcourse import kernels, panels, reference
from lightcourse.integers import pack
from lightcourse.quantization import QuantizedLinear


def q8_0(values):
    """Return ggml's integers and scales of each block: (rows, blocks, 32) and (rows, blocks)."""
    parts = quants.quantize(values, Kind.Q8_0).reshape(len(values), -1, 34)
    return parts[..., 2:].view(np.int8), parts[..., :2].copy().view(np.float16)[..., 0]


def relative(got, want):
    return np.linalg.norm(got - want) / np.linalg.norm(want)


def draw(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def test_the_same_weights_give_the_same_integers_and_scales():
    """But where a value lies halfway, which ggml rounds away from 0 and we to the even integer.

    We divide by the scale, ggml multiplies by its inverse: on the edge of halfway one in many
    thousands may differ by one, too.
    """
    weight = draw(0, 40, 1536)
    layer = QuantizedLinear(torch.from_numpy(weight), group_size=32, activations=8)
    q, scale = q8_0(weight)
    off = np.abs(layer.integers().numpy().astype(int) - q.reshape(weight.shape))
    assert off.max() <= 1 and (off > 0).mean() < 1e-4
    np.testing.assert_array_equal(layer.scales().numpy(), scale.astype(np.float32))


def test_blocks_of_ggml_are_taken_as_they_are():
    weight = draw(1, 20, 96)
    q, scale = (torch.from_numpy(part.copy()) for part in q8_0(weight))
    layer = QuantizedLinear.from_integers(q.flatten(1), scale, None, 8, activations=8)
    theirs = quants.dequantize(quants.quantize(weight, Kind.Q8_0), Kind.Q8_0)
    np.testing.assert_array_equal(layer.dequantize().numpy(), theirs)


def test_rows_of_x_are_quantized_as_ggml_does_but_for_the_scales_precision():
    x = draw(2, 30, 1536)
    q, scale = kernels.quantize_groups(x, 32)
    theirs, halves = q8_0(x)
    off = np.abs(q.astype(int) - theirs.reshape(x.shape))
    assert off.max() <= 1 and (off > 0).mean() < 1e-4
    np.testing.assert_array_equal(scale.astype(np.float16), halves)


def test_the_products_error_is_that_of_q8_0_and_less_than_with_one_scale_a_row():
    x, weight = draw(3, 32, 1536), draw(4, 96, 1536)
    want = x.astype(float) @ weight.T.astype(float)
    (x_q, x_scale), (w_q, w_scale) = q8_0(x), q8_0(weight)
    sums = np.einsum("mgk,ngk->mng", x_q.astype(float), w_q.astype(float))
    theirs = (sums * x_scale[:, None].astype(float) * w_scale.astype(float)).sum(2)
    layers = [
        QuantizedLinear(torch.from_numpy(weight), group_size=size, activations=8)
        for size in (32, None)
    ]
    ours, by_rows = (relative(layer(torch.from_numpy(x)).numpy(), want) for layer in layers)
    assert ours == pytest.approx(relative(theirs, want), rel=0.03)
    assert ours < 0.8 * by_rows


def test_a_group_too_small_for_half_precision_is_stored_as_zeros():
    weight = torch.randn(3, 64)
    weight[1, :32] = 1e-7
    layer = QuantizedLinear(weight, group_size=32, activations=8)
    back = layer.dequantize()
    assert back[1, :32].count_nonzero() == 0 and back[1, 32:].count_nonzero() > 0
    with pytest.raises(ValueError, match="scale reaches .* no torch.float16 holds"):
        QuantizedLinear(weight * 1e8, group_size=32, activations=8)


def test_the_layer_calls_the_kernel_by_groups_with_what_it_stores():
    weight, bias, x = draw(5, 20, 64), draw(6, 20), draw(7, 3, 64)
    layer = QuantizedLinear(torch.from_numpy(weight), torch.from_numpy(bias), 8, 32, 8)
    halves = panels.pack_groups(layer.scales().half().numpy())
    packed = panels.pack_w8(layer.integers().numpy(), 32)
    want = reference.linear_w8a8_grouped(x, packed, halves, bias)
    np.testing.assert_allclose(layer(torch.from_numpy(x)).numpy(), want, rtol=1e-5, atol=1e-5)


def test_only_what_integer_kernels_multiply_is_stored_in_halves():
    q, scale = torch.ones(3, 64, dtype=torch.int8), torch.ones(3, 2)
    assert pack(q, scale, None, 8)["scale"].dtype == torch.float32
    assert pack(q, scale, None, 8, halves=True)["scale"].shape == (1, 2, 16)
    ends = {"activations": 8, "activation_range": (-1.0, 1.0)}
    for how in ({}, ends):
        assert QuantizedLinear(torch.randn(3, 64), group_size=32, **how).scale.shape == (3, 2)
