"""Shares by group and gaps between groups: against counting, and against simulated truth."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightcourse import metrics

rows = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 2), st.sampled_from("abc")),
    min_size=1,
    max_size=60,
)


@given(rows)
def test_groups_are_counted_as_if_each_were_alone(some):
    before, after, labels, groups = zip(*some, strict=True)
    right = metrics.accuracy_by_group(before, labels, groups)
    flipped = metrics.flips_by_group(before, after, groups)
    crossed = metrics.flips_by_group(before, after, groups, labels)
    assert list(right) == list(flipped) == list(crossed) == sorted(set(groups))
    for group in right:
        kept = [row for row in some if row[3] == group]
        first, second, wanted, _ = zip(*kept, strict=True)
        assert right[group].count == flipped[group].count == len(kept)
        assert right[group].share == pytest.approx(metrics.accuracy(first, wanted))
        assert flipped[group].share == pytest.approx(metrics.flips(first, second))
        assert crossed[group].share == pytest.approx(metrics.flips(first, second, wanted))
        assert right[group].interval == metrics.wilson_interval(right[group].right, len(kept))


def test_groups_may_be_numbers_of_a_tensor_or_of_several_kinds():
    labels = torch.tensor([0, 1, 1])
    assert list(metrics.accuracy_by_group(labels, labels, labels)) == [0, 1]
    assert set(metrics.accuracy_by_group(labels, labels, ["x", 1, (2,)])) == {"x", 1, (2,)}


@given(rows)
def test_the_gap_is_the_difference_of_two_changes_and_mirrored_between_two_groups(some):
    before, after, labels, _ = zip(*some, strict=True)
    groups = ["tail" if row % 3 == 0 else "head" for row in range(len(some))]
    if len(set(groups)) < 2:
        return
    tail = metrics.accuracy_gap(before, after, labels, groups, "tail")
    head = metrics.accuracy_gap(before, after, labels, groups, "head")
    change = [(a == y) - (b == y) for b, a, y in zip(before, after, labels, strict=True)]
    parts = {g: [c for c, h in zip(change, groups, strict=True) if h == g] for g in set(groups)}
    want = sum(parts["tail"]) / len(parts["tail"]) - sum(parts["head"]) / len(parts["head"])
    assert tail.gap == pytest.approx(want, abs=1e-12)
    assert tail.low < tail.high
    assert (tail.low, tail.high) == pytest.approx((-head.high, -head.low), abs=1e-12)
    assert tail.shown == (not tail.low <= 0 <= tail.high)


def test_a_small_group_without_a_changed_answer_proves_nothing():
    before, labels = [1] * 210, [1] * 210
    after = [1] * 190 + [0] * 20
    groups = ["tail"] * 10 + ["head"] * 200
    gap = metrics.accuracy_gap(before, after, labels, groups, "tail")
    assert gap.gap == pytest.approx(0.1)
    assert not gap.shown and str(gap).endswith("not shown")
    assert not metrics.accuracy_gap(before, before, labels, groups, "tail").shown


def simulated(generator, count, lost, gained):
    """Return answers before and after a change, where the right label is always 1."""
    drawn = torch.rand(count, generator=generator)
    before = (drawn >= gained).long()  # the first `gained` were wrong and become right
    after = ((drawn < gained) | (drawn >= gained + lost)).long()
    return before, after


@pytest.mark.parametrize("lost, sizes", [(0.0, (40, 200)), (0.2, (40, 200)), (0.02, (20, 500))])
def test_accuracy_gaps_hold_the_true_gap_about_as_often_as_they_say(lost, sizes):
    generator, held = torch.Generator().manual_seed(1), []
    groups = [0] * sizes[0] + [1] * sizes[1]
    truth = -lost - (0.03 - 0.05)  # the others gain 0.03 and lose 0.05
    for _ in range(400):
        tail, head = (
            simulated(generator, sizes[0], lost, 0.0),
            simulated(generator, sizes[1], 0.05, 0.03),
        )
        before, after = (torch.cat(pair) for pair in zip(tail, head, strict=True))
        gap = metrics.accuracy_gap(before, after, torch.ones_like(before), groups, 0)
        held.append(gap.low <= truth <= gap.high)
    assert sum(held) / len(held) > 0.92


@pytest.mark.parametrize("shift", [0.0, 0.3])
def test_loss_gaps_hold_the_true_gap_about_as_often_as_they_say(shift):
    generator, held, shown = torch.Generator().manual_seed(2), [], []
    groups = [0] * 50 + [1] * 150
    for seed in range(200):
        before = torch.randn(200, generator=generator).exp()
        grown = torch.randn(200, generator=generator).abs() * 0.3
        grown[:50] += shift
        gap = metrics.loss_gap(before, before + grown, groups, 0, draws=200, seed=seed)
        held.append(gap.low <= -shift <= gap.high)
        shown.append(gap.shown)
    assert 0.88 < sum(held) / 200 < 0.99
    assert sum(shown) > 190 if shift else sum(shown) < 24


def test_a_loss_gap_is_seeded_and_its_sign_is_that_of_accuracy():
    before, after = torch.zeros(80), torch.linspace(0, 1, 80)
    groups = ["early"] * 40 + ["late"] * 40
    gap = metrics.loss_gap(before, after, groups, "late")
    assert gap.shown and gap.gap < 0 and gap.low < gap.gap < gap.high
    assert gap == metrics.loss_gap(before, after, groups, "late")
    assert gap != metrics.loss_gap(before, after, groups, "late", seed=1)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: metrics.accuracy_by_group([], [], []), "filled rows"),
        (lambda: metrics.accuracy_by_group([1], [1], []), "groups has 0 entries; 1"),
        (lambda: metrics.accuracy_by_group([1], [1], [None]), "groups, row 0: None"),
        (lambda: metrics.accuracy_by_group([1], [1], [math.nan]), "groups, row 0: nan"),
        (lambda: metrics.accuracy_by_group([1], [1], [1], level=2), "level is 2"),
        (lambda: metrics.flips_by_group([1], [1], [1, 2]), "groups has 2 entries; 1"),
        (lambda: metrics.accuracy_gap([1], [1], [1], [1], 1), "rows of another, are wanted"),
        (lambda: metrics.accuracy_gap([1, 1], [1, 1], [1, 1], [1, 2], 3), "group is 3"),
        (lambda: metrics.loss_gap([1.0, math.nan], [1.0, 1.0], [1, 2], 1), "before holds NaN"),
        (lambda: metrics.loss_gap([1.0, 1.0], [1.0, math.inf], [1, 2], 1), "after holds NaN"),
        (lambda: metrics.loss_gap([1.0, 2.0], [1.0, 1.0], [1, 2], 1, draws=9), "draws is 9"),
        (lambda: metrics.loss_gap([1.0, 2.0], [1.0, 1.0], [1, 2], 1, level=0), "level is 0"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
