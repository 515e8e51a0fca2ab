"""Reading notebooks: what is code, and which checks are called."""

import pytest

from lightcourse.classroom import read
from tests.classroom.books import notebook


def test_a_missing_file_and_a_file_of_another_kind_are_told_apart(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file .*nowhere\.ipynb"):
        read.read_notebook(tmp_path / "nowhere.ipynb")
    for number, content in enumerate([b"hello", b"{}", b"\xff\xfe\x00", b"", b"[1]"]):
        path = tmp_path / f"{number}.ipynb"
        path.write_bytes(content)
        with pytest.raises(ValueError, match="no Jupyter notebook"):
            read.read_notebook(path)


def test_blank_cells_and_text_are_no_code(tmp_path):
    assert read.code_sources(notebook("1", " \n", "2")) == ["1", "2"]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("checks.check_a(f)", ["checks.check_a(f)"]),
        ("x = 1\nassert checks.check_a(f), 'no'", ["checks.check_a(f)"]),
        ("checks.check_a(\n    f,\n    seed=1,\n)", ["checks.check_a(f, seed=1)"]),
        ("%matplotlib inline\n!true\nchecks.check_a(f);", ["checks.check_a(f)"]),
        ("checks.check_a(f)\nchecks.check_b(g)\nchecks.check_a(f)", "ab"),
        ("assert not checks.check_a(wrong)", []),
        ("# checks.check_a(f)\n'checks.check_a(f)'", []),
        ("other.check_a(f); check_a(f); checks.show(f)", []),
        ("def half(:\nchecks.check_a(f)", []),
        ("%%timeit\nchecks.check_a(f)", []),
    ],
)
def test_expected_checks_are_the_statements_that_call_one(source, expected):
    expected = ["checks.check_a(f)", "checks.check_b(g)"] if expected == "ab" else expected
    assert read.expected_checks(notebook(source)) == expected


def test_the_first_line_of_a_cell_is_one_that_does_something():
    assert read.first_line("\n# why\n  x = 1\ny") == "x = 1"
    assert read.first_line("# only this") == "# only this"
