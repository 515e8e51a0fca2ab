"""calibrate measures the range of what layers see, in bounded memory."""

import pytest
import torch

from lightcourse import calibration, layers, quantization
from lightcourse.calibration.ranges import BINS, _Histogram
from tests import toys

IDS = torch.arange(1, 33).view(4, 8)


def batch(ids=IDS, mask=None):
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids) if mask is None else mask}


def seen(model, batches):
    """Keep all inputs of all layers, as calibration must not."""
    inputs = {}
    hooks = [
        module.register_forward_pre_hook(
            lambda _, given, name=name: inputs.setdefault(name, []).append(given[0].flatten())
        )
        for name, module in model.named_modules()
        if name in {*layers.linear_layers(model), *layers.tied_layers(model)}
    ]
    with torch.no_grad():
        for one in batches:
            model(**one)
    for hook in hooks:
        hook.remove()
    return {name: torch.cat(parts) for name, parts in inputs.items()}


@pytest.mark.parametrize("family", toys.ALL)
def test_the_full_range_is_the_smallest_and_the_largest_input(family):
    model = toys.ALL[family]()
    batches = [batch(IDS[:1]), batch(IDS[1:])]
    ranges = calibration.calibrate(model, batches)
    inputs = seen(model, batches)
    assert ranges == {name: (x.min().item(), x.max().item()) for name, x in inputs.items()}
    assert set(ranges) == {*layers.linear_layers(model), *layers.tied_layers(model)}


@pytest.mark.parametrize("percent", [99.9, 99, 90, 50.5])
def test_a_histogram_finds_percentiles_to_a_bin(percent):
    torch.manual_seed(0)
    parts = [torch.randn(500, 8) * size for size in (0.1, 1, 3, 20, 0.01)]
    batches = [{"input": part} for part in parts]
    low, high = calibration.calibrate(toys.mlp(), batches, ["0"], percent)["0"]
    x = torch.cat(parts)
    wanted = [end.item() for end in quantization.percentile_range(x, percent)]
    bin_width = x.abs().max().item() / 512
    assert low == pytest.approx(wanted[0], abs=bin_width)
    assert high == pytest.approx(wanted[1], abs=bin_width)
    assert low <= wanted[0] + 1e-6 and high >= wanted[1] - 1e-6


def test_doubling_loses_no_count_and_no_place():
    grown, whole = _Histogram(), _Histogram()
    x = torch.linspace(-8, 8, 4001)
    whole.add(x)
    for part in (x[1900:2100], x[:1900], x[2100:]):
        grown.add(part)
    assert grown.counts.sum() == whole.counts.sum() == 4001
    assert 8 <= grown.limit < 16 and len(grown.counts) == BINS
    for percent in (99.0, 80.0):
        wanted = whole.inner_range(percent)
        assert grown.inner_range(percent) == pytest.approx(wanted, abs=16 / 512)


@pytest.mark.parametrize("value", [0.0, 2.5, -2.5, 1e-40])
def test_constant_inputs_have_a_range(value):
    batches = [{"input": torch.full((4, 8), value)}] * 2
    wanted = torch.tensor(value).item()
    for percent in (100, 99):
        low, high = calibration.calibrate(toys.mlp(), batches, ["0"], percent)["0"]
        assert low == pytest.approx(wanted, abs=3e-3) and high == pytest.approx(wanted, abs=3e-3)
        assert low <= wanted <= high


@pytest.mark.parametrize("percent", [100, 99])
def test_padding_does_not_count(percent):
    model = toys.llama()
    # A token that lies on one axis: its largest input is larger than any other's.
    model.model.embed_tokens.weight.data[49] = torch.eye(16)[3]
    mask, garbage = torch.ones_like(IDS), IDS.clone()
    mask[:, 6:], garbage[:, 6:] = 0, 49
    padded = calibration.calibrate(model, [batch(garbage, mask)], percent=percent)
    clean = calibration.calibrate(model, [batch(IDS[:, :6])], percent=percent)
    counted = calibration.calibrate(model, [batch(garbage)], percent=percent)
    for name, ends in clean.items():
        assert padded[name] == pytest.approx(ends, abs=2e-2)
    name = "model.layers.0.self_attn.q_proj"
    assert counted[name][1] > clean[name][1] + 0.5


@pytest.mark.parametrize("wrong", [50, 0, -1, 101, float("nan")])
def test_other_percents_are_refused(wrong):
    with pytest.raises(ValueError, match=f"percent is {wrong}; more than 50 and at most 100"):
        calibration.calibrate(toys.mlp(), [{"input": torch.ones(2, 8)}], percent=wrong)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("percent", [100, 99])
def test_inputs_that_are_not_finite_are_refused(bad, percent):
    with pytest.raises(ValueError, match="the inputs of 0 hold NaN or infinity"):
        calibration.calibrate(toys.mlp(), [{"input": torch.full((2, 8), bad)}], percent=percent)


def test_text_and_layers_that_are_not_there_are_refused():
    with pytest.raises(ValueError, match="batches is empty"):
        calibration.calibrate(toys.mlp(), [])
    with pytest.raises(ValueError, match=r"names holds \['9'\]"):
        calibration.calibrate(toys.mlp(), [{"input": torch.ones(2, 8)}], ["9"])
    with pytest.raises(ValueError, match="without a linear layer"):
        calibration.calibrate(torch.nn.ReLU(), [{"input": torch.ones(2, 8)}])


def test_a_histogram_counts_beyond_what_float32_can():
    histogram = _Histogram()
    histogram.add(torch.zeros(2**24 + 5))
    assert histogram.counts.sum() == 2**24 + 5
