"""Membership by losses: against pairs counted one by one, and against simulated truth."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightcourse import metrics
from tests import toys

some = st.lists(st.integers(0, 6).map(lambda n: n / 2), min_size=1, max_size=25)


@given(some, some)
def test_the_area_is_the_share_of_pairs_in_the_right_order(members, others):
    result = metrics.membership_auc(members, others)
    pairs = [(m < o) + (m == o) / 2 for m in members for o in others]
    assert result.auc == pytest.approx(sum(pairs) / len(pairs), abs=1e-12)
    assert 0 <= result.low <= result.auc <= result.high <= 1
    assert result.low < result.high
    mirrored = metrics.membership_auc(others, members)
    assert (result.low, result.high) == pytest.approx((1 - mirrored.high, 1 - mirrored.low))
    moved = metrics.membership_auc([math.exp(m) for m in members], [math.exp(o) for o in others])
    assert moved == result  # only the order counts


def test_equal_losses_tell_nothing_and_a_few_told_apart_prove_little():
    same = metrics.membership_auc([1.0] * 30, [1.0] * 30)
    assert same.auc == 0.5 and not same.shown and "not shown" in str(same)
    assert not metrics.membership_auc([0.0], [1.0]).shown
    apart = metrics.membership_auc([0.0] * 30, [1.0] * 30)
    assert apart.auc == apart.high == 1 and 0.8 < apart.low < 1 and apart.shown


@pytest.mark.parametrize("shift, sizes", [(0.0, (30, 30)), (0.8, (25, 100)), (2.5, (40, 40))])
def test_the_interval_holds_the_true_area_about_as_often_as_it_says(shift, sizes):
    generator, truth = torch.Generator().manual_seed(3), 0.5 * (1 + math.erf(shift / 2))
    held = []
    for _ in range(500):
        members = torch.randn(sizes[0], generator=generator)
        others = torch.randn(sizes[1], generator=generator) + shift
        result = metrics.membership_auc(members, others)
        held.append(result.low <= truth <= result.high)
    assert 0.92 < sum(held) / len(held) < 0.995


@given(some, some, st.sampled_from([0.1, 0.25, 0.5, 0.9]))
def test_the_threshold_accuses_no_more_than_it_may_and_catches_the_most(members, others, rate):
    if rate * len(others) < 1:
        with pytest.raises(ValueError, match="less than one"):
            metrics.caught_at(rate, members, others)
        return
    result = metrics.caught_at(rate, members, others)
    thresholds = [*sorted(set(members + others)), math.inf]
    allowed = [t for t in thresholds if sum(o < t for o in others) <= rate * len(others) + 1e-9]
    assert result.count == len(members)
    assert result.right == max(sum(m < t for m in members) for t in allowed)


def test_a_rate_of_rows_is_not_lost_in_rounding():
    others = torch.arange(100) / 100
    for rows in range(1, 100):
        caught = metrics.caught_at(rows / 100, others - 1e-6, others)
        assert caught.right == rows + 1  # each member lies just below its twin


def test_each_row_of_a_classifier_has_its_loss():
    model = toys.bert().train()
    batch = {"input_ids": torch.arange(1, 17).view(4, 4), "labels": torch.tensor([0, 1, 2, 1])}
    batch["attention_mask"] = torch.ones_like(batch["input_ids"])
    found = metrics.losses(model, [batch, batch])
    assert model.training and not found.requires_grad and found.shape == (8,)
    with torch.no_grad():
        assert found.mean().item() == pytest.approx(model.eval()(**batch).loss.item(), rel=1e-5)
    alone = [{name: values[2:3] for name, values in batch.items()}]
    assert metrics.losses(model, alone)[0].item() == pytest.approx(found[2].item(), rel=1e-5)


def test_each_row_of_a_language_model_has_the_sum_over_its_labelled_tokens():
    model, ids = toys.llama(), torch.arange(1, 13).view(2, 6)
    labels = ids.clone()
    labels[1, 4:] = -100
    found = metrics.losses(model, [{"input_ids": ids, "labels": labels}])
    first = metrics.cross_entropy(model, ids[0]) * 5
    second = metrics.cross_entropy(model, ids[1, :4]) * 3
    assert found.tolist() == pytest.approx([first, second], rel=1e-5)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: metrics.membership_auc([], [1.0]), "member_losses is empty"),
        (lambda: metrics.membership_auc([1.0], []), "other_losses is empty"),
        (lambda: metrics.membership_auc([1.0], [math.nan]), "other_losses is empty or holds NaN"),
        (lambda: metrics.membership_auc([1.0], [1.0], level=1), "level is 1"),
        (lambda: metrics.caught_at(0.0, [1.0], [1.0]), "false_positive_rate is 0.0"),
        (lambda: metrics.caught_at(math.nan, [1.0], [1.0]), "false_positive_rate is nan"),
        (lambda: metrics.caught_at(0.01, [1.0], [1.0] * 99), "at least 0.01, or more"),
        (lambda: metrics.losses(toys.llama(), []), "batches is empty"),
        (lambda: metrics.losses(toys.llama(), [{"input_ids": 1}]), "labels are wanted"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
