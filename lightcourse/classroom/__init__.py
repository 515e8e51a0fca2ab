"""Notebooks without a browser: read them, run a chapter, grade a learner's or a class's."""

from lightcourse.classroom.begun import not_begun
from lightcourse.classroom.capstones import grade_capstones
from lightcourse.classroom.grade import Answer, Failure, Report, grade_notebook
from lightcourse.classroom.grading import grade_class
from lightcourse.classroom.isolation import SAID, Limits
from lightcourse.classroom.read import code_sources, expected_checks, first_line, read_notebook
from lightcourse.classroom.run import Execution, execute, notebook_client
from lightcourse.classroom.standing import Standing, ask, look

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
    "grade_capstones",
    "grade_class",
    "grade_notebook",
    "look",
    "not_begun",
    "notebook_client",
    "read_notebook",
]
