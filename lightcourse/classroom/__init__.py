"""Notebooks without a browser: read them, run a chapter, grade a learner's or a class's.

This package is there in a learner's process, and ``lightcourse.checks`` is not: what needs the
checks imports them inside of functions. ``capstones`` is a module to import by itself: it brings
torch along, which no notebook's reader waits for.
"""

from lightcourse.classroom.begun import not_begun
from lightcourse.classroom.grade import Answer, Failure, Report, grade_notebook
from lightcourse.classroom.grading import grade_class
from lightcourse.classroom.handing_out import read_names, write_variants
from lightcourse.classroom.isolation import SAID, Limits
from lightcourse.classroom.keys import read_keys
from lightcourse.classroom.read import (
    code_sources,
    expected_checks,
    first_line,
    points_of,
    read_notebook,
)
from lightcourse.classroom.results import total
from lightcourse.classroom.run import Execution, execute, notebook_client
from lightcourse.classroom.standing import Standing, ask, look
from lightcourse.classroom.variants import read_questions

__all__ = [
    "SAID",
    "Answer",
    "Execution",
    "Failure",
    "Limits",
    "Report",
    "Standing",
    "ask",
    "code_sources",
    "execute",
    "expected_checks",
    "first_line",
    "grade_class",
    "grade_notebook",
    "look",
    "not_begun",
    "notebook_client",
    "points_of",
    "read_keys",
    "read_names",
    "read_notebook",
    "read_questions",
    "total",
    "write_variants",
]
