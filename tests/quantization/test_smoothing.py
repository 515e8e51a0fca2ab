"""Factors that move: answers stay, and what is rounded afterwards loses less."""

import copy

import pytest
import torch

from lightcourse import layers, quantization, surgery
from lightcourse.quantization import awq_, smooth_, synthetic_outliers_
from tests import families, toys

PRE_NORM = ["GPT-2", "GPT-NeoX", "Falcon", "Llama", "Qwen2", "Qwen2-MoE", "T5", "Whisper", "ViT"]


def text(seed=0):
    ids = torch.randint(0, 50, (3, 2, 16), generator=torch.Generator().manual_seed(seed))
    return [{"input_ids": rows, "attention_mask": torch.ones_like(rows)} for rows in ids]


def close(after, before):
    return (after - before).norm() < 1e-5 * before.norm()


@pytest.mark.parametrize("family", PRE_NORM)
def test_smoothing_changes_no_answer(family):
    model, inputs = families.make(family)
    for own in model.parameters():
        own.data += 0.05 * torch.randn(own.shape)
    before, state = families.answer(model, inputs), copy.deepcopy(model.state_dict())
    report = smooth_(model, [inputs])
    assert close(families.answer(model, inputs), before)
    changed = {n for n, own in model.state_dict().items() if not torch.equal(own, state[n])}
    assert {f"{norm}.weight" for norm in report.changed} <= changed


def test_factors_are_those_of_the_paper():
    model = toys.llama()
    found = surgery.norm_readers(model)
    norm, readers = next(iter(found.items()))
    seen = []
    hook = model.get_submodule(norm).register_forward_hook(lambda *_: seen.append(_[2]))
    for inputs in text():
        model(**inputs)
    hook.remove()
    largest = torch.cat(seen).flatten(0, 1).abs().amax(0)
    weights = torch.cat([model.get_submodule(name).weight for name in readers]).abs().amax(0)
    before = model.get_submodule(norm).weight.clone()
    smooth_(model, text(), alpha=0.7)
    wanted = before / (largest**0.7 / weights**0.3)
    torch.testing.assert_close(model.get_submodule(norm).weight, wanted)


def far(model, wanted):
    return (toys.logits(model) - wanted).norm() / wanted.norm()


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_outliers_spoil_8_bit_activations_and_smoothing_saves_them(family):
    model = toys.ALL[family]()
    before = toys.logits(model)
    synthetic_outliers_(model, [1, 5])
    assert close(toys.logits(model), before)
    spoiled, saved = model, copy.deepcopy(model)
    smooth_(saved, text())
    for small in (spoiled, saved):
        quantization.quantize_(small, 8, activations=8)
    assert far(saved, before) < 0.3 * far(spoiled, before)


def refusals():
    yield "alpha is 1.5", text(), 1.5
    yield "alpha is nan", text(), float("nan")
    yield "batches is empty", [], 0.5
    yield "ids 0..50", [{"input_ids": torch.tensor([[0, 50]])}], 0.5
    yield "batches holds a int", [3], 0.5


@pytest.mark.parametrize("message, batches, alpha", list(refusals()))
def test_bad_input_is_refused_and_nothing_changes(message, batches, alpha):
    model = toys.llama()
    state = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=message):
        smooth_(model, batches, alpha)
    assert all(torch.equal(own, model.state_dict()[name]) for name, own in state.items())


def test_a_norm_whose_output_goes_elsewhere_too_is_no_place_for_factors():
    with pytest.raises(ValueError, match="without a norm that only linear layers read"):
        smooth_(toys.bert(), text())
    model, _ = families.make("Mixtral")
    assert all(norm.endswith("input_layernorm") for norm in surgery.norm_readers(model))
    tied = surgery.norm_readers(toys.llama())
    assert "model.norm" not in tied and len(tied) == 6
    with pytest.raises(ValueError, match="without a norm"):
        synthetic_outliers_(toys.bert(), [0])


@pytest.mark.parametrize("channels", [[], [16], [-1]])
def test_channels_that_are_not_there_are_refused(channels):
    with pytest.raises(ValueError, match="some of 0 to 15 are wanted"):
        synthetic_outliers_(toys.llama(), channels)
    with pytest.raises(ValueError, match="factor is"):
        synthetic_outliers_(toys.llama(), [0], 0)


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama"])
def test_awqs_factors_change_no_answer_before_rounding(family, monkeypatch):
    from lightcourse.quantization import smoothing

    model = toys.ALL[family]()
    for own in model.parameters():
        own.data += 0.05 * torch.randn(own.shape)
    for name, layer in layers.linear_layers(model).items():
        if name.endswith(("value", "v_proj")):
            layer.weight.data *= torch.linspace(0.05, 4, 16)[:, None]
    before, state = toys.logits(model), copy.deepcopy(model.state_dict())
    report = layers.Report("quantized", "bytes saved")
    monkeypatch.setattr(smoothing, "quantize_", lambda *how, **more: report)
    awq_(model, text(), 3)
    assert close(toys.logits(model), before)
    assert any(not torch.equal(own, state[name]) for name, own in model.state_dict().items())
    assert "groups of layers were rescaled" in str(report)


def outputs(model, names):
    """Return what some layers give on the text, side by side."""
    seen = []
    hooks = [
        model.get_submodule(name).register_forward_hook(lambda *_: seen.append(_[2].detach()))
        for name in names
    ]
    for inputs in text():
        model(**inputs)
    for hook in hooks:
        hook.remove()
    return torch.stack(seen)


@pytest.mark.parametrize("group_size, symmetric", [(None, True), (8, False)])
def test_awq_loses_less_output_than_the_nearest_where_inputs_differ_in_size(group_size, symmetric):
    model = toys.llama()
    found = surgery.norm_readers(model)
    torch.manual_seed(0)
    for norm in found:
        model.get_submodule(norm).weight.data *= torch.linspace(0.05, 4, 16)[torch.randperm(16)]
    first = next(iter(found.values()))[:2]  # values are divided again, for what reads them
    wanted = outputs(model, first)
    nearest, moved = model, copy.deepcopy(model)
    quantization.quantize_(nearest, 3, group_size, symmetric=symmetric)
    report = awq_(moved, text(), 3, group_size, symmetric)
    assert set(report.changed) == set(layers.integer_layers(moved))
    lost = [(outputs(small, first) - wanted).norm() for small in (moved, nearest)]
    assert lost[0] < 0.9 * lost[1]


def test_awq_leaves_the_model_where_it_refuses():
    model = toys.llama()
    state = copy.deepcopy(model.state_dict())
    for message, how in {
        "group_size is 5": {"group_size": 5},
        "bits is 9": {"bits": 9},
        "skip names": {"skip": ["other"]},
        "symmetric is False": {"bits": 8, "symmetric": False, "activations": 8},
    }.items():
        with pytest.raises(ValueError, match=message):
            awq_(model, text(), **how)
    assert all(torch.equal(own, model.state_dict()[name]) for name, own in state.items())
