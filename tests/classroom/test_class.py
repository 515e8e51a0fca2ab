"""A class graded: honest answers in any style pass; a kill in the middle costs nothing."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from lightcourse import classroom
from lightcourse.classroom import grade, grading, isolation, read
from lightcourse.classroom.isolation import Limits
from tests.classroom import honest
from tests.classroom.hostile.submissions import CHECK, RIGHT, WRONG, notebook_of

ROOT = Path(__file__).parents[2]
NOTEBOOK = "00_start.ipynb"


@pytest.fixture(scope="module")
def layer():
    """Return the strongest layer of this machine: these learners mean no harm."""
    return isolation.strongest()


def expected(chapter):
    (path,) = (ROOT / "exercises").glob(f"{chapter}_*.ipynb")
    return classroom.expected_checks(classroom.read_notebook(path))


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("style", ["LOOPS", "ARRAYS"])
def test_honest_answers_in_other_styles_pass(style, seed, layer):
    checks = [*expected("00"), *expected("03")]
    assert len(checks) == 10
    cells = ["from lightcourse import checks\nimport matplotlib.pyplot as plt", "!pip --version"]
    cells += [getattr(honest, style), "await __import__('asyncio').sleep(0)"]
    cells += [f"assert {check}" for check in checks]
    report = grade.grade_sources(cells, checks, seed, Limits(300), layer=layer)
    assert [a for a in report.answers if not a.passed] == []
    assert (report.raised, report.stopped) == ([], "")


def write_class(folder, count):
    """Write submissions, every third of them wrong; return the points each should get."""
    wanted = {}
    for number in range(count):
        home = folder / f"learner {number:02}"
        home.mkdir(parents=True)
        cell = RIGHT if number % 3 else WRONG
        (home / NOTEBOOK).write_text(notebook_of([f"# {number}", cell]))
        wanted[home.name] = int(number % 3 > 0)
    return wanted


DRIVER = """
import sys
from pathlib import Path
from lightcourse.classroom import grading
folder, out, check = sys.argv[1:]
grading.grade_class(folder, "00_start.ipynb", [check], out, trusted=True)
"""


@pytest.mark.timeout(600)
def test_a_class_of_thirty_goes_on_after_a_kill(tmp_path):
    folder, out = tmp_path / "class", tmp_path / "results"
    wanted = write_class(folder, 30)
    command = [sys.executable, "-c", DRIVER, str(folder), str(out), CHECK]
    own = {"PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    driver = subprocess.Popen(command, env={**os.environ, **own})
    state = out / "results.json"
    while not state.exists() or len(json.loads(state.read_bytes())["learners"]) < 7:
        assert driver.poll() is None
        time.sleep(0.02)
    learners = psutil.Process(driver.pid).children(recursive=True)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    assert psutil.wait_procs(learners, timeout=20)[1] == []
    before = json.loads(state.read_bytes())
    assert 7 <= len(before["learners"]) < 30
    assert not (out / "results.csv").exists()
    graded = watched(tmp_path, folder, out)
    assert sorted(graded) == sorted(set(wanted) - set(before["learners"]))
    after = json.loads(state.read_bytes())
    assert after["seed"] == before["seed"]
    assert {name: row["points"] for name, row in after["learners"].items()} == wanted
    assert list(after["learners"]) == sorted(wanted)
    kept = {path.name: path.read_bytes() for path in out.iterdir()}
    assert sorted(kept) == ["results.csv", "results.html", "results.json"]
    assert watched(tmp_path, folder, out) == []
    assert {path.name: path.read_bytes() for path in out.iterdir()} == kept


def watched(tmp_path, folder, out):
    """Grade what is left; return the names of those that were graded."""
    numbers = []
    with pytest.MonkeyPatch.context() as patch:
        real = grading.grade_sources

        def grade_sources(sources, *rest, **options):
            numbers.append(f"learner {int(sources[0][1:]):02}")
            return real(sources, *rest, **options)

        patch.setattr(grading, "grade_sources", grade_sources)
        grading.grade_class(folder, NOTEBOOK, [CHECK], out, trusted=True)
    return numbers


# --- the same without processes ------------------------------------------------------------


@pytest.fixture
def quick(monkeypatch):
    """Grade without running anything: a notebook passes whose first cell says right."""
    graded = []

    def grade_sources(sources, expected, seed, limits, layer, hidden):
        graded.append((sources[0], seed, layer))
        answers = [grade.Answer(check, "right" in sources[0]) for check in expected]
        return grade.Report([grade.Failure(1, "x", "=1+1")], answers, "")

    monkeypatch.setattr(grading, "grade_sources", grade_sources)
    monkeypatch.setattr(isolation, "why_not", lambda: "")
    return graded


def hand_in(folder, learner, cell):
    (folder / learner).mkdir(parents=True, exist_ok=True)
    (folder / learner / NOTEBOOK).write_text(notebook_of([cell]))


def test_only_what_changed_is_graded_anew(tmp_path, quick):
    folder, out = tmp_path / "class", tmp_path / "out"
    hand_in(folder, "ann", "right a")
    hand_in(folder, "bob", "wrong")
    first = grading.grade_class(folder, NOTEBOOK, [CHECK], out)
    assert {name: row["points"] for name, row in first["learners"].items()} == {"ann": 1, "bob": 0}
    hand_in(folder, "bob", "right b")
    hand_in(folder, "cem", "right c")
    second = grading.grade_class(folder, NOTEBOOK, [CHECK], out)
    assert [cell for cell, *_ in quick] == ["right a", "wrong", "right b", "right c"]
    assert len({seed for _, seed, _ in quick}) == 1
    assert sum(row["points"] for row in second["learners"].values()) == 3
    grading.grade_class(folder, NOTEBOOK, [CHECK], out, seed=second["seed"] + 1)
    assert len(quick) == 7


def test_who_left_is_no_longer_listed(tmp_path, quick):
    folder, out = tmp_path / "class", tmp_path / "out"
    hand_in(folder, "ann", "right")
    hand_in(folder, "bob", "right")
    grading.grade_class(folder, NOTEBOOK, [CHECK], out)
    (folder / "ann" / NOTEBOOK).unlink()
    (folder / "ann").rmdir()
    assert list(grading.grade_class(folder, NOTEBOOK, [CHECK], out)["learners"]) == ["bob"]


def test_a_class_is_refused_where_nothing_shuts_it_in(tmp_path, quick, monkeypatch):
    monkeypatch.setattr(isolation, "why_not", lambda: "unshare: Operation not permitted")
    folder, out = tmp_path / "class", tmp_path / "out"
    hand_in(folder, "ann", "right")
    with pytest.raises(RuntimeError, match=r"Operation not permitted.*--trusted"):
        grading.grade_class(folder, NOTEBOOK, [CHECK], out)
    assert not out.exists()
    found = grading.grade_class(folder, NOTEBOOK, [CHECK], out, trusted=True)
    assert found["learners"]["ann"]["isolation"] == "plain"
    assert "a plain process" in (out / "results.html").read_text(encoding="utf-8")


def test_wrong_folders_are_told(tmp_path, quick):
    folder = tmp_path / "class"
    folder.mkdir()
    with pytest.raises(ValueError, match="no folder of a learner"):
        grading.grade_class(folder, NOTEBOOK, [CHECK], tmp_path / "out")
    hand_in(folder, "ann", "right")
    with pytest.raises(ValueError, match="inside the class's folder"):
        grading.grade_class(folder, NOTEBOOK, [CHECK], folder / "out")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "results.json").write_text("[]")
    with pytest.raises(ValueError, match="move it away"):
        grading.grade_class(folder, NOTEBOOK, [CHECK], tmp_path / "out")


def test_cells_of_every_format_are_read():
    lines = {"cell_type": "code", "input": ["a = 1\n", "b = 2"]}
    old = {"worksheets": [{"cells": [{"cell_type": "markdown", "source": "x"}, lines]}]}
    assert read.sources_in(json.dumps(old).encode()) == ["a = 1\nb = 2"]
    new = notebook_of(["1", " \n", "2"])
    assert read.sources_in(b"\xef\xbb\xbf" + new.encode()) == ["1", "2"]


def test_points_are_the_stars_that_nbgrader_counts(tmp_path, quick):
    exercise = classroom.read_notebook(ROOT / "exercises" / NOTEBOOK)
    worth, checks = classroom.points_of(exercise), classroom.expected_checks(exercise)
    assert list(worth) == checks and sorted(worth.values()) == [1, 2, 2, 2]
    cells = [cell.metadata.get("nbgrader", {}) for cell in exercise.cells]
    assert sum(worth.values()) == sum(cell.get("points", 0) for cell in cells)
    folder, out = tmp_path / "class", tmp_path / "out"
    hand_in(folder, "ann", "right")
    hand_in(folder, "bob", "wrong")
    found = grading.grade_class(folder, NOTEBOOK, checks, out, worth=worth)
    assert {name: row["points"] for name, row in found["learners"].items()} == {"ann": 7, "bob": 0}
    assert classroom.total(found) == 7
    assert "7 / 7" in (out / "results.html").read_text(encoding="utf-8")
    assert "\nann,7,7," in (out / "results.csv").read_text(encoding="utf-8")
    again = grading.grade_class(folder, NOTEBOOK, checks, out)
    assert again["learners"]["ann"]["points"] == classroom.total(again) == 4
    assert len(quick) == 4
