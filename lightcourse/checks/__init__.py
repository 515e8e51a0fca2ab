"""Checks of the exercises: each tries a learner's function and names the misconception.

``check_x(function)`` prints one line that begins with ✓ or ✗, never raises, and returns
whether the function is right.

The checks of a chapter are found, not listed: a module ``chNN_topic`` in this folder, and its
sentences in ``words/en/NN_topic.toml``.
"""

import importlib
import pkgutil
import re

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

globals().update(
    (name, check)
    for chapter in _chapters
    for name, check in vars(chapter).items()
    if name in EXERCISES
)
__all__ = sorted(EXERCISES)
