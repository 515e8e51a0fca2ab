"""LoRA: nothing changes at first, and merging changes nothing at last."""

import pytest
import torch

from lightcourse import lora, metrics, quantization, training
from tests import toys
from tests.lora.adapted import shaken, two_adapters


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


def test_adding_twice_merging_nothing_and_rank_0_are_errors():
    model = toys.mlp()
    with pytest.raises(ValueError, match="nothing was merged"):
        lora.merge_lora_(model)
    with pytest.raises(ValueError, match="rank is 0"):
        lora.add_lora_(model, rank=0)
    with pytest.raises(ValueError, match="alpha is nan"):
        lora.add_lora_(model, alpha=float("nan"))
    assert all(parameter.requires_grad for parameter in model.parameters())
    lora.add_lora_(model)
    with pytest.raises(ValueError, match="adapter 'default' already"):
        lora.add_lora_(model)
    with pytest.raises(ValueError, match="nothing was adapted: Linear has no linear layer"):
        lora.add_lora_(torch.nn.Linear(2, 2))


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


# Targets


@pytest.mark.parametrize(
    ("targets", "count"),
    [
        (["query"], 2),
        (["query", "value"], 4),
        (["layer.0.attention.self.query", "output.dense"], 5),
        (r".*\.layer\.1\..*", 6),
        (r".*(query|key|value)", 6),
        (None, 13),
    ],
)
def test_targets_are_ends_of_names_or_one_pattern_for_whole_names(targets, count):
    assert len(lora.add_lora_(toys.bert(), rank=2, targets=targets).changed) == count


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (["q_proj"], r"targets is \['q_proj'\].*'q_proj' fits no layer.*called.*'query'"),
        (["query", "y"], "'y' fits no layer"),
        ("query", "a regular expression for whole names.*'query'"),
        ("(", "targets is '\\(', no regular expression"),
        ([], "targets is empty"),
        (["embeddings.word_embeddings"], "fits no layer"),
    ],
)
def test_targets_that_fit_nothing_change_nothing_and_the_names_are_told(targets, message):
    model = toys.bert()
    with pytest.raises(ValueError, match=message):
        lora.add_lora_(model, targets=targets)
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not lora.adapters(model)


def test_a_tied_layer_is_named_with_its_reason():
    with pytest.raises(ValueError, match="lm_head shares its weight with model.embed_tokens"):
        lora.add_lora_(toys.llama(), targets=["lm_head"])


# Several adapters


@pytest.mark.parametrize("family", toys.ALL)
def test_one_adapter_answers_at_a_time(family):
    model, answers = two_adapters(family)
    assert lora.adapters(model) == {"first": False, "second": True}
    assert not torch.allclose(answers["first"], answers["second"], atol=1e-3)
    for adapter in ("first", None, "second", "first"):
        report = lora.set_adapter_(model, adapter)
        assert torch.equal(toys.logits(model), answers[adapter])
        trainable = sum(p.numel() for p in training.trainable_parameters(model).values())
        assert report.total == trainable and (trainable > 0) == (adapter is not None)
    assert lora.adapters(model) == {"first": True, "second": False}


def test_training_one_adapter_leaves_the_other_and_the_matrices():
    model, answers = two_adapters()
    lora.set_adapter_(model, "first")
    ids = torch.arange(1, 25).view(3, 8)
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": torch.arange(3)}
    recipe = training.Recipe(steps=3, learning_rate=1e-2)
    training.train(model, lambda epoch, seed: [batch], recipe, progress=False)
    assert not torch.allclose(toys.logits(model), answers["first"], atol=1e-3)
    for adapter in (None, "second"):
        lora.set_adapter_(model, adapter)
        assert torch.equal(toys.logits(model), answers[adapter])


@pytest.mark.parametrize("family", toys.ALL)
@pytest.mark.parametrize("adapter", ["first", "second"])
def test_merging_one_keeps_the_other_beside(family, adapter):
    model, answers = two_adapters(family)
    (other,) = {"first", "second"} - {adapter}
    updates = {n: m for n, m in model.named_modules() if getattr(m, "adapter", "") == other}
    lora.merge_lora_(model, adapter)
    assert list(lora.adapters(model)) == [other]
    kept = [m for m in model.modules() if getattr(m, "adapter", "") == other]
    assert all(one is another for one, another in zip(kept, updates.values(), strict=True))
    lora.set_adapter_(model, None)
    assert torch.allclose(toys.logits(model), answers[adapter], atol=1e-5)
    lora.merge_lora_(model)
    fresh = toys.ALL[family]()
    assert list(model.state_dict()) == list(fresh.state_dict())


def test_adapters_that_are_unknown_ambiguous_or_taken():
    model, _ = two_adapters()
    before = toys.logits(model)
    for call in (lora.set_adapter_, lora.merge_lora_):
        with pytest.raises(ValueError, match=r"adapter is 'third'; one of \["):
            call(model, "third")
    for call in (lora.merge_lora_, lambda m: lora.save_lora(m, "never")):
        with pytest.raises(ValueError, match="name the one that is meant"):
            call(model)
    with pytest.raises(ValueError, match="has an adapter 'first' already"):
        lora.add_lora_(model, adapter="first")
    with pytest.raises(ValueError, match="adapter is empty"):
        lora.add_lora_(model, adapter="")
    with pytest.raises(ValueError, match="nothing was switched"):
        lora.set_adapter_(toys.bert(), None)
    assert torch.equal(before, toys.logits(model))


# Quantized layers and low precision


@pytest.mark.parametrize("activations", [None, 8])
@pytest.mark.parametrize("family", toys.ALL)
def test_updates_over_integers_let_gradients_through_to_the_first_layer(family, activations):
    model = toys.ALL[family]()
    quantization.quantize_(model, bits=4, activations=activations)
    before = toys.logits(model)
    report = lora.add_lora_(model, rank=2)
    assert torch.equal(before, toys.logits(model))
    shaken(model)
    ids = torch.arange(1, 17).view(2, 8)
    model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.square().sum().backward()
    gradients = [p.grad for p in training.trainable_parameters(model).values()]
    assert len(gradients) == 2 * len(report.changed)
    assert all(gradient.abs().sum() > 0 for gradient in gradients)


def test_updates_beside_bfloat16_stay_float32_and_merge_with_one_rounding():
    model = toys.llama().bfloat16()
    lora.add_lora_(model, rank=2)
    shaken(model)
    assert {p.dtype for p in training.trainable_parameters(model).values()} == {torch.float32}
    beside = toys.logits(model)
    layer = model.model.layers[0].mlp.up_proj
    wanted = (layer.base.weight.float() + layer.delta()).bfloat16()
    lora.merge_lora_(model)
    assert torch.equal(model.model.layers[0].mlp.up_proj.weight, wanted)
    assert beside.dtype == torch.bfloat16
    assert torch.allclose(beside.float(), toys.logits(model).float(), atol=0.02)


def test_zeros_of_a_pruned_matrix_are_refilled():
    model = toys.mlp()
    model[0].weight.data[:, ::2] = 0
    lora.add_lora_(model, rank=2)
    lora.merge_lora_(shaken(model))
    assert metrics.sparsity(model) == 0
