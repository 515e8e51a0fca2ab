"""What is trained, added and run, and the bytes of a training step."""

import pytest
import torch

from lightcourse import lora, metrics, quantization, training
from tests import toys


def test_counts_before_beside_and_merged():
    model = toys.mlp()
    matrices, whole = 8 * 12 + 12 * 4, 8 * 12 + 12 + 12 * 4 + 4
    assert lora.counts(model) == lora.Counts(whole, 0, matrices)
    first = lora.add_lora_(model, 2, adapter="first").total
    assert first == 2 * (8 + 12) + 2 * (12 + 4)
    assert lora.counts(model) == lora.Counts(first, first, matrices + first)
    second = lora.add_ia3_(model, ["0"], ["2"], adapter="second").total
    assert second == 12 + 12
    assert lora.counts(model) == lora.Counts(second, first + second, matrices + second)
    lora.set_adapter_(model, None)
    assert lora.counts(model) == lora.Counts(0, first + second, matrices)
    lora.merge_lora_(model, "first")
    lora.merge_lora_(model, "second")
    assert lora.counts(model) == lora.Counts(0, 0, matrices)
    quantization.quantize_(model, 4)
    assert lora.counts(model).run == matrices


def test_a_shared_matrix_is_run_each_time_and_gpt2s_counts():
    model = toys.llama()
    table = model.model.embed_tokens.weight.numel()
    layers = sum(m.weight.numel() for m in model.modules() if isinstance(m, torch.nn.Linear))
    assert lora.counts(model).run == layers > table
    gpt2 = toys.gpt2()
    assert lora.counts(gpt2).run > sum(p.numel() for p in gpt2.transformer.h.parameters()) * 0.9


@pytest.mark.parametrize("how", ["all", "LoRA", "QLoRA"])
def test_the_optimizers_state_has_the_bytes_that_were_counted(how):
    model = toys.llama()
    if how == "QLoRA":
        quantization.quantize_(model, 4)
    if how != "all":
        lora.add_lora_(model, rank=2)
    trained = training.trainable_parameters(model).values()
    optimizer = torch.optim.AdamW(trained)
    assert metrics.optimizer_bytes(optimizer) == 0
    toys_loss(model).backward()
    optimizer.step()
    counted = metrics.training_bytes(model)
    steps = 4 * len(trained)
    assert metrics.optimizer_bytes(optimizer) - steps == counted.optimizer
    assert counted.gradients == sum(p.grad.nbytes for p in trained)
    assert counted.weights == metrics.size_in_bytes(model)
    assert counted.total == counted.weights + 3 * counted.gradients


def toys_loss(model):
    ids = torch.arange(1, 17).view(2, 8)
    return model(input_ids=ids, labels=ids).loss


def test_a_model_without_values_can_be_counted():
    with torch.device("meta"):
        model = toys.llama()
    assert metrics.training_bytes(model) == metrics.training_bytes(toys.llama())


def kept(change):
    """Return what a pass through three wide layers keeps, after a change."""
    torch.manual_seed(0)
    wide = [torch.nn.Linear(256, 256, bias=False) for _ in range(3)]
    model = torch.nn.Sequential(*wide)
    change(model)
    return metrics.kept_bytes(model, {"input": torch.randn(4, 256)})


def test_what_a_pass_keeps_is_the_layers_inputs_and_nothing_of_integers():
    rows, thin = 4 * 256 * 4, 4 * 2 * 4
    assert kept(lambda m: None) == 3 * rows
    assert kept(lambda m: m.requires_grad_(False)) == 0
    # Each update keeps its inputs and what lies between its two thin matrices.
    floats = kept(lambda m: lora.add_lora_(m, 2))
    assert floats == 3 * (rows + thin)

    def qlora(model):
        quantization.codebook_(model)
        lora.add_lora_(model, 2)

    assert kept(qlora) == floats < 256 * 256 * 4
