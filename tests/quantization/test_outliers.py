"""Layers in two parts: outliers in floats, the rest in integers; and where they come from."""

import copy

import pytest
import torch
import transformers
from torch import nn

from lightcourse import layers, metrics, quantization
from lightcourse.quantization import (
    QuantizedLinear,
    SplitLinear,
    split_outliers_,
    synthetic_outliers_,
)
from tests import toys


def text(seed=0):
    ids = torch.randint(0, 50, (3, 2, 16), generator=torch.Generator().manual_seed(seed))
    return [{"input_ids": rows, "attention_mask": torch.ones_like(rows)} for rows in ids]


def loud(seed=0, channel=2):
    """Return a layer, and inputs of which one channel is large."""
    torch.manual_seed(seed)
    x = torch.randn(5, 3, 8)
    x[..., channel] *= 100
    return nn.Linear(8, 6), x


def test_the_parts_add_up():
    dense, x = loud()
    split = SplitLinear(dense.weight, dense.bias, outliers=[2])
    plain = QuantizedLinear(dense.weight, dense.bias, 8, activations=8)
    wanted = dense(x)
    lost = [(layer(x) - wanted).norm() / wanted.norm() for layer in (split, plain)]
    assert lost[0] < 0.001 and lost[0] < 0.2 * lost[1]
    matrix = split.dequantize()
    assert torch.equal(matrix[:, 2], dense.weight[:, 2])
    torch.testing.assert_close(matrix, dense.weight, rtol=0, atol=0.003)
    quiet = x.clone()
    quiet[..., 2] = 0
    rest = dense.weight.detach().clone()
    rest[:, 2] = 0
    integers = QuantizedLinear(rest, dense.bias, 8, activations=8)
    torch.testing.assert_close(split(quiet), integers(quiet), rtol=0, atol=0)


def test_gradients_reach_all_inputs():
    dense, x = loud()
    x.requires_grad_(True)
    split = SplitLinear(dense.weight, dense.bias, outliers=[2])
    split(x).sum().backward()
    wanted = split.dequantize().sum(0).expand_as(x)
    torch.testing.assert_close(x.grad, wanted)


@pytest.mark.parametrize("outliers", [[], [8], [-1], [2, 2]])
def test_channels_that_are_not_there_are_refused(outliers):
    with pytest.raises(ValueError, match="some of the inputs 0 to 7, each once, are wanted"):
        SplitLinear(loud()[0].weight, outliers=outliers)


def far(model, wanted):
    return (toys.logits(model) - wanted).norm() / wanted.norm()


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_model_with_outliers_is_saved_by_splitting_it(family):
    model = toys.ALL[family]()
    before = toys.logits(model)
    synthetic_outliers_(model, [1, 5])
    plain, split = copy.deepcopy(model), model
    size = metrics.size_in_bytes(model)
    quantization.quantize_(plain, 8, activations=8)
    report = split_outliers_(split, text())
    assert far(split, before) < 0.3 * far(plain, before)
    assert size - metrics.size_in_bytes(split) == report.total
    kept = {name: m.outliers.tolist() for name, m in splits(split).items()}
    assert kept and all(set(found) == {1, 5} for found in kept.values())
    assert f"{len(kept)} layers keep {2 * len(kept)} of all" in str(report)
    assert set(report.changed) == set(layers.integer_layers(split))


def splits(model):
    return {n: m for n, m in model.named_modules() if isinstance(m, SplitLinear)}


def test_a_layer_all_of_whose_inputs_are_outliers_stays_in_floats():
    model = toys.llama()
    name = "model.layers.1.mlp.down_proj"
    model.get_submodule(name.replace("down", "up")).weight.data *= 1e9
    report = split_outliers_(model, text(), threshold=1e3)
    assert report.skipped[name] == "all its inputs are outliers: it stays in floats"
    assert type(model.get_submodule(name)) is nn.Linear and name not in report.changed


def test_without_outliers_it_is_the_plain_8_bit_model():
    plain, split = toys.bert(), toys.bert()
    quantization.quantize_(plain, 8, activations=8)
    split_outliers_(split, text(), threshold=1e6)
    assert torch.equal(toys.logits(split), toys.logits(plain)) and not splits(split)


def test_it_comes_back_from_disk_in_both_ways(tmp_path):
    model = toys.llama()
    synthetic_outliers_(model, [1])
    split_outliers_(model, text())
    assert splits(model)
    quantization.save_quantized(model, tmp_path / "q")
    loaded = toys.llama()
    quantization.load_quantized_(loaded, tmp_path / "q")
    assert torch.equal(toys.logits(loaded), toys.logits(model))
    assert splits(loaded).keys() == splits(model).keys()
    transformers.logging.disable_progress_bar()
    model.save_pretrained(tmp_path / "p")
    loaded = type(model).from_pretrained(tmp_path / "p").eval()
    transformers.logging.enable_progress_bar()
    assert torch.equal(toys.logits(loaded), toys.logits(model))


def test_floats_come_back_with_the_outliers_exact():
    model = toys.llama()
    synthetic_outliers_(model, [1])
    floats = copy.deepcopy(model)
    split_outliers_(model, text())
    names = list(splits(model))
    quantization.dequantize_(model)
    for name in names:
        one, other = (m.get_submodule(name).weight[:, 1] for m in (model, floats))
        assert torch.equal(one, other)


def test_the_captured_graph_gives_the_same():
    dense, x = loud()
    split = SplitLinear(dense.weight, dense.bias, outliers=[2]).eval()
    split = nn.Sequential(split)
    exported = torch.export.export(split, (x,)).module()
    torch.testing.assert_close(exported(x), split(x))


def refusals():
    yield "threshold is 0", text(), {"threshold": 0}
    yield "threshold is nan", text(), {"threshold": float("nan")}
    yield "below all inputs of", text(), {"threshold": 1e-9}
    yield "batches is empty", [], {}
    yield "ids 0..50", [{"input_ids": torch.tensor([[0, 50]])}], {}
    yield "skip names", text(), {"skip": ["other"]}


@pytest.mark.parametrize("message, batches, how", list(refusals()))
def test_bad_input_is_refused_and_nothing_changes(message, batches, how):
    model = toys.llama()
    before = toys.logits(model)
    with pytest.raises(ValueError, match=message):
        split_outliers_(model, batches, **how)
    assert torch.equal(toys.logits(model), before)
    assert not layers.integer_layers(model)
