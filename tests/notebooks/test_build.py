"""The way from source to reader, on a made-up chapter."""

from types import SimpleNamespace

import nbformat
import pytest

from tests.notebooks.strict import nbval
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


def furnish(root, room, **sources):
    """Write the sources of a room, by their names."""
    folder = root / "sources" / room
    folder.mkdir(parents=True)
    for name, text in sources.items():
        (folder / f"{name}.py").write_text(text, encoding="utf-8")


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """A course of one chapter, built."""
    root = tmp_path_factory.mktemp("course")
    furnish(root, "00_start", chapter=CHAPTER, exercises=SOLUTION)
    (root / "docs").mkdir()
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
    furnish(tmp_path, "00_start", chapter=CHAPTER.replace("6 * 7", "6 * 8"), exercises=SOLUTION)
    expected = notebooks.unexecuted(tmp_path)[tmp_path / "chapters" / "00_start.ipynb"]
    (drifted,) = {
        text.partition(" of ")[2][:6] for text in rules.drift(expected, read(course, "chapters"))
    }
    assert drifted == "cell 3"


def test_the_last_figure_of_the_first_chapter_is_kept_for_readme(course):
    assert (course / notebooks.PICTURE).read_bytes() == notebooks.last_picture(
        read(course, "chapters")
    )


LAST = "# %% [markdown]\n# # 03 · Pruning: less — which weights may go\n\n# %%\n1\n"
PRACTICE = "**Next:** [the exercises of this chapter](../exercises/00_start.ipynb)"
AFTER = "chapter 03, [*Pruning: less*](03_pruning.ipynb): which weights may go."


def endings(root):
    """Return how many cells each chapter has, and what stands in the last one."""
    found = notebooks.unexecuted(root).items()
    chapters = {path.stem: book.cells for path, book in found if path.parent.name == "chapters"}
    return {name: (len(cells), cells[-1].source) for name, cells in chapters.items()}


def test_a_chapter_ends_with_what_comes_next_as_far_as_there_is_something(tmp_path):
    furnish(tmp_path, "00_start", chapter=CHAPTER, exercises=SOLUTION)
    assert endings(tmp_path) == {"00_start": (6, f"{PRACTICE}.")}
    furnish(tmp_path, "03_pruning", chapter=LAST)
    assert endings(tmp_path) == {
        "00_start": (6, f"{PRACTICE}, then {AFTER}"),
        "03_pruning": (2, "1"),
    }
    (tmp_path / "sources" / "00_start" / "exercises.py").unlink()
    assert endings(tmp_path)["00_start"] == (6, f"**Next:** {AFTER}")


def test_a_quiz_stands_before_what_comes_next(tmp_path):
    furnish(tmp_path, "00_start", chapter=CHAPTER, exercises=SOLUTION)
    choices = "[{text: one, right: true, explain: a}, {text: two, explain: b}]"
    quiz = tmp_path / "sources" / "00_start" / "quiz.yaml"
    quiz.write_text(f"- question: How many?\n  choices: {choices}\n", encoding="utf-8")
    [chapter, *_] = notebooks.unexecuted(tmp_path).values()
    asked, told = (cell.source for cell in chapter.cells[-2:])
    assert asked.startswith("## Quiz") and "<summary>B · two</summary>\n\n✗ b\n" in asked
    assert told == f"{PRACTICE}."


def test_a_chapter_that_opens_otherwise_is_an_error(tmp_path):
    furnish(tmp_path, "00_start", chapter=CHAPTER)
    furnish(tmp_path, "03_pruning", chapter=LAST.replace(" — ", " - "))
    with pytest.raises(RuntimeError, match="03 · Pruning: less - which.* — promise' is wanted"):
        notebooks.unexecuted(tmp_path)


def test_new_prose_is_taken_over_without_executing(course, tmp_path):
    path = tmp_path / "chapters" / "00_start.ipynb"
    path.parent.mkdir()
    path.write_bytes((course / "chapters" / "00_start.ipynb").read_bytes())
    furnish(tmp_path, "00_start", chapter=CHAPTER.replace("not a tab", "a letter"))
    wanted = notebooks.unexecuted(tmp_path)[path]
    assert notebooks.renew(wanted, path)
    renewed, before = nbformat.read(path, as_version=4), read(course, "chapters")
    assert not list(rules.drift(wanted, renewed))
    assert [list(rule(renewed)) for rule in rules.RULES] == [[]] * len(rules.RULES)
    assert rules.code_cells(renewed) == rules.code_cells(before)
    assert not notebooks.renew(wanted, path)


def test_changed_code_and_what_was_never_built_are_not_renewed(course, tmp_path):
    furnish(tmp_path, "00_start", chapter=CHAPTER.replace("6 * 7", "6 * 8"))
    path = tmp_path / "chapters" / "00_start.ipynb"
    wanted = notebooks.unexecuted(tmp_path)[path]
    assert not notebooks.renew(wanted, path)
    assert not path.exists()
    path.parent.mkdir()
    path.write_bytes(before := (course / "chapters" / "00_start.ipynb").read_bytes())
    assert not notebooks.renew(wanted, path)
    assert path.read_bytes() == before


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


def test_a_picture_has_its_description_as_alt_text_on_a_page_too(course):
    from nbconvert import HTMLExporter

    chapter = read(course, "chapters")
    [picture] = [output for cell in chapter.cells for output in rules.pictures(cell)]
    assert picture.metadata["image/png"]["alt"] == "a line that climbs."
    # Of nbconvert's templates this one writes it; "lab" leaves it out.
    page, _ = HTMLExporter(template_name="classic").from_notebook_node(chapter)
    assert 'alt="a line that climbs."' in page
