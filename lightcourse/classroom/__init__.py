"""Notebooks without a browser: read them, run a chapter, grade a learner's exercises."""

from lightcourse.classroom.grade import Answer, Report, grade_notebook
from lightcourse.classroom.kernel import Failure
from lightcourse.classroom.read import code_sources, expected_checks, first_line, read_notebook
from lightcourse.classroom.run import Execution, execute, notebook_client

__all__ = [
    "Answer",
    "Execution",
    "Failure",
    "Report",
    "code_sources",
    "execute",
    "expected_checks",
    "first_line",
    "grade_notebook",
    "notebook_client",
    "read_notebook",
]
