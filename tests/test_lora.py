"""LoRA: nothing changes at first, merging changes nothing at last."""

import pytest
import torch
import toys

from lightcourse import lora, metrics, quantization, training


def shaken(model):
    """Give every update a value, as training would."""
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_b" in name:
            parameter.data.normal_(std=0.1)
    return model


@pytest.mark.parametrize("family", toys.ALL)
def test_adding_changes_no_answer_and_freezes_the_rest(family):
    model = toys.ALL[family]()
    before = toys.logits(model)
    report = lora.add_lora_(model, rank=2)
    assert torch.equal(before, toys.logits(model))
    trainable = training.trainable_parameters(model)
    assert all("lora_" in name for name in trainable)
    assert report.total == sum(p.numel() for p in trainable.values())


@pytest.mark.parametrize("family", toys.ALL)
def test_merging_keeps_the_answers_and_the_old_structure(family):
    model = toys.ALL[family]()
    names, size = list(model.state_dict()), metrics.size_in_bytes(model)
    before = toys.logits(model)
    lora.add_lora_(model, rank=3, alpha=6.0)
    beside = toys.logits(shaken(model))
    lora.merge_lora_(model)
    assert not torch.allclose(before, beside, atol=1e-3)
    assert torch.allclose(beside, toys.logits(model), atol=1e-5)
    assert list(model.state_dict()) == names and metrics.size_in_bytes(model) == size


def test_the_update_is_scaled_by_alpha_over_rank():
    base = torch.nn.Linear(3, 2)
    layer = lora.LoRALinear(base, rank=4, alpha=8.0)
    layer.lora_b.data.normal_()
    x = torch.randn(5, 3)
    want = base(x) + 2.0 * x @ layer.lora_a.T @ layer.lora_b.T
    assert torch.allclose(layer(x), want, atol=1e-6)


def test_targets_choose_layers_by_their_last_name():
    model = toys.bert()
    report = lora.add_lora_(model, rank=2, targets=["query", "value"])
    assert len(report.changed) == 4
    assert all(name.endswith(("query", "value")) for name in report.changed)


def test_unknown_targets_change_nothing_and_the_names_are_told():
    model = toys.bert()
    with pytest.raises(ValueError, match=r"targets is \['q_proj'\].*'query'"):
        lora.add_lora_(model, targets=["q_proj"])
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_adding_twice_merging_nothing_and_rank_0_are_errors():
    model = toys.mlp()
    with pytest.raises(ValueError, match="nothing was merged"):
        lora.merge_lora_(model)
    with pytest.raises(ValueError, match="rank is 0"):
        lora.add_lora_(model, rank=0)
    lora.add_lora_(model)
    with pytest.raises(ValueError, match="LoRA layers already"):
        lora.add_lora_(model)


def test_updates_train_over_integers_but_do_not_merge_into_them():
    model = toys.mlp()
    quantization.quantize_(model, bits=4)
    lora.add_lora_(model, rank=2)
    model(torch.randn(3, 8)).sum().backward()
    assert all(p.grad is not None for p in training.trainable_parameters(model).values())
    with pytest.raises(ValueError, match="layer 0 stores integers"):
        lora.merge_lora_(model)


def test_training_moves_the_updates_alone():
    model = toys.bert()
    lora.add_lora_(model, rank=2)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    ids = torch.arange(1, 25).view(3, 8)
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": torch.arange(3)}
    recipe = training.Recipe(steps=3, learning_rate=1e-2)
    training.train(model, lambda epoch, seed: [batch], recipe, progress=False)
    for name, parameter in model.named_parameters():
        assert torch.equal(before[name], parameter) != ("lora_" in name)
