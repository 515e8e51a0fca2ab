"""nbgrader's own commands on our notebooks: what they release, what they grade, what they tell."""

import csv
import os
import re
import shutil
import subprocess
import sys
import tomllib
from html import unescape
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from tools import graded, notebooks, rules

pytest.importorskip("nbgrader", reason="nbgrader is not installed")
pytestmark = pytest.mark.timeout(600)  # commands that take a second or two, and two notebooks
ROOT = notebooks.ROOT
SOLUTIONS = {path.stem: path for path in sorted((ROOT / "solutions").glob("*.ipynb"))}
WORDS = ROOT / "lightcourse" / "checks" / "words" / "en" / "00_start.toml"
# The sign trap of exercise 1: the mistake `compares_signed_weights`.
SIGNED = """def keep_mask(weight, sparsity):
    mask = torch.ones(weight.numel(), dtype=torch.bool)
    mask[weight.flatten().argsort()[:round(sparsity * weight.numel())]] = False
    return mask.view(weight.shape)
"""


def read(path):
    return nbformat.read(path, as_version=4)


def mark(cell):
    return cell.metadata.get("nbgrader", {})


@pytest.mark.parametrize("name", SOLUTIONS)
def test_each_check_gives_points_and_stands_below_its_function(name):
    cells = [cell for cell in read(SOLUTIONS[name]).cells if mark(cell)]
    functions, checks = cells[::2], cells[1::2]
    assert len(functions) == len(checks) > 2
    for function, check in zip(functions, checks, strict=True):
        assert f"def {mark(function).grade_id}(" in function.source
        line = f"checks.{mark(check).grade_id}({mark(function).grade_id})"
        measured = f'"✓ {mark(function).grade_id}"'  # as the capstone is: by its report
        assert line in check.source or {measured, "report.points"} <= set(
            re.findall(r'"✓ \w+"|report\.points', check.source)
        )
        assert 1 <= mark(check).points <= 3


def test_a_point_for_each_star_and_one_where_there_is_none():
    def practice(name):
        solved = f"def {name}():\n    ### BEGIN SOLUTION\n    return 1\n    ### END SOLUTION"
        return [new_code_cell(solved), new_code_cell("### BEGIN HIDDEN TESTS")]

    hard = new_markdown_cell("## Exercise 1 · Hard ★★★ (5 minutes)\n\nEach ★ is a point.")
    notebook = new_notebook(cells=[*practice("f"), hard, *practice("g"), *practice("h")])
    points = [mark(cell).get("points") for cell in graded.with_points(notebook).cells]
    assert points == [None, 1, None, None, 3, None, 3]


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("x = 1 ### BEGIN SOLUTION", "stands in no function"),
        ("### BEGIN HIDDEN TESTS", "comes before any solution"),
    ],
)
def test_what_nbgrader_could_not_grade_is_an_error(source, said):
    with pytest.raises(RuntimeError, match=said):
        graded.with_points(new_notebook(cells=[new_code_cell(source)]))


class Course:
    """A course's folder, an exchange, and the commands that are given in it."""

    def __init__(self, root, assignment, solutions):
        """Lay out an assignment below ``root``: some solutions, by their names."""
        self.root, self.settings = root, root / "settings"
        self.settings.mkdir()
        shutil.copy(ROOT / "instructors" / "nbgrader_config.py", self.settings)
        with (self.settings / "nbgrader_config.py").open("a", encoding="utf-8") as file:
            file.write(f"c.Exchange.root = {str(root / 'exchange')!r}\n")
            file.write(f"c.Exchange.cache = {str(root / 'cache')!r}\n")
        folder = root / "source" / assignment
        folder.mkdir(parents=True)
        for name, notebook in solutions.items():
            nbformat.write(notebook, folder / f"{name}.ipynb")

    def __call__(self, *command, folder=None):
        """Run an nbgrader command, with no settings but the course's own."""
        scripts, path = Path(sys.executable).parent, os.environ["PATH"]
        paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
        environment = os.environ | {
            "JUPYTER_CONFIG_DIR": str(self.settings),
            "JUPYTER_DATA_DIR": str(self.root / "data"),
            "PATH": f"{scripts}{os.pathsep}{path}",
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        }
        run = subprocess.run(
            [sys.executable, "-m", "nbgrader", *command],
            cwd=folder or self.root,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert run.returncode == 0, run.stderr
        return run.stderr


def test_what_nbgrader_releases_is_our_exercise(tmp_path):
    solutions = {name: read(path) for name, path in SOLUTIONS.items()}
    Course(tmp_path, "practice", solutions)("generate_assignment", "practice")
    for name in SOLUTIONS:
        released = read(tmp_path / "release" / "practice" / f"{name}.ipynb")
        ours = read(ROOT / "exercises" / f"{name}.ipynb")
        for cell, other in zip(released.cells, ours.cells, strict=True):
            other.id = cell.id  # made of the solution's text there, of the exercise's here
        assert not list(rules.drift(released, ours)), name


def graded_part(solution):
    """Return a solution notebook without the code that only shows what the functions are for."""
    first, *_ = rules.code_cells(solution)  # the imports
    kept = [c for c in solution.cells if c.cell_type != "code" or c is first or mark(c)]
    return notebooks.tidy(new_notebook(cells=kept))


def answers(solution):
    """Return what a learner writes who knows everything, by ``grade_id``."""
    cells = [cell for cell in solution.cells if mark(cell).get("solution")]
    return {mark(c).grade_id: re.sub(r".*### .*\n?", "", c.source) for c in cells}


def submit(course, name, written, **forged):
    """Have a learner write into some cells, and change other ones, and submit."""
    home = course.root / name
    shutil.copytree(course.root / "fetched", home)
    path = home / "start" / "00_start.ipynb"
    notebook = read(path)
    for cell in notebook.cells:
        cell.source = (written | forged).get(mark(cell).get("grade_id"), cell.source)
        if mark(cell).get("grade_id") in forged:
            mark(cell)["points"] = 50
    nbformat.write(notebook, path)
    course("submit", "start", f"--student={name}", folder=home)


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """Ada solved everything; Bob one exercise, made a mistake in another, and forged a check."""
    root = tmp_path_factory.mktemp("course")
    solution = graded_part(read(SOLUTIONS["00_start"]))
    course, right = Course(root, "start", {"00_start": solution}), answers(solution)
    course("generate_assignment", "start")
    course("release_assignment", "start")
    (root / "fetched").mkdir()
    course("fetch_assignment", "start", folder=root / "fetched")
    submit(course, "ada", right)
    some = {"keep_mask": SIGNED, "lora_ledger": right["lora_ledger"]}
    submit(course, "bob", some, check_stored_bytes="passed = True")
    course("collect", "start")
    course.said = course("autograde", "start")
    for command in (["generate_feedback", "start"], ["release_feedback", "start"], ["export"]):
        course(*command)
    return course


def test_scores_follow_the_checks(course):
    with (course.root / "grades.csv").open(newline="") as file:
        scores = {row["student_id"]: row for row in csv.DictReader(file)}
    assert {name: float(row["max_score"]) for name, row in scores.items()} == {"ada": 7, "bob": 7}
    assert {name: float(row["score"]) for name, row in scores.items()} == {"ada": 7, "bob": 2}


def test_a_changed_check_is_put_back_and_told(course):
    graded = read(course.root / "autograded" / "bob" / "start" / "00_start.ipynb")
    checks = {mark(cell).grade_id: cell for cell in graded.cells if mark(cell)}
    assert "assert passed" in checks["check_stored_bytes"].source
    assert checks["check_stored_bytes"].metadata.nbgrader.points == 2
    assert re.search("checksum.*check_stored_bytes has changed", course.said)
    assert re.search("points.*check_stored_bytes has changed", course.said)


def feedback(course, name):
    """Return what a learner's page of feedback says, as plain text."""
    path = course.root / "feedback" / name / "start" / "00_start.html"
    return " ".join(unescape(re.sub(r"<[^>]+>", "", path.read_text(encoding="utf-8"))).split())


def test_feedback_names_the_misconception_and_the_score(course):
    words = tomllib.loads(WORDS.read_text(encoding="utf-8"))["keep_mask"]
    mistake = f"✗ keep_mask: {words['compares_signed_weights']}"
    assert mistake in feedback(course, "bob")
    assert "(Score: 2.0 / 7.0)" in feedback(course, "bob")
    assert "✓ keep_mask" in feedback(course, "ada")
    assert "✗ keep_mask" not in feedback(course, "ada")
    assert "(Score: 7.0 / 7.0)" in feedback(course, "ada")


def test_feedback_is_released_to_both(course):
    pages = (course.root / "exchange" / "lightcourse" / "feedback").glob("*.html")
    assert len(list(pages)) == 2
