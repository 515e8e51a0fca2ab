"""Lower layers are frozen, and nothing else."""

import pytest
import torch

from lightcourse import lora, quantization, sharing
from lightcourse.training import Recipe, train
from tests import families, toys


def frozen(model):
    return {name for name, p in model.named_parameters() if not p.requires_grad}


@pytest.mark.parametrize("count", [0, 1, 2])
def test_embeddings_and_the_first_layers_of_a_bert(count):
    model = toys.bert()
    report = sharing.freeze_layers_(model, count)
    layers = {f"encoder.encoder.layer.{index}" for index in range(count)}
    assert set(report.changed) == {"encoder.embeddings", *layers}
    want = {
        n
        for n, _ in model.named_parameters()
        if n.startswith(tuple(f"{p}." for p in report.changed))
    }
    assert frozen(model) == want
    assert report.total == sum(p.numel() for p in model.parameters() if not p.requires_grad)


def test_a_table_that_is_the_output_layer_too_is_told():
    report = sharing.freeze_layers_(toys.llama(), 1)
    assert set(report.changed) == {"model.embed_tokens", "model.layers.0"}
    assert report.notes == ["lm_head has weights of model.embed_tokens: frozen with it"]


def test_of_layers_that_share_those_are_told_that_are_frozen_too():
    model = toys.bert()
    sharing.share_layers_(model)
    assert sharing.freeze_layers_(model, 0).notes == []
    report = sharing.freeze_layers_(model, 1)
    first, second = "encoder.encoder.layer.0", "encoder.encoder.layer.1"
    assert set(report.changed) == {first}
    assert report.notes == [f"{second} has weights of {first}: frozen with it"]
    assert all(p.requires_grad == ("head" in name) for name, p in model.named_parameters())
    assert sharing.freeze_layers_(model.requires_grad_(), 2).notes == []


def test_layers_that_share_among_themselves_and_train_on_are_not_told():
    model = toys.bert()
    upper = model.encoder.encoder.layer[1]
    upper.attention.self.key.weight = upper.attention.self.query.weight
    assert sharing.freeze_layers_(model, 1).notes == []


def test_gpt2_has_two_tables():
    report = sharing.freeze_layers_(toys.gpt2(), 0)
    assert set(report.changed) == {"transformer.wte", "transformer.wpe"}


def test_training_leaves_the_frozen_part():
    model = toys.bert()
    sharing.freeze_layers_(model, 1)
    before = {name: p.clone() for name, p in model.named_parameters()}
    ids = torch.arange(1, 33).view(4, 8)
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids[:, 0] % 3}
    train(model, lambda epoch, seed: [batch], Recipe(3, 1e-2), progress=False)
    same = {name for name, p in model.named_parameters() if torch.equal(p, before[name])}
    assert same == frozen(model)


def test_it_goes_on_from_fewer_layers_and_begins_anew_when_told():
    model = toys.bert()
    sharing.freeze_layers_(model, 1)
    assert set(sharing.freeze_layers_(model, 2).changed) == {"encoder.encoder.layer.1"}
    with pytest.raises(ValueError, match="nothing was frozen: all of these parts"):
        sharing.freeze_layers_(model, 1)
    model.requires_grad_()
    assert len(sharing.freeze_layers_(model, 1).changed) == 2


def test_bad_counts_and_models():
    for count in (-1, 3, 1.0, True):
        with pytest.raises(ValueError, match=r"count is .*; 0\.\.2 is wanted"):
            sharing.freeze_layers_(toys.bert(), count)
    with pytest.raises(ValueError, match="one is wanted"):
        sharing.freeze_layers_(families.make("T5")[0], 1)
    with pytest.raises(ValueError, match="without a ModuleList"):
        sharing.freeze_layers_(torch.nn.Linear(2, 2), 0)


def test_adapters_in_lower_layers_are_frozen_too():
    model = toys.bert()
    lora.add_lora_(model, rank=2)
    sharing.freeze_layers_(model, 1)
    assert not any("layer.0" in n for n, p in model.named_parameters() if p.requires_grad)
    assert any(
        "layer.1" in n and "lora_a" in n for n, p in model.named_parameters() if p.requires_grad
    )
    quantized = toys.bert()
    quantization.quantize_(quantized, 8)
    sharing.freeze_layers_(quantized, 2)
