"""Biases alone: what is trained, and how a job comes and goes."""

import pytest
import torch

from lightcourse import files, lora, training
from tests import toys


def moved(model):
    """Give every trainable parameter another value, as training would."""
    torch.manual_seed(1)
    for parameter in training.trainable_parameters(model).values():
        parameter.data += torch.randn_like(parameter) * 0.2
    return model


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_biases_are_trained_those_of_norms_too_and_nothing_else(family):
    model = toys.ALL[family]()
    before = toys.logits(model)
    report = lora.train_biases_(model)
    trained = training.trainable_parameters(model)
    assert all(name.endswith(".bias") for name in trained)
    assert any("norm" in name.lower() or "ln_" in name for name in trained)
    assert report.total == sum(p.numel() for p in trained.values())
    assert 0 < report.share < 0.2
    assert torch.equal(before, toys.logits(model))


def test_a_job_is_loaded_into_the_model_and_another_in_its_place(tmp_path):
    first, second = toys.bert(), toys.bert()
    for model in (first, second):
        lora.train_biases_(model)
        moved(model)
    second.head.bias.data += 1
    for number, model in enumerate((first, second)):
        lora.save_biases(model, tmp_path / f"{number}.safetensors")
    tensors, _ = files.load_tensors(tmp_path / "0.safetensors")
    assert all(name.endswith("bias") for name in tensors)
    server = toys.bert()
    for number in (0, 1, 0):
        lora.load_biases_(server, tmp_path / f"{number}.safetensors")
        assert torch.equal(toys.logits(server), toys.logits((first, second)[number]))


def test_what_cannot_be_is_told_and_nothing_is_changed(tmp_path):
    llama = toys.llama()
    with pytest.raises(ValueError, match="LlamaForCausalLM has no biases"):
        lora.train_biases_(llama)
    assert all(p.requires_grad for p in llama.parameters())
    with pytest.raises(ValueError, match="nothing trainable"):
        lora.save_biases(toys.bert().requires_grad_(False), tmp_path / "no")
    adapted = toys.bert()
    lora.add_lora_(adapted, rank=2)
    with pytest.raises(ValueError, match="has the adapters"):
        lora.train_biases_(adapted)
    model = toys.bert()
    lora.train_biases_(model)
    path = lora.save_biases(model, tmp_path / "biases.safetensors")
    for other in (toys.bert(4), toys.gpt2()):
        before = toys.logits(other)
        with pytest.raises(ValueError, match="another model"):
            lora.load_biases_(other, path)
        assert torch.equal(before, toys.logits(other))
    tensors, header = files.load_tensors(path)
    files.save_tensors({n: t * float("nan") for n, t in tensors.items()}, path, header)
    with pytest.raises(ValueError, match="holds NaN"):
        lora.load_biases_(model, path)
    files.save_tensors(tensors, path)
    with pytest.raises(ValueError, match="holds no biases"):
        lora.load_biases_(model, path)
