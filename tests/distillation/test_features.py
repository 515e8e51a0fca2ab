"""Losses over hidden states and attention maps."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from lightcourse import distillation


def random(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_hidden_states_are_compared_by_squared_error_where_the_mask_says():
    student, teacher = random(0, 2, 3, 4), random(1, 2, 3, 4)
    mask = torch.tensor([[True, True, False], [False, True, False]])
    want = ((student - teacher)[mask] ** 2).mean()
    assert torch.isclose(distillation.hidden_loss(student, teacher, mask=mask), want)
    assert distillation.hidden_loss(teacher, teacher) == 0


def test_a_matrix_and_a_module_project_alike_and_the_module_learns():
    student, teacher = random(0, 2, 3, 4), random(1, 2, 3, 6).requires_grad_()
    module = nn.Linear(4, 6, bias=False)
    by_module = distillation.hidden_loss(student, teacher, module)
    by_matrix = distillation.hidden_loss(student, teacher, module.weight.T)
    assert torch.isclose(by_module, by_matrix)
    by_module.backward()
    assert module.weight.grad.abs().sum() > 0 and teacher.grad is None


@pytest.mark.parametrize(
    "change, message",
    [
        ({}, "width 4 and teacher_hidden 6; a projection"),
        ({"projection": torch.zeros(6, 4)}, r"projection has shape \(6, 4\); \(4, teacher_width\)"),
        ({"projection": torch.zeros(4, 5)}, r"teacher_hidden has shape \(2, 3, 6\)"),
        ({"projection": nn.Linear(4, 5)}, r"student's \(2, 3, 5\) is wanted"),
        ({"teacher_hidden": torch.zeros(2, 2, 4)}, r"teacher_hidden has shape \(2, 2, 4\)"),
        (
            {"projection": torch.ones(4, 6), "mask": torch.zeros(2, 3, dtype=torch.bool)},
            "False everywhere",
        ),
    ],
)
def test_hidden_states_that_do_not_fit_are_refused(change, message):
    arguments = {"student_hidden": random(0, 2, 3, 4), "teacher_hidden": random(1, 2, 3, 6)}
    with pytest.raises(ValueError, match=message):
        distillation.hidden_loss(**{**arguments, **change})


def attention(seed, keys=4):
    """Causal maps of 2 rows, 3 heads and ``keys`` queries: half of all entries are 0."""
    scores = random(seed, 2, 3, keys, keys)
    later = torch.ones(keys, keys).triu(1).bool()
    return scores.masked_fill(later, -torch.inf).softmax(-1)


@given(st.integers(0, 99), st.integers(2, 6))
def test_attention_is_compared_by_kl_and_masked_keys_make_no_nan(seed, keys):
    student, teacher = attention(seed, keys).requires_grad_(), attention(seed + 100, keys)
    loss = distillation.attention_loss(student, teacher)
    ratio = torch.where(teacher > 0, teacher / student, 1.0)
    assert torch.isclose(loss, (teacher * ratio.log()).sum(-1).mean(), rtol=1e-4, atol=1e-6)
    assert loss > 0 and torch.isfinite(torch.autograd.grad(loss, student)[0]).all()
    assert distillation.attention_loss(teacher, teacher).abs() < 1e-6


def test_a_key_that_only_the_student_masks_costs_much_and_stays_finite():
    student, teacher = torch.tensor([[[[1.0, 0.0]]]]), torch.tensor([[[[0.5, 0.5]]]])
    assert 10 < distillation.attention_loss(student, teacher) < 100


def test_queries_under_the_mask_alone_count():
    student, teacher = attention(0), attention(1)
    mask = torch.tensor([[True, True, True, False], [True, False, True, False]])
    spoiled = torch.where(mask[:, None, :, None], student, 0.25)
    got = distillation.attention_loss(spoiled, teacher, mask)
    rows = [x.transpose(1, 2)[mask][None].transpose(1, 2) for x in (student, teacher)]
    assert torch.isclose(got, distillation.attention_loss(*rows))


@pytest.mark.parametrize("loss", [distillation.hidden_loss, distillation.attention_loss])
def test_nan_where_nothing_counts_reaches_no_gradient(loss):
    student, teacher = attention(0), attention(1)
    mask = torch.tensor([[True, True, True, False], [True, False, True, False]])
    if loss is distillation.hidden_loss:
        student, teacher = student.transpose(1, 2), teacher.transpose(1, 2)
        mask = mask[..., None].expand(2, 4, 3)
        spoiled = torch.where(mask[..., None], teacher, torch.nan)
    else:
        spoiled = torch.where(mask[:, None, :, None], teacher, torch.nan)
    got = loss(student.requires_grad_(), spoiled, mask=mask)
    assert torch.isclose(got, loss(student, teacher, mask=mask))
    assert torch.isfinite(torch.autograd.grad(got, student)[0]).all()


def test_the_teacher_of_attention_gets_no_gradient():
    student, teacher = attention(0).requires_grad_(), attention(1).requires_grad_()
    distillation.attention_loss(student, teacher).backward()
    assert student.grad.abs().sum() > 0 and teacher.grad is None


def test_attention_that_does_not_fit_is_refused():
    student, teacher = attention(0), attention(1)
    with pytest.raises(ValueError, match=r"teacher_attention has shape \(2, 1, 4, 4\)"):
        distillation.attention_loss(student, teacher[:, :1])
    with pytest.raises(ValueError, match=r"torch.bool of shape \(2, 4\) is wanted"):
        distillation.attention_loss(student, teacher, torch.ones(2, 3, dtype=torch.bool))
    with pytest.raises(ValueError, match="False everywhere"):
        distillation.attention_loss(student, teacher, torch.zeros(2, 4, dtype=torch.bool))


def test_half_precision_is_computed_in_single():
    student, teacher = (random(s, 2, 3, 4).bfloat16() for s in (0, 1))
    assert distillation.hidden_loss(student, teacher).dtype == torch.float32
    maps = [attention(s).half() for s in (0, 1)]
    assert distillation.attention_loss(*maps).dtype == torch.float32
