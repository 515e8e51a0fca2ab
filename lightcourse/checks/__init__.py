"""Checks of the exercises: each tries a learner's function and names the misconception.

``check_x(function)`` prints one line that begins with ✓ or ✗, never raises, and returns
whether the function is right.

The checks of a chapter are found, not listed: a module ``chNN_topic`` in this folder, and its
sentences in ``words/en/NN_topic.toml``.
"""

import importlib
import pkgutil
import re

from lightcourse.checks import by_hand
from lightcourse.checks.by_hand import ByHand
from lightcourse.checks.grading import Exercise
from lightcourse.checks.grading import find_problem as find_problem

_chapters = [
    importlib.import_module(f"{__name__}.{found.name}")
    for found in pkgutil.iter_modules(__path__)
    if re.match(r"ch\d\d_", found.name)
]

# From the name of a check to what it measures by.
EXERCISES = {
    f"check_{found.name}": found
    for chapter in _chapters
    for found in vars(chapter).values()
    if isinstance(found, Exercise)
}

# From the name of a question to what is asked of which exercise's function.
BY_HAND = {
    name.lower(): found
    for chapter in _chapters
    for name, found in vars(chapter).items()
    if isinstance(found, ByHand)
}


def check_by_hand(question: str, answer, **numbers) -> bool:
    """Check what was worked out by hand from a variant's numbers; print one line.

    Parameters
    ----------
    question : str
        A name in ``BY_HAND``.
    answer : number or tuple
        To three digits; whole numbers just so.
    **numbers
        Those of the variant.
    """
    return by_hand.check(BY_HAND, question, answer, numbers)


globals().update(
    (name, check)
    for chapter in _chapters
    for name, check in vars(chapter).items()
    if name in EXERCISES
)
__all__ = sorted(EXERCISES)
