"""What notes and timetables say is what the chapters and checks say."""

import re
import tomllib

import nbformat
import pytest

from tools.instructors.__main__ import ROOT

ROOMS = [room for room in sorted(ROOT.glob("sources/[0-9][0-9]_*")) if (room / "notes.md").exists()]
SECTIONS = ["What learners struggle with", "Three questions for the room", "If time is short"]
SECTIONS += ["On the projector"]
# Figures that a cell printed; whole numbers below 100 are also counts, places and hours.
FIGURE = re.compile(r"(?<![\w.,])[+-]?(?:\d+\.\d+|\d{1,3}(?:,\d{3})+|\d{3,})(?![\w.]*\d)")
PAGE = 60  # lines


def notes_of(room):
    return (room / "notes.md").read_text(encoding="utf-8")


def header(room):
    """Return the minutes of reading and of the fast path that a chapter's first cell states."""
    text = (room / "chapter.py").read_text(encoding="utf-8")
    found = re.search(r"(\d+) minutes of reading, (\d+) for the parts marked ★", text)
    return int(found[1]), int(found[2])


def exercise_minutes(room):
    text = (room / "exercises.py").read_text(encoding="utf-8")
    return sum(map(int, re.findall(r"(?m)^# ## Exercise .*\((\d+) minutes\)", text)))


def shown(room):
    """Return all that a reader of a chapter and of its solutions sees."""
    texts = []
    for folder in ("chapters", "solutions"):
        notebook = nbformat.read(ROOT / folder / f"{room.name}.ipynb", as_version=4)
        for cell in notebook.cells:
            texts.append(cell.source)
            for output in cell.get("outputs", []):
                texts.append(output.get("text") or output.get("data", {}).get("text/plain", ""))
    return "\n".join(texts)


def test_there_are_notes_for_each_chapter_up_to_14():
    assert [room.name[:2] for room in ROOMS][:15] == [f"{number:02}" for number in range(15)]


def test_the_hub_links_to_each_chapters_notes():
    hub = (ROOT / "instructors" / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"\.\./sources/(\w+)/notes\.md", hub) == [room.name for room in ROOMS]
    links = re.findall(r"\]\((\w+\.md)\)", hub)
    assert all((ROOT / "instructors" / link).is_file() for link in links)
    assert len(set(links)) == 6


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.name)
def test_notes_have_one_form_and_one_page(room):
    notes = notes_of(room)
    topic = (room / "chapter.py").read_text(encoding="utf-8").split("# # ")[1].split(" — ")[0]
    assert notes.startswith(f"# {topic}: notes for teachers\n")
    assert re.findall(r"(?m)^## (.+)$", notes) == SECTIONS
    assert len(notes.splitlines()) <= PAGE
    assert len(re.findall(r"(?m)^\d\. ", notes)) == notes.count("*Listen") == 3


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.name)
def test_their_minutes_are_those_of_the_chapter(room):
    found = re.search(r"Fast path: (\d+) minutes\. Exercises: (\d+) minutes in all", notes_of(room))
    assert (int(found[1]), int(found[2])) == (header(room)[1], exercise_minutes(room))


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.name)
def test_they_name_only_misconceptions_that_a_check_knows(room):
    words = ROOT / "lightcourse" / "checks" / "words" / "en" / f"{room.name}.toml"
    known = tomllib.loads(words.read_text(encoding="utf-8"))
    named = re.findall(r"`(\w+)\.(\w+)`", notes_of(room))
    named = [(check, mistake) for check, mistake in named if (check, mistake) != ("model", "bin")]
    assert len(named) >= 3
    assert all(mistake in known.get(check, {}) for check, mistake in named), named


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.name)
def test_their_figures_stand_in_the_chapter(room):
    text = shown(room)
    figures = FIGURE.findall(notes_of(room).split("\n## ", 1)[1])  # behind the minutes
    missing = [one for one in figures if not re.search(rf"(?<![\d.]){re.escape(one)}(?!\d)", text)]
    assert not missing


def tables(name):
    """Return the rows of each timetable that goes by the clock: minutes after midnight, length."""
    text = (ROOT / "instructors" / name).read_text(encoding="utf-8")
    rows = re.findall(r"(?m)^\| (\d\d):(\d\d) \| (\d*) ?\| (.+) \|$", text)
    return [(60 * int(hour) + int(minute), minutes, what) for hour, minute, minutes, what in rows]


def room_of(number):
    return next(room for room in ROOMS if room.name.startswith(number))


def test_a_timetable_goes_by_the_clock():
    rows, lengths = tables("timetables.md"), []
    for (at, minutes, what), (after, *_) in zip(rows, rows[1:], strict=False):
        assert what == "end" or at + int(minutes) == after
    ends = [place for place, (*_, what) in enumerate(rows) if what == "end"]
    for first, last in zip([0, *(end + 1 for end in ends)], ends, strict=False):
        lengths.append(rows[last][0] - rows[first][0])
    assert lengths == [180, 420]


def test_a_fast_path_has_ten_minutes_more_in_class_than_its_reading():
    seen = []
    for _, minutes, what in tables("timetables.md"):
        if found := re.match(r"★ (\d\d) ", what):
            assert int(minutes) == header(room_of(found[1]))[1] + 10
            seen.append(found[1])
    assert seen == ["00", "03", "04", "00", "01", "02", "03", "04", "05", "06"]


def test_nobody_sits_for_an_hour_and_a_half_without_a_break():
    since = 0
    for at, minutes, what in tables("timetables.md"):
        since = at if what.startswith("Welcome") else since
        assert at - since <= 90
        since = at + int(minutes) if what in ("break", "lunch") else since


def test_weeks_have_the_minutes_of_their_chapters():
    text = (ROOT / "instructors" / "timetables.md").read_text(encoding="utf-8")
    weeks = re.findall(r"(?m)^\| \d+ \| (\d\d) .*? \| (\d+) \| (\d+) \| (\d+) \|", text)
    assert len(weeks) == 17
    for number, reading, fast, exercises in weeks:
        room = room_of(number)
        found = int(reading), int(fast), int(exercises)
        assert found == (*header(room), exercise_minutes(room))


def test_the_samples_of_the_rubric_have_figures_of_their_chapters():
    text = (ROOT / "instructors" / "rubric.md").read_text(encoding="utf-8")
    known = "\n".join(shown(room_of(number)) for number in ("00", "03", "04", "08"))
    missing = [one for one in FIGURE.findall(text) if one not in known]
    assert set(missing) <= {"1.05"}  # an aim, which nobody measured
