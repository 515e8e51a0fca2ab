"""Telling, without a kernel, which exercises are still blank."""

from pathlib import Path

import pytest

from lightcourse import classroom
from lightcourse.classroom.begun import STUB
from tests.classroom.books import notebook
from tools import notebooks

ROOT = Path(__file__).resolve().parents[2]
SOLUTIONS = sorted((ROOT / "solutions").glob("*.ipynb"))
SOLVED = notebook(
    'def f(x):\n    """Double."""\n    y = x\n    ### BEGIN SOLUTION\n    return y + x\n'
    "    ### END SOLUTION",
    "### BEGIN SOLUTION\nimport os\n### END SOLUTION\ndef g(x):\n    return x",
    "checks.check_f(f)\nchecks.check_g(g)",
)
CHECKS = ["checks.check_f(f)", "checks.check_g(g)"]
BLANK = f'def f(x):\n    """Double."""\n    y = x\n    {STUB}'


def not_begun(*sources):
    return classroom.not_begun(notebook(*sources), SOLVED, CHECKS)


def test_the_stub_is_the_one_that_the_build_writes():
    assert STUB == notebooks.STUB


@pytest.mark.parametrize("path", SOLUTIONS, ids=lambda path: path.stem)
def test_the_courses_own_exercises_are_blank_and_its_solutions_are_not(path):
    solved = classroom.read_notebook(path)
    exercise = classroom.read_notebook(ROOT / "exercises" / path.name)
    checks = classroom.expected_checks(solved)
    assert classroom.not_begun(exercise, solved, checks) == checks
    assert classroom.not_begun(solved, solved, checks) == []


@pytest.mark.parametrize(
    ("sources", "blank"),
    [
        ([BLANK], ["checks.check_f(f)"]),
        ([BLANK + "\n\n# a remark\n"], ["checks.check_f(f)"]),
        ([BLANK, "%matplotlib inline", "f(", "x = 1"], ["checks.check_f(f)"]),
        ([BLANK.replace("y = x", "y = 2 * x")], []),
        ([BLANK + "\n    return 2 * x"], []),
        ([BLANK, "def f(x):\n    return 2 * x"], []),
        ([BLANK, "def g(x):\n    return x"], ["checks.check_f(f)", "checks.check_g(g)"]),
        ([], []),
    ],
)
def test_a_function_is_blank_where_it_is_what_the_course_gave(sources, blank):
    assert not_begun(*sources) == blank
