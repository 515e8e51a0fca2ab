"""Whether a model's losses betray which rows it was trained on."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from lightcourse.metrics.intervals import Share, deviations


@dataclass(frozen=True)
class Separation:
    """How often a member's loss is the lower one, and the ends of an interval around that.

    0.5: losses tell nothing. 1: every member is told from every other row.
    """

    auc: float
    low: float
    high: float

    @property
    def shown(self) -> bool:
        """Whether the interval is on one side of 0.5, and does not touch it."""
        return self.low > 0.5 or self.high < 0.5

    def __str__(self):
        found = "shown" if self.shown else "not shown"
        return f"{self.auc:.3f} ({self.low:.3f} to {self.high:.3f}), {found}"


def membership_auc(
    member_losses: Sequence[float], other_losses: Sequence[float], level: float = 0.95
) -> Separation:
    """Return how well a threshold on the loss tells rows of the training set from others.

    The attack of Yeom et al. 2018, arXiv 1709.01604: what the model is less surprised by, it
    has seen. The area under its curve is the share of pairs in which the member's loss is the
    lower one, ties half: the statistic of Mann and Whitney. The interval is Hanley and
    McNeil's (Radiology 143, 1982) solved for the area as Wilson's is for a share (Newcombe,
    Stat. Med. 25, 2006, doi:10.1002/sim.2324), so it stays within 0 .. 1, and is no point where
    the two sets do not overlap.

    It averages over all rows. A few that are told for certain do not move it; for them see
    :func:`caught_at`. And a better attack may exist: no proof of privacy.

    Parameters
    ----------
    member_losses, other_losses : sequence of float
        Of rows that the model was trained on, and of rows of the same kind that it was not:
        :func:`losses` gives them.
    level : float
        Of the interval.

    Raises
    ------
    ValueError
        When one of the two is empty or holds NaN, or ``level`` is not between 0 and 1.

    Examples
    --------
    >>> print(membership_auc([0.1, 0.2, 0.3], [0.2, 0.9, 0.4]))
    0.833 (0.358 to 0.976), not shown
    """
    members, others = _losses("member_losses", member_losses), _losses("other_losses", other_losses)
    z = deviations(level)
    ordered = others.sort().values
    above = len(others) - torch.searchsorted(ordered, members, right=True)
    not_below = len(others) - torch.searchsorted(ordered, members)
    auc = (above + not_below).double().mean().item() / (2 * len(others))
    low, high = (_end(auc, bound, len(members), len(others), z) for bound in (0.0, 1.0))
    return Separation(auc, low, high)


def _end(auc, bound, members, others, z):
    """Return the area furthest towards ``bound`` that is z deviations from what was found."""
    near, far = auc, bound
    for _ in range(60):
        middle = (near + far) / 2
        if abs(auc - middle) <= z * _deviation(middle, members, others):
            near = middle
        else:
            far = middle
    return near


def _deviation(area, members, others):
    spread = (members + others) / 2 - 1
    pairs = (1 - area) / (2 - area) + area / (1 + area)
    return math.sqrt(area * (1 - area) * (1 + spread * pairs) / (members * others))


def caught_at(
    false_positive_rate: float,
    member_losses: Sequence[float],
    other_losses: Sequence[float],
    level: float = 0.95,
) -> Share:
    """Return how many members a threshold catches that wrongly accuses few others.

    Carlini et al. 2022, arXiv 2112.03570: an attack that is sure of a few people harms them,
    however poor it is on average. The threshold is the highest that accuses at most this
    share of the others; where losses tell nothing, it catches the same share of the members.
    The interval takes the threshold as given.

    Parameters
    ----------
    false_positive_rate : float
        Above 0 and below 1, such as 0.01. At least one of the others must fit into it.
    member_losses, other_losses, level
        As in :func:`membership_auc`.

    Raises
    ------
    ValueError
        As :func:`membership_auc`, or when the rate is out of its range, or too low for so few
        rows.

    Examples
    --------
    >>> print(caught_at(0.25, [0.1, 0.2, 0.3, 0.6], [0.2, 0.9, 0.4, 0.8]))
    0.750 (0.301 to 0.954) of 4
    """
    members, others = _losses("member_losses", member_losses), _losses("other_losses", other_losses)
    if not 0 < false_positive_rate < 1:
        raise ValueError(
            f"false_positive_rate is {false_positive_rate}; a number between 0 and 1 is wanted"
        )
    # A rate such as 0.07 of 100 rows is 7.000000000000001: that is 7.
    accused = math.floor(false_positive_rate * len(others) + 1e-9)
    if accused < 1:
        raise ValueError(
            f"false_positive_rate is {false_positive_rate} of {len(others)} rows, less than one; "
            f"at least {1 / len(others):.2g}, or more other rows, is wanted"
        )
    threshold = others.sort().values[accused] if accused < len(others) else math.inf
    deviations(level)
    return Share(int((members < threshold).sum()), len(members), level)


def _losses(name, values):
    values = torch.as_tensor(values, dtype=torch.double).flatten()
    if not len(values) or values.isnan().any():
        raise ValueError(f"{name} is empty or holds NaN; a loss for each of some rows is wanted")
    return values
