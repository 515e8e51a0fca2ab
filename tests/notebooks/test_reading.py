"""A chapter takes the time that it says, and its fast path stands by itself."""

import subprocess
import sys

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from tools import notebooks, reading

# About an hour a chapter; three hours for the fast path of the first seven.
LONGEST, LONGEST_FAST = 63, 26
CHAPTERS = {
    path.stem: book
    for path, book in notebooks.unexecuted(notebooks.ROOT).items()
    if path.parent.name == "chapters"
}
TOY = new_notebook(
    cells=[
        new_markdown_cell("# Title " + "word " * 128),
        new_code_cell("x = 1\n\n" * 8),
        new_markdown_cell("## ★ 1 · First\n" + "word " * 125 + "\n## 2 · Second\nword"),
        new_code_cell("y = 1"),
        new_markdown_cell(
            "*Figure: a b c*\n<details><summary>The figure in words</summary>\nlong\n</details>"
        ),
        new_markdown_cell("## Quiz: five questions\n\n" + "word " * 130),
    ]
)


def test_words_and_lines_are_counted_and_descriptions_of_pictures_and_quizzes_are_not():
    assert reading.minutes(TOY, fast=True) == 3
    assert reading.minutes(TOY) == pytest.approx(3 + 9 / 130 + 1 / 8)
    assert "y" not in reading.fast_code(TOY)


@pytest.mark.parametrize("name", CHAPTERS)
def test_a_chapter_states_its_time_and_is_not_too_long(name):
    stated = reading.HEADER.search(CHAPTERS[name].cells[0].source)
    assert stated, "the header states no time: see tools/reading.py"
    for key, most in (("whole", LONGEST), ("fast", LONGEST_FAST)):
        took = reading.minutes(CHAPTERS[name], fast=key == "fast")
        assert abs(took - int(stated[key])) <= 2, f"{key}: {took:.0f} minutes"
        assert took <= most, f"{key}: {took:.0f} minutes"


@pytest.mark.parametrize("name", CHAPTERS)
def test_the_fast_path_needs_nothing_that_it_leaves_out(name):
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "F821", "-"]
    code = reading.fast_code(CHAPTERS[name])
    found = subprocess.run(command, input=code, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout
