"""How far a share could be from the one that was counted."""

import math
import operator
from dataclasses import dataclass
from statistics import NormalDist


def wilson_interval(right: int, count: int, level: float = 0.95) -> tuple[float, float]:
    """Return the lowest and the highest share that would make ``right`` of ``count`` no surprise.

    The score interval (Wilson, J. Am. Stat. Assoc. 22, 1927, doi:10.1080/01621459.1927.10502953).
    Unlike two standard deviations to each side it never leaves 0 .. 1, and none of 10 is no
    proof that there are none.

    Parameters
    ----------
    right, count : int
        Rows of one kind, and all rows; at least 1.
    level : float
        How often such an interval holds the true share, about; between 0 and 1.

    Raises
    ------
    ValueError
        When ``count`` is below 1, ``right`` is not between 0 and ``count``, one of them is no
        whole number, or ``level`` is not between 0 and 1.

    Examples
    --------
    >>> [round(end, 3) for end in wilson_interval(8, 10)]
    [0.49, 0.943]
    >>> [round(end, 3) for end in wilson_interval(0, 10)]
    [0.0, 0.278]
    """
    right, count = whole("right", right), whole("count", count)
    if not 0 <= right <= count or count < 1:
        raise ValueError(f"right is {right} of {count}; 0 to count, and a row at least, are wanted")
    z = deviations(level)
    share, widened = right / count, 1 + z**2 / count
    middle = share + z**2 / (2 * count)
    reach = z * math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    # At 0 and at 1 the end is the share itself; rounding must not move it to its other side.
    low, high = (middle - reach) / widened, (middle + reach) / widened
    return max(0.0, min(share, low)), min(1.0, max(share, high))


def deviations(level: float) -> float:
    """Return how many standard deviations hold ``level`` of a bell curve, or refuse the level."""
    if not 0 < level < 1:
        raise ValueError(f"level is {level}; a number between 0 and 1, such as 0.95, is wanted")
    return NormalDist().inv_cdf((1 + level) / 2)


def whole(name: str, value) -> int:
    """Return a whole number of any kind as int, or raise ``ValueError`` naming the argument."""
    try:
        return operator.index(value)
    except TypeError:
        raise ValueError(f"{name} is {value!r}; a whole number is wanted") from None


@dataclass(frozen=True)
class Share:
    """How many rows of a group are of one kind, and what that says of the group.

    Parameters
    ----------
    right, count : int
        Rows of that kind (answered right, flipped), and all rows of the group.
    level : float
        Of the interval.
    """

    right: int
    count: int
    level: float = 0.95

    @property
    def share(self) -> float:
        """The fraction that was counted."""
        return self.right / self.count

    @property
    def interval(self) -> tuple[float, float]:
        """The ends of Wilson's interval around it."""
        return wilson_interval(self.right, self.count, self.level)

    def __str__(self):
        low, high = self.interval
        return f"{self.share:.3f} ({low:.3f} to {high:.3f}) of {self.count:,}"
