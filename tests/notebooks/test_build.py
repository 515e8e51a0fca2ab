"""The way from source to reader, on a made-up chapter."""

from types import SimpleNamespace

import nbformat
import pytest
from strict import nbval

from tools import notebooks, rules

CHAPTER = r"""# %% [markdown]
# # 00 · Start — we measure first
# The angle $\theta$ is not a tab.

# %%
import matplotlib.pyplot as plt

lines = plt.plot([1, 2])

# %% [markdown]
# *Figure: a line that climbs.*

# %%
print("out")
print("put")
6 * 7

# %% tags=["nbval-ignore-output"]
import time

seconds = time.perf_counter()
assert seconds > 0
"""
SOLUTION = '''# %% [markdown]
# # 00 · Exercises

# %%
def double(x):
    """Return twice ``x``."""
    ### BEGIN SOLUTION
    return x + x + 0 * x
    ### END SOLUTION


# %%
passed = double(2) == 4
print("✓ right" if passed else "✗ not written yet")
### BEGIN HIDDEN TESTS
assert passed is True
### END HIDDEN TESTS

# %% [markdown] tags=["solution"]
# Adding a number to itself doubles it.
'''
README = "# Made up\n\n<!-- chapters -->\n<!-- /chapters -->\n\nThe end.\n"


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """A course of one chapter, built."""
    root = tmp_path_factory.mktemp("course")
    for folder, text in (("chapters", CHAPTER), ("solutions", SOLUTION)):
        (root / folder / "src").mkdir(parents=True)
        (root / folder / "src" / "00_start.py").write_text(text, encoding="utf-8")
    (root / "README.md").write_text(README, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TQDM_DISABLE", "1")
        notebooks.main([], root)
    return root


def read(course, folder):
    return nbformat.read(course / folder / "00_start.ipynb", as_version=4)


@pytest.mark.parametrize("folder", ["chapters", "solutions", "exercises"])
def test_built_notebooks_keep_every_rule(course, folder):
    notebook = read(course, folder)
    nbformat.validate(notebook)
    assert [list(rule(notebook)) for rule in rules.RULES] == [[]] * len(rules.RULES)


def test_outputs_are_there_and_in_one_piece(course):
    figure, text, _ = rules.code_cells(read(course, "chapters"))
    assert "image/png" in figure.outputs[0].data
    assert text.outputs[0].text == "out\nput\n"
    assert text.outputs[1].data["text/plain"] == "42"


def test_latex_arrives_whole(course):
    assert r"$\theta$" in read(course, "chapters").cells[0].source


def test_exercise_is_the_solution_with_the_answers_taken_out(course):
    exercise = read(course, "exercises")
    assert [cell.source for cell in exercise.cells] == [
        "# 00 · Exercises",
        f'def double(x):\n    """Return twice ``x``."""\n    {notebooks.STUB}',
        'passed = double(2) == 4\nprint("✓ right" if passed else "✗ not written yet")',
    ]
    assert rules.count_marks(exercise, "✗") == 1
    assert rules.count_marks(read(course, "solutions"), "✓") == 1
    assert not list(rules.leaks(read(course, "solutions"), exercise))


def test_what_the_sources_stand_for_is_what_was_built(course):
    for path, expected in notebooks.unexecuted(course).items():
        assert not list(rules.drift(expected, nbformat.read(path, as_version=4)))


def test_a_drifted_source_is_caught(course, tmp_path):
    source = tmp_path / "00_start.py"
    source.write_text(CHAPTER.replace("6 * 7", "6 * 8"), encoding="utf-8")
    assert list(rules.drift(notebooks.from_source(source), read(course, "chapters")))


def test_building_twice_gives_the_same_bytes(course):
    again = notebooks.unexecuted(course)
    before = {path: path.read_bytes() for path in again}
    for path, notebook in again.items():
        notebooks.build(notebook, path)
    assert {path: path.read_bytes() for path in again} == before


def test_identifiers_follow_the_content_and_are_unique():
    cells = [nbformat.v4.new_code_cell("same"), nbformat.v4.new_code_cell("same")]
    one, two = notebooks.tidy(nbformat.v4.new_notebook(cells=cells)).cells
    again = notebooks.tidy(nbformat.v4.new_notebook(cells=cells[:1])).cells[0]
    assert one.id == again.id != two.id


def test_readme_gets_one_row_with_what_was_measured(course):
    text = (course / "README.md").read_text(encoding="utf-8")
    assert text.startswith("# Made up") and text.endswith("The end.\n")
    rows = [line for line in text.splitlines() if "(chapters/00_start.ipynb)" in line]
    assert len(rows) == 1
    assert rows[0].startswith("| [00 · Start](chapters/00_start.ipynb) | we measure first | ")


def test_a_row_replaces_its_former_self_and_rows_stay_sorted(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(README, encoding="utf-8")
    for chapter, seconds in (("01_b", 1), ("00_a", 2), ("01_b", 3)):
        notebooks.enter(f"| [x](chapters/{chapter}.ipynb) | {seconds} s |\n", readme)
    rows = readme.read_text(encoding="utf-8").splitlines()
    assert [row[-6:] for row in rows if "ipynb" in row] == ["| 2 s |"[1:], "| 3 s |"[1:]]


def test_a_readme_without_the_marks_is_an_error(tmp_path):
    (tmp_path / "README.md").write_text("nothing")
    with pytest.raises(RuntimeError, match="lacks the lines"):
        notebooks.enter("| row |", tmp_path / "README.md")


def test_an_unknown_name_is_an_error_that_tells_the_known_ones(course):
    with pytest.raises(RuntimeError, match=r"no source is called 99_no; there are \['00_start'\]"):
        notebooks.main(["99_no"], course)


def test_a_cell_that_raises_stops_the_build_and_leaves_the_old_file(tmp_path):
    path = tmp_path / "00_start.ipynb"
    path.write_text("old")
    cells = [nbformat.v4.new_code_cell("1 / 0")]
    with pytest.raises(RuntimeError, match="code cell 1: ZeroDivisionError"):
        notebooks.build(nbformat.v4.new_notebook(cells=cells), path)
    assert path.read_text() == "old"


def test_a_slow_notebook_is_an_error(tmp_path, monkeypatch):
    slow = SimpleNamespace(failure=None, seconds=91, peak_bytes=0)
    monkeypatch.setattr(notebooks.classroom, "execute", lambda *_: slow)
    monkeypatch.setattr(notebooks, "TIME_LIMIT", 90)
    with pytest.raises(RuntimeError, match="took 91 s; 90 s is allowed"):
        notebooks.build(nbformat.v4.new_notebook(), tmp_path / "00_start.ipynb")
    assert not (tmp_path / "00_start.ipynb").exists()


def test_nbval_passes_what_was_built(course):
    status, said = nbval(course / "chapters")
    assert status == 0, said
    assert "3 passed" in said


def test_nbval_fails_on_every_changed_output(course, tmp_path):
    notebook = read(course, "chapters")
    figure, text, ignored = rules.code_cells(notebook)
    more, fewer, other = text.copy(), text.copy(), text.copy()
    more.outputs = [*text.outputs, text.outputs[1]]
    fewer.outputs = text.outputs[:1]
    other.outputs = [text.outputs[0], nbformat.v4.new_output("stream", name="stderr", text="w")]
    notebook.cells = [figure, text, more, fewer, other, ignored]
    figure.outputs = []
    text.outputs = [nbformat.v4.new_output("stream", text="out\n"), text.outputs[1]]
    ignored.outputs = text.outputs
    nbformat.write(notebooks.tidy(notebook), tmp_path / "00_start.ipynb")
    status, said = nbval(tmp_path)
    assert status == 1
    assert "5 failed, 1 passed" in said
