"""A class's capstones: each in its own process, on one board; a kill loses nobody."""

import json
import re

import pytest

from lightcourse import capstone
from lightcourse.classroom import Limits, board, capstones, process
from tests.capstone import small

ROWS = (small.TEXTS, small.LABELS)


@pytest.fixture
def school(tmp_path):
    """Two honest learners, one with code, and the teacher as a submission."""
    capstone.save_submission(small.model(), small.tokenizer(), tmp_path / "teacher", 32)
    for seed, name in enumerate(["ann", "<b>bob"], 1):
        small.card(small.saved(tmp_path / "class" / name, seed, 16 * seed))
    (small.saved(tmp_path / "class" / "eve") / "own.py").write_text("1")
    return tmp_path


def graded(school):
    return capstones.grade_capstones(
        school / "class", ROWS, school / "out", teacher=school / "teacher"
    )


def test_a_class_is_measured_and_goes_on_after_a_kill(school, monkeypatch):
    original, asked = capstones._weighed, []

    def once(home, *more):
        asked.append(home.name)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return original(home, *more)

    monkeypatch.setattr(capstones, "_weighed", once)
    with pytest.raises(KeyboardInterrupt):
        graded(school)
    kept = json.loads((school / "out" / "leaderboard.json").read_text())["learners"]
    assert list(kept) == ["<b>bob"]
    found = graded(school)["learners"]
    assert asked == ["<b>bob", "ann", "ann"]
    assert list(found)[-1] == "eve"
    assert "own.py is code" in found["eve"]["refused"]
    assert all(found[name]["points"]["bytes"] for name in ("ann", "<b>bob"))
    page = (school / "out" / "leaderboard.html").read_text()
    assert "&lt;b&gt;bob" in page
    assert "<b>bob" not in page
    assert "<svg" in page
    assert graded(school)["learners"] == found


def test_a_process_that_dies_refuses_one_alone(school, monkeypatch):
    def dead(*more, **options):
        raise ChildProcessError("its process ended")

    monkeypatch.setattr(process, "started", dead)
    found = graded(school)["learners"]
    assert "it could not be weighed: its process ended" in found["ann"]["refused"]


def endless(folder):
    """Let a tokenizer double each text sixty times."""
    path = folder / "tokenizer.json"
    double = {"type": "Replace", "pattern": {"Regex": "^"}, "content": "A"}
    twice = {"type": "Replace", "pattern": {"String": "A"}, "content": "AA"}
    normalizer = {"type": "Sequence", "normalizers": [double, *[twice] * 60]}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"normalizer": normalizer}))


def test_a_tokenizer_without_end_is_ended(school):
    """Without the limit this would run until the machine's memory is full."""
    endless(small.saved(school / "late" / "zoe"))
    found = capstones.grade_capstones(
        school / "late", ROWS, school / "out", teacher=school / "teacher", limits=Limits(10)
    )
    assert "the time limit of 10 s was reached" in found["learners"]["zoe"]["refused"]


def test_files_that_cannot_be_read_refuse_one_alone(school, monkeypatch):
    def forbidden(home):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(capstone, "look", forbidden)
    found = graded(school)["learners"]
    assert found["ann"]["refused"] == "its files cannot be read: Permission denied"


def test_the_board_is_in_order():
    row = {"refused": "", "remarks": [], "accuracy": 0.5, "bytes": 5, "points": {"bytes": True}}
    learners = {
        "d": {**row, "refused": "a lie", "points": {"bytes": False}},
        "b": row,
        "a": {**row, "bytes": 9},
        "c": {**row, "points": {"bytes": False}, "accuracy": 0.9},
    }
    found = board.ranked({"learners": learners})["learners"]
    assert list(found) == ["b", "a", "c", "d"]
    assert [found[name]["front"] for name in "abcd"] == [False, False, True, False]


def test_held_back_rows_are_sections(tmp_path):
    path = tmp_path / "rows.csv"
    name = capstone.section_names()[2]
    path.write_text(f"text,label\nSome text.,{name}\n", encoding="utf-8")
    assert capstones.held_back(str(path)) == (["Some text."], [2])
    path.write_text("text,label\nSome text.,sport\n", encoding="utf-8")
    with pytest.raises(ValueError, match="'sport'"):
        capstones.held_back(str(path))


def test_all_dots_lie_in_the_picture_and_a_refused_one_has_none():
    row = {"refused": "", "front": True, "points": {}}
    learners = {
        "a": {**row, "bytes": 1, "accuracy": 0.0},
        "b": {**row, "bytes": 10**8, "accuracy": 1.0},
        "twin": {**row, "bytes": 10**8, "accuracy": 1.0},
        "c": {**row, "refused": "a lie"},
    }
    budget = {"bytes": 4_000_000, "share_of_time": 0.5, "points_below": 4}
    told = {"learners": learners, "budget": budget, "teacher_accuracy": 0.97}
    drawn = board.picture(told)
    dots = re.findall(r'cx="([\d.]+)" cy="([\d.]+)"', drawn)
    assert len(dots) == 2
    assert all(0 < float(x) < board.WIDTH and 0 < float(y) < board.HEIGHT for x, y in dots)
    assert "b and 1 more" in drawn
    assert board.picture({**told, "learners": {"c": learners["c"]}}) == ""
