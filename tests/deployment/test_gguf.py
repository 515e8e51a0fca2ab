"""A GGUF file holds our integers, and llama.cpp computes with it what we compute."""

import contextlib
import re

import gguf
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from lightcourse import assets, data, deployment, lora, models, pruning, quantization, surgery
from lightcourse.deployment import blocks
from lightcourse.quantization import QuantizedLinear
from tests import toys

TEN_BITS = 2.0**-11  # half a step of float16's ten stored bits
SMALL = 2.0**-25  # the same below 6e-5
HOW = {
    "Q8_0": {"bits": 8},
    "Q4_0": {"bits": 4},
    "Q4_1": {"bits": 4, "symmetric": False},
}


def quantized(kind, model=None, **more):
    model = models.load_tiny_lm("student") if model is None else model
    if kind != "F16":
        quantization.quantize_(model, group_size=32, **HOW[kind], **more)
    return model


@pytest.fixture(scope="module")
def tokenizer():
    return models.load_tiny_tokenizer()


def read(path):
    """Return a file's tensors by name, as gguf turns them into floats."""
    tensors = gguf.GGUFReader(path).tensors
    return {t.name: torch.tensor(gguf.dequantize(t.data, t.tensor_type)) for t in tensors}


def draw_layer(kind, seed, spread=1.0):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(6, 96, generator=generator) * spread
    return QuantizedLinear(weight, group_size=32, **HOW[kind])


@given(st.sampled_from(sorted(HOW)), st.integers(0, 999), st.sampled_from([1e-6, 1e-3, 1, 1e3]))
def test_a_block_read_back_is_the_layer_but_for_its_scales_rounding(kind, seed, spread):
    layer = draw_layer(kind, seed, spread)
    parts = blocks.of_integers(layer)
    back = gguf.dequantize(parts, gguf.GGMLQuantizationType[kind])
    weight, steps = layer.dequantize().numpy(), layer.scales().abs().repeat_interleave(32, 1)
    budget = {
        "Q8_0": np.maximum(np.abs(weight) * TEN_BITS, 128 * SMALL),
        "Q4_0": 0,
        "Q4_1": np.maximum(15 * steps.numpy() * TEN_BITS, SMALL),
    }
    assert (np.abs(back - weight) <= 1.001 * budget[kind]).all()


def test_the_bytes_of_blocks_are_counted():
    rows = {kind: blocks.of_integers(draw_layer(kind, 0)).shape for kind in HOW}
    assert rows == {"Q8_0": (6, 3 * 34), "Q4_0": (6, 3 * 18), "Q4_1": (6, 3 * 20)}
