"""What other verbs make of layers that share: it stays one, or is refused in a sentence."""

import pytest
import torch

from lightcourse import layers, lora, metrics, pruning, quantization, sharing, surgery
from tests import toys

IDS = torch.arange(1, 17).view(2, 8)
BATCHES = [{"input_ids": IDS, "attention_mask": torch.ones_like(IDS)}]


def small_nf4(weight):
    return quantization.nf4(weight, block=8)


def on_the_grid(model, **how):
    quantization.prepare_qat_(model, 3)
    return quantization.convert_qat_(model, **how)


VERBS = {
    "8 bits": quantization.quantize_,
    "4 bits, kernels": lambda model: quantization.quantize_(model, 4, activations=8),
    "tables too": lambda model: quantization.quantize_(model, 8, embeddings=8),
    "codes": lambda model: quantization.codebook_(model, small_nf4),
    "named codes": lambda model: quantization.codebook_(
        model, dict.fromkeys(layers.linear_layers(model), small_nf4)
    ),
    "grid": on_the_grid,
    "grid, codes": lambda model: on_the_grid(model, codes=True),
}


def shared(family):
    model = toys.ALL[family]()
    sharing.share_layers_(model)
    return model


def stack_of(model):
    return next(iter(surgery.layer_stacks(model).values()))


@pytest.mark.parametrize("family", toys.ALL)
@pytest.mark.parametrize("verb", VERBS)
def test_integers_and_codes_are_stored_once(family, verb, tmp_path):
    model = shared(family)
    before, size = toys.logits(model), metrics.size_in_bytes(model)
    report = VERBS[verb](model)
    assert size - metrics.size_in_bytes(model) == report.total > 0
    first, second = (dict(layer.named_buffers()) for layer in stack_of(model)[:2])
    assert all(first[name] is second[name] for name in first if "inv_freq" not in name)
    assert (toys.logits(model) - before).abs().max() < 0.5 * before.abs().max()
    path = quantization.save_quantized(model, tmp_path / "x")
    again = shared(family)
    quantization.load_quantized_(again, path)
    assert metrics.size_in_bytes(again) == metrics.size_in_bytes(model)
    assert torch.equal(toys.logits(again), toys.logits(model))
    quantization.dequantize_(model)
    assert metrics.size_in_bytes(model) == size


@pytest.mark.parametrize("family", toys.ALL)
def test_each_layer_learns_an_update_of_its_own(family, tmp_path):
    model = shared(family)
    size = sum(p.numel() for p in model.parameters())
    report = lora.add_lora_(model, rank=2)
    assert len(report.changed) >= len(stack_of(model)) * 4
    assert sum(p.numel() for p in model.parameters()) - size == report.total
    for name, parameter in model.named_parameters():
        if "lora_b" in name:
            torch.nn.init.normal_(parameter)
    with pytest.raises(ValueError, match="shares its weight with .*; keep the update beside it"):
        lora.merge_lora_(model)
    lora.save_lora(model, tmp_path)
    again = shared(family)
    lora.load_lora_(again, tmp_path)
    assert torch.equal(toys.logits(again), toys.logits(model))


@pytest.mark.parametrize("family", toys.ALL)
def test_zeros_are_set_and_held_once(family):
    model = shared(family)
    pruning.prune_(model, pruning.layer_mask(pruning.magnitude_scores(model), 0.5))
    with pruning.hold_masks(model):
        optimizer = torch.optim.Adam(model.parameters(), 1e-2)
        model(**BATCHES[0]).logits.sum().backward()
        optimizer.step()
    assert metrics.sparsity(model) == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_layers_that_share_can_go(family):
    model = shared(family)
    size = metrics.size_in_bytes(model)
    report = pruning.remove_layers_(model, [0])
    assert report.total == 0 and metrics.size_in_bytes(model) == size
    assert torch.equal(*toys.written(model, IDS[:1]))


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_what_needs_a_weight_for_each_place_refuses(family):
    model = shared(family)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    scores = pruning.magnitude_scores(model)
    calls = [
        (lambda: quantization.gptq_(model, BATCHES), "nothing was quantized: .*shares its weight"),
        (lambda: pruning.neuron_scores(model, scores), "that own their weights"),
        (lambda: pruning.remove_heads_(model, {}), "that own their weights"),
        (lambda: quantization.smooth_(model, BATCHES), "without a norm that only linear layers"),
        (lambda: quantization.split_outliers_(model, BATCHES), "nothing was .*shares its weight"),
    ]
    for call, message in calls:
        with pytest.raises(ValueError, match=message):
            call()
    assert all(torch.equal(before[name], now) for name, now in model.state_dict().items())
