"""Losses over logits: the formulas, their properties, and what they refuse."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from lightcourse import distillation
from tests import toys

LABELS = torch.tensor([0, 1, 2, 4])
KLS = [distillation.forward_kl, distillation.reverse_kl]
ALL = [*KLS, distillation.logit_mse]
TEMPERATURES = st.floats(0.25, 8)
SEEDS = st.integers(0, 99)


def logits(seed, shape=(4, 5)):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 3


def pair(seed, shape=(4, 5)):
    return logits(seed, shape), logits(seed + 100, shape)


@given(SEEDS, TEMPERATURES, st.floats(0, 1))
def test_the_loss_is_the_formula_written_out(seed, temperature, weight):
    student, teacher = pair(seed)
    p = (teacher / temperature).softmax(-1)
    q = (student / temperature).softmax(-1)
    kl = (p * (p / q).log()).sum(-1).mean()
    ce = -(student.softmax(-1)[range(4), LABELS]).log().mean()
    want = (1 - weight) * ce + weight * temperature**2 * kl
    got = distillation.distillation_loss(student, teacher, LABELS, temperature, weight)
    assert torch.isclose(got, want, rtol=1e-4, atol=1e-4)


@given(SEEDS, st.floats(1, 8), st.integers(2, 7))
def test_kl_is_never_negative_and_differs_by_direction(seed, temperature, classes):
    student, teacher = pair(seed, (3, classes))
    forward, reverse = (kl(student, teacher, temperature) for kl in KLS)
    assert forward > 0 and reverse > 0
    assert torch.isclose(distillation.forward_kl(teacher, student, temperature), reverse)
    assert not torch.isclose(forward, reverse, rtol=1e-4)


@given(SEEDS, st.floats(1, 8), st.floats(-20, 20))
def test_a_constant_on_all_logits_is_seen_by_squared_errors_alone(seed, temperature, shift):
    teacher = logits(seed)
    for kl in KLS:
        assert kl(teacher + shift, teacher, temperature).abs() < 1e-4
    mse = distillation.logit_mse(teacher + shift, teacher)
    assert torch.isclose(mse, torch.tensor(shift**2), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_the_gradient_of_the_soft_part_is_t_times_the_difference_of_probabilities(temperature):
    student, teacher = pair(0)
    loss = distillation.forward_kl(student.requires_grad_(), teacher, temperature)
    q, p = ((x / temperature).softmax(-1) for x in (student, teacher))
    got = torch.autograd.grad(loss, student)[0]
    assert torch.allclose(got, temperature * (q - p) / len(student), atol=1e-6)


def test_t_squared_keeps_the_gradient_at_the_size_of_matching_logits():
    student, teacher = logits(0).requires_grad_(), logits(1)
    loss = distillation.forward_kl(student, teacher, 1000.0)
    centred = [x - x.mean(-1, keepdim=True) for x in (student, teacher)]
    want = (centred[0] - centred[1]) / student.numel()
    assert torch.allclose(torch.autograd.grad(loss, student)[0], want, atol=1e-3)


def test_labels_alone_and_teacher_alone():
    student, teacher = logits(0), logits(1)
    hard = distillation.distillation_loss(student, teacher, LABELS, 2.0, 0.0)
    assert torch.equal(hard, F.cross_entropy(student, LABELS))
    soft = distillation.distillation_loss(student, teacher, LABELS, 2.0, 1.0)
    assert torch.equal(soft, distillation.forward_kl(student, teacher, 2.0))


@pytest.mark.parametrize("loss", ALL)
def test_the_teacher_gets_no_gradient(loss):
    student, teacher = logits(0).requires_grad_(), logits(1).requires_grad_()
    loss(student, teacher).backward()
    assert student.grad.abs().sum() > 0 and teacher.grad is None


@pytest.mark.parametrize("loss", ALL)
def test_only_positions_under_the_mask_count(loss):
    student, teacher = pair(0, (2, 3, 5))
    mask = torch.tensor([[True, True, False], [True, False, False]])
    spoiled = torch.where(mask[..., None], student, 1e6)
    assert torch.isclose(loss(spoiled, teacher, mask=mask), loss(student[mask], teacher[mask]))


@pytest.mark.parametrize("loss", ALL)
def test_bad_masks_and_other_shapes_are_refused(loss):
    student, teacher = pair(0)
    with pytest.raises(ValueError, match="False everywhere"):
        loss(student, teacher, mask=torch.zeros(4, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"torch.int64 of shape \(4,\); torch.bool"):
        loss(student, teacher, mask=torch.ones(4, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"of shape \(3,\); torch.bool of shape \(4,\)"):
        loss(student, teacher, mask=torch.ones(3, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"teacher_logits has shape \(3, 5\)"):
        loss(student, teacher[:3])
    with pytest.raises(ValueError, match="5 classes and the teacher 4.*generate_targets"):
        loss(student, teacher[:, :4])


@pytest.mark.parametrize("loss", ALL)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_single(loss, dtype):
    student, teacher = (x.to(dtype) for x in pair(0, (4, 500)))
    got = loss(student, teacher)
    assert got.dtype == torch.float32
    assert torch.equal(got, loss(student.float(), teacher.float()))


def test_cross_entropy_too_is_computed_in_single():
    student, teacher = logits(0).half(), logits(1)
    got = distillation.distillation_loss(student, teacher, LABELS, soft_weight=0.0)
    assert torch.equal(got, F.cross_entropy(student.float(), LABELS))


@pytest.mark.parametrize("loss", ALL)
def test_nan_comes_out_as_nan(loss):
    student, teacher = pair(0)
    student[1, 2] = torch.nan
    assert loss(student, teacher).isnan()


def without(x, *classes):
    """Return logits that exclude some classes, as a teacher's with a smaller vocabulary."""
    return x.index_fill(-1, torch.tensor(classes), -torch.inf)


@given(SEEDS, TEMPERATURES, st.floats(0, 1))
def test_a_class_that_the_teacher_excludes_costs_nothing_and_the_gradient_is_finite(
    seed, temperature, weight
):
    student, teacher = pair(seed)
    got = distillation.forward_kl(student.requires_grad_(), without(teacher, 1, 3), temperature)
    p = (teacher[:, [0, 2, 4]] / temperature).softmax(-1)
    q = (student / temperature).softmax(-1)[:, [0, 2, 4]]
    want = temperature**2 * (p * (p / q).log()).sum(-1).mean()
    assert torch.isclose(got, want, rtol=1e-4, atol=1e-4)
    for loss in (distillation.distillation_loss, distillation.causal_distillation_loss):
        mixed = loss(student[None], without(teacher, 1, 3)[None], LABELS[None], temperature, weight)
        assert torch.isfinite(torch.autograd.grad(mixed, student)[0]).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("temperature", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("kl", KLS)
def test_classes_that_both_exclude_count_as_if_there_were_none(kl, temperature, dtype):
    student, teacher = (x.to(dtype) for x in pair(0))
    masked = without(student, 1, 3).requires_grad_()
    got = kl(masked, without(teacher, 1, 3), temperature)
    want = kl(student[:, [0, 2, 4]], teacher[:, [0, 2, 4]], temperature)
    assert torch.isclose(got, want, rtol=1e-4 * max(1, temperature), atol=1e-6)
    assert torch.isfinite(torch.autograd.grad(got, masked)[0]).all()


def test_squared_errors_leave_out_what_the_teacher_excludes():
    student, teacher = pair(0)
    got = distillation.logit_mse(student.requires_grad_(), without(teacher, 1, 3))
    want = distillation.logit_mse(student[:, [0, 2, 4]], teacher[:, [0, 2, 4]])
    assert torch.isclose(got, want)
    assert torch.isfinite(torch.autograd.grad(got, student)[0]).all()


def test_excluding_what_the_other_thinks_possible_costs_infinity():
    student, teacher = pair(0)
    assert distillation.forward_kl(without(student, 1), teacher) == torch.inf
    assert distillation.reverse_kl(student, without(teacher, 1)) == torch.inf
    assert distillation.logit_mse(without(student, 1), teacher) == torch.inf
    for weight in (0.0, 0.5, 1.0):  # LABELS holds 1 as well
        mixed = distillation.distillation_loss(without(student, 1), teacher, LABELS, 2.0, weight)
        assert mixed == torch.inf


def test_labels_alone_do_not_care_what_the_student_excludes():
    student, teacher = pair(0)
    got = distillation.distillation_loss(without(student, 3), teacher, LABELS, soft_weight=0.0)
    assert torch.isfinite(got)


@pytest.mark.parametrize("lost", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("loss", ALL)
def test_a_teacher_without_a_distribution_is_refused_where_it_counts(loss, lost):
    student, teacher = pair(0)
    teacher[1] = lost
    with pytest.raises(ValueError, match="teacher_logits hold NaN.*1 of 4 positions"):
        loss(student, teacher)
    mask = torch.tensor([True, False, True, True])
    got = loss(student.requires_grad_(), teacher, mask=mask)
    assert torch.isclose(got, loss(student[mask], teacher[mask]))
    assert torch.isfinite(torch.autograd.grad(got, student)[0]).all()


def test_a_temperature_under_which_logits_overflow_is_refused():
    student, teacher = pair(0)
    with pytest.raises(ValueError, match="at the given temperature"):
        distillation.forward_kl(student, teacher, 1e-39)


@pytest.mark.parametrize("loss", ALL)
def test_one_position_needs_no_batch_and_none_is_refused(loss):
    student, teacher = pair(0)
    assert torch.isclose(loss(student[0], teacher[0]), loss(student[:1], teacher[:1]))
    with pytest.raises(ValueError, match="a position that counts is wanted"):
        loss(student[:0], teacher[:0])


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_a_label_that_is_ignored_counts_in_neither_term(weight):
    student, teacher = pair(0)
    labels = torch.tensor([0, -100, 2, -100])
    got = distillation.distillation_loss(student, teacher, labels, 2.0, weight)
    some = slice(0, None, 2)
    want = distillation.distillation_loss(student[some], teacher[some], labels[some], 2.0, weight)
    assert torch.isclose(got, want)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"temperature": 0.0}, "temperature is 0.0"),
        ({"temperature": -1.0}, "temperature is -1.0"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"temperature": float("inf")}, "temperature is inf"),
        ({"soft_weight": 1.5}, "soft_weight is 1.5"),
        ({"soft_weight": -0.1}, "soft_weight is -0.1"),
        ({"soft_weight": float("nan")}, "soft_weight is nan"),
        ({"teacher_logits": torch.zeros(4, 6)}, "student has 5 classes and the teacher 6"),
        ({"labels": torch.full((4,), -100)}, "every label is -100"),
        ({"labels": torch.tensor([0, 1, 2, 5])}, "labels holds 5; 0..4 is wanted"),
        ({"labels": torch.zeros(4)}, "labels is torch.float32; whole numbers"),
        ({"labels": torch.tensor([0])}, r"labels has shape \(1,\); \(4,\)"),
    ],
)
def test_bad_arguments_are_named(change, message):
    arguments = {"student_logits": logits(0), "teacher_logits": logits(1), "labels": LABELS}
    with pytest.raises(ValueError, match=message):
        distillation.distillation_loss(**{**arguments, **change})


def test_the_causal_form_refuses_labels_of_padding_alone_and_other_vocabularies():
    student, teacher = pair(0, (2, 3, 5))
    with pytest.raises(ValueError, match="every label is -100"):
        distillation.causal_distillation_loss(student, teacher, torch.full((2, 3), -100))
    with pytest.raises(ValueError, match="one vocabulary"):
        distillation.causal_distillation_loss(student, teacher[..., :4], torch.zeros(2, 3).long())


def padded_batch():
    ids = torch.randint(1, 50, (3, 8), generator=torch.Generator().manual_seed(0))
    attention_mask = torch.ones_like(ids)
    attention_mask[1, 5:] = attention_mask[2, 3:] = 0
    labels = ids.masked_fill(attention_mask == 0, -100)
    return {"input_ids": ids, "attention_mask": attention_mask, "labels": labels}


def test_the_causal_form_with_labels_alone_is_the_loss_of_hugging_face():
    batch, model = padded_batch(), toys.llama()
    output = model(**batch)
    teacher = torch.zeros_like(output.logits)
    got = distillation.causal_distillation_loss(
        output.logits, teacher, batch["labels"], soft_weight=0.0
    )
    assert torch.isclose(got, output.loss, rtol=1e-6)


def test_in_the_causal_form_logits_of_one_position_meet_the_next_label():
    student, teacher = pair(0, (2, 6, 5))
    labels = torch.randint(5, (2, 6), generator=torch.Generator().manual_seed(1))
    labels[1, 4:] = -100
    got = distillation.causal_distillation_loss(student, teacher, labels, 2.0, 0.4)
    rows = [(0, t) for t in range(5)] + [(1, t) for t in range(3)]
    chosen = [torch.stack([x[i, t] for i, t in rows]) for x in (student, teacher)]
    target = torch.stack([labels[i, t + 1] for i, t in rows])
    assert torch.isclose(got, distillation.distillation_loss(*chosen, target, 2.0, 0.4))


def test_a_wrong_shift_by_one_is_caught():
    """A model that knows the next token costs nothing; shifted otherwise it costs much."""
    labels = torch.tensor([[3, 1, 4, 1, 0, 2]])
    sure = 50.0 * F.one_hot(labels.roll(-1, 1), 5).float()
    loss = distillation.causal_distillation_loss
    assert loss(sure, sure, labels, soft_weight=0.0) < 1e-6
    assert distillation.distillation_loss(sure, sure, labels, soft_weight=0.0) > 10
    assert loss(sure, sure, labels.roll(-1, 1), soft_weight=0.0) > 10


def test_the_last_position_and_the_padding_move_nothing():
    batch, model = padded_batch(), toys.llama()
    student = model(**batch).logits.detach().requires_grad_()
    teacher = logits(3, tuple(student.shape))
    loss = distillation.causal_distillation_loss(student, teacher, batch["labels"])
    (gradient,) = torch.autograd.grad(loss, student)
    moved = gradient.abs().sum(-1) > 0
    assert moved.sum(1).tolist() == [7, 4, 2]


def test_no_argument_is_changed():
    student, teacher = pair(0, (2, 6, 5))
    labels = torch.randint(5, (2, 6), generator=torch.Generator().manual_seed(1))
    before = copy.deepcopy((student, teacher, labels))
    distillation.causal_distillation_loss(student, teacher, labels)
    after = (student, teacher, labels)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
