"""Who pays for a change: shares by group of rows, and whether one group lost more than another."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from lightcourse.metrics.answers import pair
from lightcourse.metrics.intervals import Share, deviations, whole


def accuracy_by_group(
    predictions: Sequence[int], labels: Sequence[int], groups: Sequence, level: float = 0.95
) -> dict[object, Share]:
    """Return how many answers are right in each group, with Wilson's interval.

    Parameters
    ----------
    predictions, labels : sequence of int
    groups : sequence
        The group of each row: a class, "short" or "long", a source. Sorted in the result.
    level : float
        Of the intervals. Of twenty groups one is outside of its interval by luck: with many, ask
        for more, such as ``1 - 0.05 / groups``.

    Raises
    ------
    ValueError
        When lengths differ or are 0, a group is None or NaN, or ``level`` is not between 0 and 1.

    Examples
    --------
    >>> for group, share in accuracy_by_group([0, 1, 1, 1], [0, 1, 0, 0], "aabb").items():
    ...     print(group, share)
    a 1.000 (0.342 to 1.000) of 2
    b 0.000 (0.000 to 0.658) of 2
    """
    predictions, labels = pair(predictions, labels, ("predictions", "labels"))
    return _shares(predictions == labels, groups, level)


def flips_by_group(
    before: Sequence[int],
    after: Sequence[int],
    groups: Sequence,
    labels: Sequence[int] | None = None,
    level: float = 0.95,
) -> dict[object, Share]:
    """Return how many answers a change to the model has changed in each group, with intervals.

    Parameters
    ----------
    before, after : sequence of int
        Predictions of the two models for the same rows.
    groups, level
        As in :func:`accuracy_by_group`.
    labels : sequence of int, optional
        With them only changes from right to wrong or back count, as in :func:`flips`.

    Raises
    ------
    ValueError
        As :func:`accuracy_by_group`.
    """
    before, after = pair(before, after, ("before", "after"))
    if labels is not None:
        before, labels = pair(before, labels, ("before", "labels"))
        before, after = before == labels, after == labels
    return _shares(before != after, groups, level)


@dataclass(frozen=True)
class GroupGap:
    """How much more one group changed than another, and the ends of an interval around that.

    Below 0 the first group lost more (or won less) of what was measured.
    """

    gap: float
    low: float
    high: float

    @property
    def shown(self) -> bool:
        """Whether the interval is on one side of 0, and does not touch it."""
        return self.low > 0 or self.high < 0

    def __str__(self):
        found = "shown" if self.shown else "not shown"
        return f"{self.gap:+.3f} ({self.low:+.3f} to {self.high:+.3f}), {found}"


def accuracy_gap(
    before: Sequence[int],
    after: Sequence[int],
    labels: Sequence[int],
    groups: Sequence,
    group: object,
    level: float = 0.95,
) -> GroupGap:
    """Compare what a change to the model did to one group's accuracy and to all others'.

    Both models answered the same rows, so only changed answers count, as in
    :func:`paired_gap`. Each side's change gets the variance of paired shares, after half an
    answer was added to each of the four kinds of row (Agresti & Min, Stat. Med. 24, 2005,
    doi:10.1002/sim.1781): a small group without a changed answer could still be unlucky
    tomorrow. The sides are different rows, so their variances add up.

    Parameters
    ----------
    before, after, labels : sequence of int
        Answers of the two models, and the right ones.
    groups : sequence
        The group of each row.
    group : object
        The one to compare with all other rows.
    level : float
        As in :func:`accuracy_by_group`.

    Returns
    -------
    GroupGap
        The group's change of accuracy minus that of the others.

    Raises
    ------
    ValueError
        As :func:`accuracy_by_group`, or when ``groups`` has no row of ``group`` or no other.

    Examples
    --------
    >>> before, after, labels = [1] * 200, [1] * 150 + [0] * 50, [1] * 200
    >>> print(accuracy_gap(before, after, labels, ["head"] * 100 + ["tail"] * 100, "tail"))
    -0.500 (-0.591 to -0.389), shown
    """
    before, labels = pair(before, labels, ("before", "labels"))
    after, _ = pair(after, labels, ("after", "labels"))
    change = (after == labels).double() - (before == labels).double()
    z, sides = deviations(level), _two_sides(change, groups, group)
    (inside, near), (outside, far) = map(_steadied, sides)
    middle, reach = inside - outside, z * math.sqrt(near + far)
    gap = (sides[0].mean() - sides[1].mean()).item()
    return GroupGap(gap, max(-2.0, middle - reach), min(2.0, middle + reach))


def _steadied(change):
    """Return the mean and its variance of changes -1, 0, 1, with half a row more of each kind."""
    count = len(change) + 2
    mean = change.sum().item() / count
    changed = change.abs().sum().item() + 1
    return mean, (changed / count - mean**2) / count


def loss_gap(
    before: Sequence[float],
    after: Sequence[float],
    groups: Sequence,
    group: object,
    level: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> GroupGap:
    """Compare what a change to the model did to one group's mean loss and to all others'.

    Losses tell more than answers: a row that is nearly lost counts before it is. Rows are
    drawn anew within each side, with replacement, and the interval holds the middle
    ``level`` of what comes out: the bootstrap (Efron, Ann. Stat. 7, 1979,
    doi:10.1214/aos/1176344552). It is too narrow for a side of few rows; below twenty it
    should not be believed.

    Parameters
    ----------
    before, after : sequence of float
        Each row's loss under the two models, such as :func:`losses` gives.
    groups, group, level
        As in :func:`accuracy_gap`.
    draws : int
        At least 100.
    seed : int

    Returns
    -------
    GroupGap
        The group's change minus that of the others, **its sign turned**: below 0 the group's
        loss grew more, as with accuracies.

    Raises
    ------
    ValueError
        As :func:`accuracy_gap`, when a loss is no finite number, or ``draws`` is below 100.
    """
    before, after = pair(before, after, ("before", "after"))
    for name, rows in (("before", before), ("after", after)):
        if not rows.isfinite().all():
            raise ValueError(f"{name} holds NaN or infinity; finite losses are wanted")
    if whole("draws", draws) < 100:
        raise ValueError(f"draws is {draws}; at least 100 is wanted")
    deviations(level)
    sides = _two_sides(before.double() - after.double(), groups, group)
    generator = torch.Generator().manual_seed(seed)
    inside, outside = (_redrawn_means(side, draws, generator) for side in sides)
    ends = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.double)
    low, high = (inside - outside).quantile(ends).tolist()
    return GroupGap((sides[0].mean() - sides[1].mean()).item(), low, high)


def _redrawn_means(values, draws, generator):
    # Which rows were drawn does not matter, but how often: that takes draws × rows numbers at
    # once, so it is done a draw at a time.
    count = len(values)
    picks = (torch.randint(count, (count,), generator=generator) for _ in range(draws))
    return torch.stack([values[pick].mean() for pick in picks])


def rows_by_group(groups: Sequence, count: int) -> dict[object, torch.Tensor]:
    """Return the row numbers of each group, groups sorted.

    Raises
    ------
    ValueError
        When there are not ``count`` groups, or one is None or NaN.
    """
    groups = groups.tolist() if hasattr(groups, "tolist") else list(groups)
    if len(groups) != count:
        raise ValueError(f"groups has {len(groups)} entries; {count}, one a row, are wanted")
    members = {}
    for row, group in enumerate(groups):
        if group is None or group != group:
            raise ValueError(f"groups, row {row}: {group!r}; a group is wanted for each row")
        members.setdefault(group, []).append(row)
    return {group: torch.tensor(members[group]) for group in _sorted(members)}


def _sorted(groups):
    try:
        return sorted(groups)
    except TypeError:  # of several kinds, which have no order
        return sorted(groups, key=str)


def _shares(chosen, groups, level):
    deviations(level)
    members = rows_by_group(groups, len(chosen))
    return {
        group: Share(int(chosen[rows].sum()), len(rows), level) for group, rows in members.items()
    }


def _two_sides(values, groups, group):
    members = rows_by_group(groups, len(values))
    if group not in members or len(members) < 2:
        wanted = "one of them, and rows of another, are wanted"
        raise ValueError(f"group is {group!r} and groups has {list(members)}; {wanted}")
    inside = torch.zeros(len(values), dtype=torch.bool)
    inside[members[group]] = True
    return values[inside], values[~inside]
