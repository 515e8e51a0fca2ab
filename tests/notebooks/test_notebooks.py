"""Every notebook of the course: nothing drifted, nothing unexecuted, nothing leaked."""

import nbformat
import pytest

from tools import notebooks, rules

# Of all cells of the course, so that no chapter can raise it for itself; and cells in a notebook.
IGNORED_SHARE, IGNORED_IN_ONE = 0.02, 2

ON_DISK = sorted(
    path
    for folder in ("chapters", "solutions", "exercises")
    for path in (notebooks.ROOT / folder).glob("*.ipynb")
)
EXPECTED = notebooks.unexecuted(notebooks.ROOT)
SOLUTIONS = [path for path in EXPECTED if path.parent.name == "solutions"]


def name(path):
    return f"{path.parent.name}/{path.stem}"


def read(path):
    return nbformat.read(path, as_version=4)


def in_folder(folder):
    return {path.stem for path in ON_DISK if path.parent.name == folder}


def test_every_source_has_its_notebook_and_every_notebook_its_source():
    assert ON_DISK
    assert sorted(EXPECTED) == ON_DISK


def test_solutions_have_exercises_and_both_have_a_chapter():
    assert in_folder("solutions") == in_folder("exercises") <= in_folder("chapters")


@pytest.mark.parametrize("path", EXPECTED, ids=name)
def test_source_equals_notebook(path):
    assert not list(rules.drift(EXPECTED[path], read(path)))


def test_a_room_has_the_number_that_its_chapter_states_and_no_two_have_the_same():
    chapters = {
        path.stem: book for path, book in EXPECTED.items() if path.parent.name == "chapters"
    }
    numbers = [notebooks.heading(book)["number"] for book in chapters.values()]
    assert numbers == [stem[:2] for stem in chapters] == sorted(set(numbers))


def test_what_comes_next_is_told_once_and_last():
    for path, book in EXPECTED.items():
        told = [cell for cell in book.cells if "**Next:**" in cell.source]
        assert told in ([], [book.cells[-1]]), f"{name(path)}: the build writes that line"


@pytest.mark.parametrize("rule", rules.RULES, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("path", ON_DISK, ids=name)
def test_rule(path, rule):
    assert not list(rule(read(path)))


@pytest.mark.parametrize("path", ON_DISK, ids=name)
def test_bytes_are_those_that_the_build_writes(path):
    text = path.read_text(encoding="utf-8")
    assert text == nbformat.writes(notebooks.tidy(read(path))) + "\n"


@pytest.mark.parametrize("path", SOLUTIONS, ids=name)
def test_exercise_shows_nothing_of_its_solution(path):
    solution, exercise = EXPECTED[path], EXPECTED[path.parents[1] / "exercises" / path.name]
    assert rules.secrets(solution)
    assert not list(rules.leaks(solution, exercise))


@pytest.mark.parametrize("path", SOLUTIONS, ids=name)
def test_blank_exercise_fails_each_check_and_solution_passes_each(path):
    solution, exercise = read(path), read(path.parents[1] / "exercises" / path.name)
    assert rules.count_marks(exercise, "✓") == 0
    assert rules.count_marks(exercise, "✗") == rules.count_marks(solution, "✓") > 0


def test_few_cells_ignore_their_output(capsys):
    cells = {name(path): rules.code_cells(read(path)) for path in ON_DISK}
    ignoring = {path: sum(map(rules.ignores_output, found)) for path, found in cells.items()}
    share = sum(ignoring.values()) / sum(map(len, cells.values()))
    with capsys.disabled():
        named = {path: count for path, count in ignoring.items() if count}
        print(f"\noutput compared by nobody: {share:.1%} of all cells, {named or 'none'}")
    assert share <= IGNORED_SHARE
    assert max(ignoring.values()) <= IGNORED_IN_ONE


def test_readme_lists_every_chapter_with_measured_figures():
    readme = (notebooks.ROOT / "README.md").read_text(encoding="utf-8")
    rows = notebooks.TABLE.search(readme)[0].splitlines()[2:]
    assert len(rows) == len(in_folder("chapters"))
    for stem in in_folder("chapters"):
        rows = [line for line in readme.splitlines() if f"](chapters/{stem}.ipynb)" in line]
        assert len(rows) == 1, stem
        assert rows[0].endswith(" GB |") and " s | " in rows[0]


def test_readme_shows_the_figure_that_the_chapter_ends_with():
    picture = notebooks.ROOT / notebooks.PICTURE
    assert picture.read_bytes() == notebooks.last_picture(read(notebooks.ROOT / notebooks.SHOWCASE))
    assert f"]({notebooks.PICTURE.as_posix()})" in (notebooks.ROOT / "README.md").read_text(
        encoding="utf-8"
    )
