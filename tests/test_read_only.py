"""A weight that is only shown: reading works everywhere, writing says that it would be lost."""

import pytest
import torch
from torch import nn

from lightcourse import lora, quantization
from lightcourse.read_only import ReadOnly
from tests import families


def shown():
    layer = quantization.QuantizedLinear(torch.randn(8, 64))
    return layer, layer.weight


WRITES = {
    "zero_": lambda w: w.zero_(),
    "item": lambda w: w.__setitem__(0, 1.0),
    "data": lambda w: w.data.mul_(2),
    "set data": lambda w: setattr(w, "data", torch.zeros(8, 64)),
    "detach": lambda w: w.detach().fill_(0),
    "gradient": lambda w: w.requires_grad_(True),
    "set gradient": lambda w: setattr(w, "requires_grad", True),
    "add": lambda w: w.__iadd__(1),
}


@pytest.mark.parametrize("write", WRITES)
def test_a_write_is_refused(write):
    layer, weight = shown()
    before = layer.dequantize()
    with pytest.raises(RuntimeError, match="would change nothing"):
        WRITES[write](weight)
    assert torch.equal(layer.dequantize(), before)


def test_reading_gives_ordinary_tensors():
    layer, weight = shown()
    assert isinstance(weight, ReadOnly) and weight.dtype == torch.float32
    for made in (weight + 1, weight.T, weight.float().abs(), nn.functional.linear(weight, weight)):
        assert type(made) is torch.Tensor
    assert torch.equal(weight, layer.dequantize()) and weight.shape == (8, 64)
    assert weight.numpy().shape == (8, 64) and "tensor(" in repr(weight)


@pytest.mark.parametrize("change", ["integers", "LoRA", "LoRA over integers"])
def test_torch_s_fast_path_does_not_go_around_the_layer(change):
    model, inputs = families.make("nn.TransformerEncoder")
    if "integers" in change:
        quantization.quantize_(model, 8, activations=8)
    if "LoRA" in change:
        lora.add_lora_(model, rank=2)
        for layer in lora.shell.updates(model).values():
            nn.init.normal_(layer.lora_b)
    with torch.no_grad():
        fast = model(**inputs)
    slow = model(**inputs)
    tolerance = 0 if change != "LoRA" else 1e-5
    assert torch.allclose(fast, slow.detach(), rtol=0, atol=tolerance)


def test_gradients_reach_a_lora_through_a_weight_that_torch_reads():
    model, inputs = families.make("nn.TransformerEncoder")
    quantization.quantize_(model, 8)
    lora.add_lora_(model, rank=2)
    model(**inputs).square().sum().backward()
    projection = model.encoder.layers[0].self_attn.out_proj
    assert projection.lora_b.grad.abs().sum() > 0
