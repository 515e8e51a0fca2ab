"""Layers of codes: what they answer, store, save, and refuse."""

import copy
from functools import partial

import pytest
import torch
from torch import nn

from lightcourse import generation, layers, lora, models, quantization
from lightcourse.quantization import CodebookLinear, codebook_

KINDS = {
    "nf4": partial(quantization.nf4, block=32),
    "mxfp4": quantization.mxfp4,
    "nvfp4": quantization.nvfp4,
    "fp8": quantization.fp8,
    "log4": quantization.log4,
    "kmeans of 3 bits": partial(quantization.kmeans, bits=3),
    "kmeans in blocks": partial(quantization.kmeans, bits=2, block=32),
    "binary": quantization.binary,
    "ternary": quantization.ternary,
}
every_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=list(KINDS))


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def build(kind, rows=24, columns=64):
    return CodebookLinear(kind(draw(rows, columns)), draw(rows, seed=1))


@every_kind
@pytest.mark.parametrize("rows", [1, 3, 40])
def test_it_answers_as_the_matrix_that_it_stores(kind, rows):
    layer, x = build(kind), draw(2, rows, 64, seed=2)
    wanted = nn.functional.linear(x.double(), layer.weight.double(), layer.bias.double())
    assert torch.equal(layer.weight, kind(draw(24, 64)).read_back())
    assert torch.allclose(layer(x).double(), wanted, rtol=1e-5, atol=1e-5)
    assert layer(x).shape == (2, rows, 24)


@every_kind
def test_its_bytes_are_those_that_the_code_promises(kind):
    layer, coded = build(kind), kind(draw(24, 64))
    held = sum(b.nbytes for name, b in layer.named_buffers() if name != "bias")
    assert held + 4 * (coded.factor != 1) == coded.nbytes


def test_gradients_flow_through_it():
    layer, x = build(KINDS["nf4"]), draw(3, 64, seed=2).requires_grad_()
    layer(x).sum().backward()
    assert torch.allclose(x.grad, layer.weight.sum(0).expand(3, -1), atol=1e-5)
    assert not list(layer.parameters())


def test_a_row_of_nan_stays_one_row():
    layer, x = build(KINDS["nf4"]), draw(3, 64)
    x[1, 5] = torch.nan
    assert layer(x)[1].isnan().all() and not layer(x)[[0, 2]].isnan().any()


def test_a_model_is_converted_and_told_of():
    model = models.load_tiny_lm("student")
    plain = copy.deepcopy(model)
    report = codebook_(model, KINDS["nf4"], skip=["model.layers.0.mlp.down_proj"])
    assert report.total > 0 and "named in skip" in str(report)
    assert "lm_head" in report.skipped  # it shares its weight with the table
    ids = torch.arange(20)[None]
    with torch.no_grad():
        off = (model(ids).logits - plain(ids).logits).norm() / plain(ids).logits.norm()
    assert 0.001 < off < 0.5
    text = generation.generate(model, ids, 5)
    assert text.shape == (1, 25)


def test_each_layer_may_have_its_own_code():
    model = nn.Sequential(nn.Linear(32, 8), nn.Linear(8, 8))
    names = list(layers.linear_layers(model))
    codebook_(model, {names[0]: quantization.binary})
    assert isinstance(model.get_submodule(names[0]), CodebookLinear)
    assert isinstance(model.get_submodule(names[1]), nn.Linear)


@every_kind
def test_saved_and_loaded_it_is_the_same(kind, tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 8))
    fresh = copy.deepcopy(model)
    codebook_(model, {"0": kind})
    path = quantization.save_quantized(model, tmp_path / "coded.safetensors")
    quantization.load_quantized_(fresh, path)
    x = draw(4, 64)
    assert torch.equal(model(x), fresh(x))
    assert fresh[0].scale.dtype == model[0].scale.dtype


def test_a_lora_trains_beside_it():
    model = models.load_tiny_lm("student")
    codebook_(model, KINDS["nf4"])
    lora.add_lora_(model, rank=2, alpha=4)
    loss = model(torch.arange(20)[None], labels=torch.arange(20)[None]).loss
    loss.backward()
    assert any(p.grad is not None and p.grad.any() for p in model.parameters() if p.requires_grad)


def test_dequantized_it_is_an_ordinary_layer():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 24))
    codebook_(model, KINDS["kmeans of 3 bits"])
    weight = model[0].weight
    quantization.dequantize_(model)
    assert type(model[0]) is nn.Linear and torch.equal(model[0].weight, weight)


def test_it_moves_and_copies():
    layer = build(KINDS["mxfp4"])
    twin = copy.deepcopy(layer).to(torch.float16)
    assert twin.weight.dtype == torch.float16 and twin.scale.dtype == layer.scale.dtype
    assert "bits=4" in repr(layer)


def test_it_exports():
    layer = build(KINDS["nf4"])
    exported = torch.export.export(layer, (draw(3, 64),))
    assert torch.allclose(exported.module()(draw(3, 64)), layer(draw(3, 64)), atol=1e-5)


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda m: codebook_(m, {"5": quantization.nf4}), "5"),
        (lambda m: codebook_(m, lambda weight: weight), "a Coded is wanted"),
        (lambda m: codebook_(m, partial(quantization.nf4, block=48)), "layer 0: block is 48"),
        (lambda m: codebook_(m, quantization.nf4, skip=["0", "1"]), "nothing was coded"),
    ],
)
def test_bad_input_changes_nothing(change, words):
    model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 60))
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=words):
        change(model)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_a_program_refuses_it_by_name():
    model = models.load_tiny_lm("student")
    codebook_(model, KINDS["nf4"])
    with pytest.raises(ValueError, match="CodebookLinear"):
        generation.jit(model)


def test_columns_that_do_not_fill_bytes_are_refused():
    with pytest.raises(ValueError, match="multiple of 8"):
        CodebookLinear(quantization.binary(torch.ones(2, 12)))
