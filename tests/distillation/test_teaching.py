"""Distillation end to end: the loss that ``training.train`` takes, from a living teacher."""

import copy

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from lightcourse import distillation, training
from tests import toys


def classified():
    """Return a batch for the toy classifier, the last text shorter than the others."""
    ids = torch.arange(1, 25).view(3, 8)
    attention_mask = torch.ones_like(ids)
    attention_mask[2, 5:] = 0
    labels = torch.tensor([0, 1, 2])
    return {"input_ids": ids, "attention_mask": attention_mask, "labels": labels}


def text():
    """Return a batch for a toy language model, padded on the right and marked twice."""
    ids = torch.randint(1, 50, (3, 8), generator=torch.Generator().manual_seed(0))
    attention_mask = torch.ones_like(ids)
    attention_mask[1, 5:] = attention_mask[2, 3:] = 0
    labels = ids.masked_fill(attention_mask == 0, -100)
    return {"input_ids": ids, "attention_mask": attention_mask, "labels": labels}


KINDS = {"bert": classified, "llama": text, "gpt2": text}


def spoiled(model):
    """Return a copy of the model with random changes to all weights."""
    student = copy.deepcopy(model)
    torch.manual_seed(1)
    for parameter in student.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    return student


def without(batch, *names):
    return {name: value for name, value in batch.items() if name not in names}


@pytest.mark.parametrize("kind", KINDS)
def test_training_towards_a_teacher_brings_the_student_nearer_and_leaves_the_teacher(kind):
    teacher, batch = toys.ALL[kind](), KINDS[kind]()
    student = spoiled(teacher)
    frozen = [p.clone() for p in teacher.parameters()]
    loss = distillation.taught_by(teacher, soft_weight=1.0)
    before = loss(student, batch).item()
    recipe = training.Recipe(steps=30, learning_rate=3e-3)
    training.train(student, lambda epoch, seed: [batch], recipe, loss=loss, progress=False)
    assert loss(student, batch).item() < 0.5 * before
    assert all(torch.equal(a, b) for a, b in zip(frozen, teacher.parameters(), strict=True))
    assert all(p.grad is None for p in teacher.parameters())


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_is_the_one_for_the_kind_of_model(kind, weight):
    teacher, batch = toys.ALL[kind](), KINDS[kind]()
    student = spoiled(teacher)
    causal = distillation.causal_distillation_loss
    formula = distillation.distillation_loss if kind == "bert" else causal
    inputs = without(batch, "labels")
    want = formula(student(**inputs).logits, teacher(**inputs).logits, batch["labels"], 3.0, weight)
    assert torch.isclose(distillation.taught_by(teacher, 3.0, weight)(student, batch), want)


@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_labels_alone_are_the_loss_of_the_model(kind):
    teacher, batch = toys.ALL[kind](), KINDS[kind]()
    student = spoiled(teacher)
    got = distillation.taught_by(teacher, soft_weight=0.0)(student, batch)
    assert torch.isclose(got, student(**batch).loss)


@pytest.mark.parametrize("kind", KINDS)
def test_the_teacher_alone_needs_no_labels(kind):
    teacher, batch = toys.ALL[kind](), KINDS[kind]()
    student = spoiled(teacher)
    loss = distillation.taught_by(teacher, soft_weight=1.0)
    assert torch.equal(loss(student, without(batch, "labels")), loss(student, batch))
    with pytest.raises(ValueError, match="batch has no labels and soft_weight is 0.9"):
        distillation.taught_by(teacher, soft_weight=0.9)(student, without(batch, "labels"))


def test_padding_counts_nowhere_though_its_labels_were_left_in():
    teacher, batch = toys.llama(), text()
    student = spoiled(teacher)
    loss = distillation.taught_by(teacher)
    careless = batch | {"labels": batch["input_ids"]}
    assert torch.equal(loss(student, careless), loss(student, batch))
    assert not torch.isclose(
        loss(student, without(careless, "attention_mask")), loss(student, batch)
    )


def test_padding_on_the_left_counts_nowhere():
    teacher, batch = toys.llama(), text()
    student = spoiled(teacher)
    flipped = {name: value.flip(1) for name, value in batch.items()}
    logits = student(**flipped).logits.detach().requires_grad_()
    student.forward = lambda **_: type("Output", (), {"logits": logits})
    distillation.taught_by(teacher)(student, flipped).backward()
    moved = logits.grad.abs().sum(-1) > 0
    assert moved.sum(1).tolist() == [7, 4, 2]
    assert not (moved & (flipped["attention_mask"] == 0)).any()


def test_the_teacher_is_asked_in_evaluation_mode_and_the_student_is_not():
    teacher, student = toys.bert().train(), toys.bert().train()
    asked = []
    teacher.register_forward_hook(
        lambda module, args, output: asked.append((module.training, torch.is_grad_enabled()))
    )
    distillation.taught_by(teacher)(student, classified())
    teacher.train()
    loss = distillation.taught_by(teacher, soft_weight=1.0)
    values = {loss(toys.bert(), classified()).item() for _ in range(3)}
    assert asked[0] == (False, False) and student.training
    assert len(values) == 1


@pytest.mark.parametrize("training", [True, False])
def test_the_teacher_keeps_its_own_mode(tmp_path, training):
    teacher = toys.bert().train(training)
    distillation.taught_by(teacher)(toys.bert(), classified())
    distillation.cache_logits(teacher, tmp_path, [classified()], k=2)
    assert all(module.training is training for module in teacher.modules())


def test_a_teacher_that_overflows_is_refused_while_training():
    teacher, student = toys.llama(), toys.llama()
    teacher.lm_head.register_forward_hook(lambda module, args, logits: logits * torch.inf)
    recipe = training.Recipe(steps=1, learning_rate=1e-3)
    with pytest.raises(ValueError, match="teacher_logits hold NaN"):
        training.train(
            student,
            lambda epoch, seed: [text()],
            recipe,
            loss=distillation.taught_by(teacher),
            progress=False,
        )


def test_labels_are_shown_to_neither():
    teacher = toys.bert()
    seen = []
    for model in (student := spoiled(teacher), teacher):
        model.register_forward_pre_hook(
            lambda module, args, kwargs: seen.append(sorted(kwargs)), with_kwargs=True
        )
    distillation.taught_by(teacher)(student, classified())
    assert seen == [["attention_mask", "input_ids"]] * 2


def test_a_teacher_cannot_teach_itself():
    teacher = toys.llama()
    with pytest.raises(ValueError, match="student is the teacher itself"):
        distillation.taught_by(teacher)(teacher, text())


def test_other_vocabularies_are_refused_with_the_way_out():
    config = LlamaConfig(**(toys.llama().config.to_dict() | {"vocab_size": 60}))
    with pytest.raises(ValueError, match="60 classes and the teacher 50.*generate_targets"):
        distillation.taught_by(toys.llama())(LlamaForCausalLM(config), text())


def test_a_batch_of_padding_alone_is_refused():
    batch = text() | {"labels": torch.full((3, 8), -100)}
    with pytest.raises(ValueError, match="every label is -100"):
        distillation.taught_by(toys.llama())(toys.llama(), batch)


@pytest.mark.parametrize("arguments", [(0.0, 0.5), (2.0, 1.5), (float("nan"), 0.5)])
def test_numbers_are_checked_before_training(arguments):
    with pytest.raises(ValueError, match="is wanted"):
        distillation.taught_by(toys.bert(), *arguments)


def test_logits_of_other_dimensions_are_refused():
    teacher = torch.nn.Module()
    teacher.forward = lambda **_: type("Output", (), {"logits": torch.zeros(2, 2, 2, 5)})
    student = copy.deepcopy(teacher)
    with pytest.raises(ValueError, match=r"logits have shape \(2, 2, 2, 5\)"):
        distillation.taught_by(teacher)(student, text())
