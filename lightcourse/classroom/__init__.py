"""Notebooks without a browser: read them, run a chapter, grade exercises, tell how far one is."""

from lightcourse.classroom.begun import not_begun
from lightcourse.classroom.grade import Answer, Report, grade_notebook
from lightcourse.classroom.kernel import Failure
from lightcourse.classroom.read import code_sources, expected_checks, first_line, read_notebook
from lightcourse.classroom.run import Execution, execute, notebook_client
from lightcourse.classroom.standing import Standing, ask, look

__all__ = [
    "Answer",
    "Execution",
    "Failure",
    "Report",
    "Standing",
    "ask",
    "code_sources",
    "execute",
    "expected_checks",
    "first_line",
    "grade_notebook",
    "look",
    "not_begun",
    "notebook_client",
    "read_notebook",
]
