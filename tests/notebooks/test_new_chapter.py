"""A chapter more: its author adds a room and a module of checks; the rest follows from a build."""

import os
import shutil
import subprocess
import sys
from types import SimpleNamespace

import nbformat
import pytest

from lightcourse import cli
from tools import notebooks, rules

COPIED = ("chapters", "docs", "exercises", "lightcourse", "solutions", "sources", "tools")
COPIED += ("tests", "zh", "README.md", "conftest.py", "pyproject.toml")
LAST = sorted(path.name for path in (notebooks.ROOT / "sources").glob("[0-9][0-9]_*"))[-1]
NUMBER = f"{int(LAST[:2]) + 1:02}"
TOY = f"{NUMBER}_toy"
CHAPTER = f"""# %% [markdown]
# # {NUMBER} · Toy: twice — what doubling costs
#
# Nothing, as the next cell shows.

# %%
print(2 * 2)
"""
EXERCISES = f'''# %% [markdown]
# # {NUMBER} · Toy: exercises — one number

# %%
from lightcourse import checks

# %%
def twice_over(x):
    """Return twice ``x``."""
    ### BEGIN SOLUTION
    return 2 * abs(x)
    ### END SOLUTION


# %% [markdown]
# Is it right?

# %%
passed = checks.check_twice_over(twice_over)
### BEGIN HIDDEN TESTS
assert passed is True
### END HIDDEN TESTS
'''
CHECKS = '''"""Checks of the exercises of the toy."""

from lightcourse.checks.grading import Exercise, grade


def check_twice_over(twice_over) -> bool:
    """Check ``twice_over(x)``: twice the size of ``x``."""
    return grade(twice_over, TWICE_OVER)


def _twice_over(x):
    return max(x + x, -x - x)


TWICE_OVER = Exercise(
    "twice_over",
    _twice_over,
    lambda seed: [(seed + 3,), (-seed - 4,)],
    {
        "keeps_the_sign": lambda x: x + x,
        "squares": lambda x: x * x,
        "once": lambda x: abs(x),
    },
)
'''
WORDS = """[twice_over]
keeps_the_sign = "a size has no sign"
squares = "that is the square"
once = "twice is wanted, not once"
"""
WRITTEN = {
    f"sources/{TOY}/chapter.py": CHAPTER,
    f"sources/{TOY}/exercises.py": EXERCISES,
    f"lightcourse/checks/ch{TOY}.py": CHECKS,
    f"lightcourse/checks/words/en/{TOY}.toml": WORDS,
}
BUILT = {f"{folder}/{TOY}.ipynb" for folder in ("chapters", "solutions", "exercises")}


def copy(name, root):
    """Copy a file or folder of the course, but for what Python and Jupyter leave there."""
    source, to = notebooks.ROOT / name, root / name
    if source.is_dir():
        shutil.copytree(source, to, ignore=shutil.ignore_patterns("__pycache__", ".ipynb_*"))
    else:
        shutil.copy(source, to)


def contents(root):
    """Return the bytes of every file that somebody wrote or built."""
    files = [path for path in root.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}


def python(root, *arguments):
    """Run Python in a copy of the course, with the library that lies there."""
    path = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))
    return subprocess.run(
        [sys.executable, *arguments],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        cwd=root,
    )


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """A copy of the course to which a chapter was added; what lay there before and after."""
    root = tmp_path_factory.mktemp("course")
    for name in COPIED:
        copy(name, root)
    before = contents(root)
    for name, text in WRITTEN.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    run = python(root, "-m", "tools.notebooks", TOY)
    assert run.returncode == 0, run.stderr
    return SimpleNamespace(root=root, before=before, after=contents(root))


def read(course, name):
    return nbformat.read(course.root / name, as_version=4)


def test_the_three_notebooks_are_built(course):
    chapter, solution, exercise = (
        read(course, f"{folder}/{TOY}.ipynb") for folder in ("chapters", "solutions", "exercises")
    )
    assert rules.code_cells(chapter)[0].outputs[0].text == "4\n"
    assert rules.count_marks(solution, "✓") == rules.count_marks(exercise, "✗") == 1
    assert notebooks.STUB in exercise.cells[2].source
    (said,) = rules.code_cells(exercise)[-1].outputs
    assert said.text == "✗ twice_over: not written yet: the function returns nothing\n"


def test_the_chapter_before_it_names_it(course):
    *others, ending = read(course, f"chapters/{LAST}.ipynb").cells
    assert f"then chapter {NUMBER}, [*Toy: twice*]({TOY}.ipynb): what doubling" in ending.source
    before = nbformat.reads(course.before[f"chapters/{LAST}.ipynb"].decode(), as_version=4)
    assert others == before.cells[:-1]


def test_readme_lists_it_and_is_else_what_it_was(course):
    old, new = (files["README.md"].decode().splitlines() for files in (course.before, course.after))
    (row,) = [line for line in new if TOY in line]
    assert row.startswith(
        f"| [{NUMBER} · Toy: twice](chapters/{TOY}.ipynb) | what doubling costs | "
    )
    assert [line for line in new if line != row] == old


def test_the_command_finds_it(course):
    path = course.root / "chapters" / f"{TOY}.ipynb"
    assert cli.find_chapter(course.root, str(int(NUMBER))) == path


def test_nothing_else_changed(course):
    old, new = course.before, course.after
    changed = {name for name in old.keys() | new.keys() if old.get(name) != new.get(name)}
    assert changed == {*WRITTEN, *BUILT, "README.md", f"chapters/{LAST}.ipynb"}


def passes(course, *arguments):
    """Run tests of the copy in the copy."""
    run = python(course.root, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments)
    assert run.returncode == 0, run.stdout
    return " passed" in run.stdout


def test_the_course_with_it_keeps_every_rule(course):
    assert passes(course, "tests/notebooks/test_notebooks.py")


def test_its_checks_are_found_and_proven(course):
    assert passes(course, "tests/checks", "-k", "twice_over or every_check")
