"""How far somebody is: what is run, what is remembered, what makes it be run again."""

import nbformat
import pytest

import lightcourse
from lightcourse import classroom, folders
from lightcourse.classroom import Answer, Report, grade
from tests.classroom.books import notebook

CHECKS = ["checks.check_stored_bytes(stored_bytes)", "checks.check_keep_mask(keep_mask)"]


def function(name, body):
    return f"def {name}(*arguments):\n{body}"


def solution(name):
    return function(name, "    ### BEGIN SOLUTION\n    return 1\n    ### END SOLUTION")


def blank(name):
    return function(name, "    ...  # your code here")


NAMES = ("stored_bytes", "keep_mask")
SOLVED = notebook(*map(solution, NAMES), *CHECKS)
BLANK = notebook(*map(blank, NAMES), *CHECKS)
HALF = notebook(function("stored_bytes", "    return 2"), blank("keep_mask"), *CHECKS)


@pytest.fixture
def room(tmp_path, monkeypatch):
    """A course's solution, and a place for the learner's notebook and for the cache."""
    monkeypatch.setenv("LIGHTCOURSE_CACHE", str(tmp_path / "cache"))
    nbformat.write(SOLVED, tmp_path / "solved.ipynb")
    return tmp_path


@pytest.fixture
def graded(monkeypatch):
    """Instead of a kernel, a report that a test may change; what was asked."""
    asked, stopped = [], [""]

    def grade_notebook(path, expected, seconds):
        asked.append((path.name, expected, seconds))
        return Report([], [Answer(each, False, "0 is too few") for each in expected], stopped[0])

    monkeypatch.setattr(grade, "grade_notebook", grade_notebook)
    return asked, stopped


def write(room, content):
    nbformat.write(content, room / "own.ipynb")
    return room / "own.ipynb", room / "solved.ipynb"


def test_what_is_not_begun_needs_no_kernel(room, graded):
    for place in ((room / "gone.ipynb", room / "solved.ipynb"), write(room, BLANK)):
        standing = classroom.look(*place)
        assert standing.answers == dict.fromkeys(CHECKS)
        assert (standing.passed, standing.anew, standing.trouble) == (0, False, "")
    assert not graded[0]


def test_only_what_is_begun_is_asked_and_then_remembered(room, graded):
    pair = write(room, HALF)
    assert classroom.look(*pair) is None
    asked = classroom.ask(*pair, 7)
    assert graded[0] == [("own.ipynb", CHECKS[:1], 7)]
    assert asked.answers == {CHECKS[0]: Answer(CHECKS[0], False, "0 is too few"), CHECKS[1]: None}
    assert asked.anew
    again = classroom.look(*pair)
    assert again.answers == asked.answers and not again.anew
    assert len(graded[0]) == 1


def test_prose_and_outputs_change_nothing_and_code_does(room, graded):
    pair = write(room, HALF)
    classroom.ask(*pair, 7)
    read = notebook(*(cell.source for cell in HALF.cells if cell.cell_type == "code"))
    read.cells[0].source = "my remarks"
    read.cells[1].execution_count = 3
    assert classroom.look(*write(room, read)) is not None
    read.cells[-1].source += "\n1"
    assert classroom.look(*write(room, read)) is None


def test_another_version_of_the_library_is_asked_again(room, graded, monkeypatch):
    pair = write(room, HALF)
    classroom.ask(*pair, 7)
    monkeypatch.setattr(lightcourse, "__version__", "99")
    assert classroom.look(*pair) is None


def test_a_run_that_was_cut_short_is_told_and_not_remembered(room, graded):
    graded[1][0] = "the time limit of 7 s was reached"
    pair = write(room, HALF)
    assert classroom.ask(*pair, 7).trouble == "the time limit of 7 s was reached"
    assert classroom.look(*pair) is None


@pytest.mark.parametrize("content", ["", "{", "[]", '{"of": 1}', '{"of": "x", "answers": 3}'])
def test_damaged_notes_are_as_good_as_none(room, graded, content):
    pair = write(room, HALF)
    classroom.ask(*pair, 7)
    [note] = (folders.cache_dir() / "progress").iterdir()
    note.write_text(content)
    assert classroom.look(*pair) is None


def test_where_nothing_can_be_written_it_works_all_the_same(room, graded):
    (room / "cache").write_text("a file where the folder should be")
    pair = write(room, HALF)
    assert classroom.ask(*pair, 7).anew
    assert classroom.look(*pair) is None


def test_two_notebooks_of_one_name_are_two(room, graded):
    pair = write(room, HALF)
    classroom.ask(*pair, 7)
    (room / "other").mkdir()
    nbformat.write(HALF, room / "other" / "own.ipynb")
    assert classroom.look(room / "other" / "own.ipynb", pair[1]) is None


def test_what_is_no_notebook_is_told(room, graded):
    (room / "own.ipynb").write_text("hello")
    standing = classroom.look(room / "own.ipynb", room / "solved.ipynb")
    assert "no Jupyter notebook" in standing.trouble
    assert standing.answers == dict.fromkeys(CHECKS)


def test_a_real_kernel_is_asked(room):
    right = "def stored_bytes(rows, columns, bits, group_size):\n"
    right += "    count = rows * columns\n    return count * bits / 8 + 2 * count / group_size"
    pair = write(room, notebook(right, blank("keep_mask"), "1 / 0", *CHECKS))
    standing = classroom.ask(*pair, 100)
    assert standing.answers == {CHECKS[0]: Answer(CHECKS[0], True), CHECKS[1]: None}
    assert standing.passed == 1
    assert classroom.look(*pair).answers == standing.answers
