"""The brief's budget, and who is not beaten in bytes and accuracy at once."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Budget:
    """What a submission may take, and lose.

    Parameters
    ----------
    bytes : int
        Of all files that are needed to answer.
    share_of_time : float
        Of the teacher's time for a sentence, on the same machine. Machines differ: a share
        means the same on all of them, milliseconds do not.
    points_below : float
        Of accuracy, in percentage points below the teacher's on the same rows.

    Raises
    ------
    ValueError
        When one of them is not above 0, or 0 for the last.
    """

    bytes: int
    share_of_time: float
    points_below: float

    def __post_init__(self):
        for name in ("bytes", "share_of_time", "points_below"):
            value, least = getattr(self, name), name == "points_below"
            if not (value > 0 or (least and value == 0)):
                wanted = "0 or more" if least else "more than 0"
                raise ValueError(f"{name} is {value}; {wanted} is wanted")

    def __str__(self):
        return (
            f"{self.bytes / 1e6:g} MB, {self.share_of_time:.2f} of the teacher's time, "
            f"{self.points_below:g} points below it at most"
        )


# Measured for chapter 18 on an Intel Xeon (one thread, 24 tokens): 4 bits alone take 12 MB and 0.65
# of the time, two of six layers in floats 62 MB and 0.36, both with fewer words 3.7 MB and 0.3.
BUDGET = Budget(bytes=4_000_000, share_of_time=1 / 3, points_below=4)


def pareto_front(points: Mapping[str, tuple[float, float]]) -> list[str]:
    """Return the names of those that no other one beats: smaller at no loss, or better at no cost.

    Parameters
    ----------
    points : mapping of str to (float, float)
        By name the bytes and the accuracy.

    Returns
    -------
    list of str
        In order of bytes; of equals, all.

    Examples
    --------
    >>> pareto_front({"a": (1, 0.8), "b": (2, 0.9), "c": (3, 0.85), "d": (2, 0.7)})
    ['a', 'b']
    """
    front = [name for name in points if not any(_beats(p, points[name]) for p in points.values())]
    return sorted(front, key=lambda name: (points[name][0], name))


def _beats(one, other):
    return one[0] <= other[0] and one[1] >= other[1] and one != other
