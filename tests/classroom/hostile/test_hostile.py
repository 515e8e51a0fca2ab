"""A hostile class, graded in namespaces: nobody passes, nothing hangs, nothing is left."""

import contextlib
import hashlib
import http.server
import os
import re
import threading
from types import SimpleNamespace

import psutil
import pytest

from lightcourse.classroom import grading, isolation
from lightcourse.classroom.isolation import Limits
from tests.classroom.hostile import submissions as hostile

NOTEBOOK = "00_start.ipynb"
CODE = {**hostile.LIARS, **hostile.THIEVES, **hostile.READERS, **hostile.BREAKERS}
# Names that mean something to spreadsheets, browsers and terminals.
NAMES = ["=cmd|' 'A1", "<script>alert(1)</script>", "two\nlines\x1b[2K", "@x", "\udcff", "-1+1"]
LINKS = {
    "a link to another's notebook": "symbolic link",
    "a folder that is a link": "symbolic link",
    "a pipe": "no plain file",
    "a folder by that name": "no plain file",
    "another name": "graded mine",
    "two other names": "no notebook 00_start.ipynb; there are 2 others",
}
SMALL = {"memory": 700 * 2**20, "processes": 32, "disk": 64 * 2**20}

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def namespaces():
    if isolation.why_not():
        pytest.skip(f"no namespaces on this machine: {isolation.why_not()}")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A class, a key and a server with the answer, and a secret in the environment."""
    folder = tmp_path_factory.mktemp("classroom")
    (folder / "key.py").write_text(hostile.RIGHT)
    with answering_server() as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLASSROOM_SECRET", "CLASSROOM_SECRET")
        yield SimpleNamespace(folder=folder, server=server)


@contextlib.contextmanager
def answering_server():
    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.server.asked = True
            self.wfile.write(hostile.RIGHT.encode())

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        server.asked = False
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def write(place, name, cells, learner):
    """Put a notebook into a class, with the places filled in that its cells speak of."""
    home = place.folder / name / learner
    home.mkdir(parents=True, exist_ok=True)
    text = hostile.notebook_of(cells) if isinstance(cells, list) else cells
    filled = {"{class}": place.folder / name, "{out}": place.folder / f"{name}-results"}
    filled.update({"{key}": place.folder / "key.py", "{port}": place.server.server_port})
    for word, meant in filled.items():
        text = text.replace(word, str(meant))
    (home / NOTEBOOK).write_text(text)
    return home


def write_links(folder):
    """Put what is no plain notebook into a class: links, a pipe, folders, other names."""
    honest = folder / "honest" / NOTEBOOK
    for name in LINKS:
        if name != "a folder that is a link":
            (folder / name).mkdir()
    (folder / "a link to another's notebook" / NOTEBOOK).symlink_to(honest)
    (folder / "a folder that is a link").symlink_to(honest.parent)
    os.mkfifo(folder / "a pipe" / NOTEBOOK)
    (folder / "a folder by that name" / NOTEBOOK).mkdir()
    (folder / "another name" / "mine (1).ipynb").write_text(hostile.notebook_of([hostile.WRONG]))
    for name in ("a.ipynb", "b.ipynb"):
        (folder / "two other names" / name).write_text("{}")


@pytest.fixture(scope="module")
def graded(place, namespaces):
    """The rows of the whole class, and what the machine looked like before and after."""
    for learner, (cells, _) in CODE.items():
        write(place, "class", cells, learner)
    for learner, (content, _) in hostile.FILES.items():
        (write(place, "class", "", learner) / NOTEBOOK).write_bytes(content)
    for learner in NAMES:
        write(place, "class", [hostile.WRONG], learner)
    write(place, "class", [hostile.RIGHT], "honest")
    write_links(place.folder / "class")
    return grade(place, "class", 120)


@pytest.fixture(scope="module")
def endless(place, namespaces):
    for learner, (cells, _) in hostile.ENDLESS.items():
        write(place, "endless", cells, learner)
    return grade(place, "endless", 4)


def grade(place, name, seconds):
    folder, out = place.folder / name, place.folder / f"{name}-results"
    before = machine(place)
    results = grading.grade_class(
        folder, NOTEBOOK, [hostile.CHECK], out, seed=3, limits=Limits(seconds, **SMALL)
    )
    return SimpleNamespace(results=results, out=out, before=before, after=machine(place))


def machine(place):
    """Return what a learner might have changed: files, mounts, processes."""
    folders = [place.folder / "class", place.folder / "endless", isolation.PACKAGE]
    paths = [path for folder in folders for path in sorted(folder.rglob("*.[ip][py]*"))]
    plain = [path for path in paths if path.is_file() and "__pycache__" not in path.parts]
    digests = {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in plain}
    with open("/proc/self/mounts") as mounts:
        return digests, mounts.read(), set(psutil.Process().children(recursive=True))


def said(row):
    """Return all that a row says, but for which checks there are."""
    messages = [answer["message"] for answer in row["answers"]]
    return " ".join(
        [*messages, row["stopped"], row["remark"], *(r["error"] for r in row["raised"])]
    )


def test_the_honest_learner_of_the_class_passes(graded):
    assert graded.results["learners"]["honest"]["points"] == 1


def test_there_are_enough_of_them():
    assert len(CODE) + len(hostile.FILES) + len(hostile.ENDLESS) + len(LINKS) + len(NAMES) >= 70


@pytest.mark.parametrize("learner", CODE)
def test_hostile_code_does_not_pass(learner, graded):
    row = graded.results["learners"][learner]
    assert row["points"] == 0
    assert re.search(CODE[learner][1], said(row)), said(row)
    assert row["isolation"] == "namespaces"


@pytest.mark.parametrize("learner", hostile.ENDLESS)
def test_what_goes_on_for_ever_is_ended(learner, endless):
    row = endless.results["learners"][learner]
    assert row["points"] == 0
    assert re.search(re.escape(hostile.ENDLESS[learner][1]), row["stopped"]), row["stopped"]


@pytest.mark.parametrize("learner", hostile.FILES)
def test_what_is_no_notebook_gets_a_sentence(learner, graded):
    row = graded.results["learners"][learner]
    assert row["points"] == 0
    assert hostile.FILES[learner][1] in said(row)


@pytest.mark.parametrize("learner", LINKS)
def test_links_and_odd_files_are_not_followed(learner, graded):
    row = graded.results["learners"][learner]
    assert row["points"] == 0
    assert LINKS[learner] in said(row)


def test_nothing_outside_has_changed(graded, endless, place):
    for found in (graded, endless):
        assert found.before == found.after
    assert not place.server.asked
    left = [p.info for p in psutil.process_iter(["cmdline"]) if "9753" in (p.info["cmdline"] or [])]
    assert left == []
    assert sorted(path.name for path in graded.out.iterdir()) == [
        "results.csv",
        "results.html",
        "results.json",
    ]


def test_reports_hold_what_learners_wrote_as_text_alone(graded):
    page = (graded.out / "results.html").read_text(encoding="utf-8")
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page
    assert "\x1b" not in page
    table = (graded.out / "results.csv").read_text(encoding="utf-8")
    assert not re.search(r"(?m)(^|,)\"?[=+@-]", table)
    assert r"two\nlines\x1b[2K" in table
    assert r"\udcff" in table
