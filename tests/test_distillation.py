"""Distillation: the loss is the formula, the student is the teacher's own layers."""

import pytest
import torch
import toys
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from lightcourse import distillation, training


def logits(seed, shape=(4, 5)):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 3


LABELS = torch.tensor([0, 1, 2, 4])


@given(st.integers(0, 99), st.floats(0.25, 8), st.floats(0, 1))
def test_the_loss_is_the_formula_written_out(seed, temperature, weight):
    student, teacher = logits(seed), logits(seed + 100)
    p = (teacher / temperature).softmax(-1)
    q = (student / temperature).softmax(-1)
    kl = (p * (p / q).log()).sum(-1).mean()
    ce = -(student.softmax(-1)[range(4), LABELS]).log().mean()
    want = (1 - weight) * ce + weight * temperature**2 * kl
    got = distillation.distillation_loss(student, teacher, LABELS, temperature, weight)
    assert torch.isclose(got, want, rtol=1e-4, atol=1e-4)


def test_labels_alone_and_teacher_alone():
    student, teacher = logits(0), logits(1)
    hard = distillation.distillation_loss(student, teacher, LABELS, 2.0, 0.0)
    assert torch.equal(hard, F.cross_entropy(student, LABELS))
    assert distillation.distillation_loss(teacher, teacher, LABELS, 3.0, 1.0).abs() < 1e-6


def test_t_squared_keeps_the_gradient_at_the_size_of_matching_logits():
    student, teacher = logits(0).requires_grad_(), logits(1)
    loss = distillation.distillation_loss(student, teacher, LABELS, 1000.0, 1.0)
    centred = [x - x.mean(-1, keepdim=True) for x in (student, teacher)]
    want = (centred[0] - centred[1]) / student.numel()
    assert torch.allclose(torch.autograd.grad(loss, student)[0], want, atol=1e-3)


def test_the_teacher_gets_no_gradient():
    student, teacher = logits(0).requires_grad_(), logits(1).requires_grad_()
    distillation.distillation_loss(student, teacher, LABELS).backward()
    assert student.grad is not None and teacher.grad is None


@pytest.mark.parametrize(
    "change, message",
    [
        ({"temperature": 0.0}, "temperature is 0.0"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"soft_weight": 1.5}, "soft_weight is 1.5"),
        ({"teacher_logits": torch.zeros(4, 6)}, r"teacher_logits has shape \(4, 6\)"),
    ],
)
def test_bad_arguments_are_named(change, message):
    arguments = {"student_logits": logits(0), "teacher_logits": logits(1), "labels": LABELS}
    with pytest.raises(ValueError, match=message):
        distillation.distillation_loss(**{**arguments, **change})


def batch():
    ids = torch.arange(1, 25).view(3, 8)
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "labels": torch.tensor([0, 1, 2]),
    }


def test_training_towards_a_teacher_brings_the_student_nearer_and_leaves_the_teacher():
    teacher, student = toys.bert(), toys.bert()
    torch.manual_seed(1)
    for parameter in student.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    frozen = [p.clone() for p in teacher.parameters()]
    loss = distillation.taught_by(teacher, soft_weight=1.0)
    before = loss(student, batch()).item()
    recipe = training.Recipe(steps=30, learning_rate=3e-3)
    training.train(student, lambda epoch, seed: [batch()], recipe, loss=loss, progress=False)
    assert loss(student, batch()).item() < 0.5 * before
    assert all(torch.equal(a, b) for a, b in zip(frozen, teacher.parameters(), strict=True))


@pytest.mark.parametrize("family", toys.ALL)
def test_a_student_of_all_layers_is_the_teacher(family):
    model = toys.ALL[family]()
    count = 3 if family == "llama" else 2
    assert torch.equal(
        toys.logits(distillation.student_from(model, range(count))), toys.logits(model)
    )


@pytest.mark.parametrize("family", toys.ALL)
def test_a_student_has_its_own_copy_of_fewer_layers(family):
    model = toys.ALL[family]()
    before = toys.logits(model)
    student = distillation.student_from(model, [1])
    assert (
        0
        < sum(p.numel() for p in student.parameters())
        < sum(p.numel() for p in model.parameters())
    )
    for parameter in student.parameters():
        parameter.data.zero_()
    assert torch.equal(before, toys.logits(model))


def test_a_student_generates_with_its_cache():
    student = distillation.student_from(toys.llama(), [0, 2])
    ids = torch.tensor([[3, 4, 5]])
    pair = [
        student.generate(ids, max_new_tokens=6, use_cache=c, do_sample=False) for c in (True, False)
    ]
    assert torch.equal(*pair)
    assert student.config.num_hidden_layers == 2


@pytest.mark.parametrize("keep", [[], [2], [-1]])
def test_layers_that_are_not_there_are_refused(keep):
    with pytest.raises(ValueError, match="some of the layers 0..1 are wanted"):
        distillation.student_from(toys.bert(), keep)


def test_a_model_without_a_stack_is_refused():
    with pytest.raises(ValueError, match="without a ModuleList"):
        distillation.student_from(toys.mlp(), [0])
