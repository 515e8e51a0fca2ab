"""Variants: numbers that differ, answers that cannot be exchanged, keys held to the course."""

import ast
import copy
import json
from pathlib import Path

import nbformat
import pytest

from lightcourse import classroom, wire
from lightcourse.checks import BY_HAND, by_hand, check_by_hand
from lightcourse.classroom import grade, grading, handing_out, inside, isolation, keys, variants
from tests.checks import solved
from tests.classroom.books import notebook

ROOT = Path(__file__).parents[2]
ROOMS = sorted(path.parent for path in ROOT.glob("sources/*/variants.yaml"))
QUESTIONS = [(room, name) for room in ROOMS for name in variants.read_questions(room)]
NAMES = ["ann", "bob", "cem", "dora", "eva", "fay"]
ROOM = ROOT / "sources" / "00_start"
NOTEBOOK = "00_start.ipynb"


def exercise(room):
    return classroom.read_notebook(ROOT / "exercises" / f"{room.name}.ipynb")


def arithmetic(name, numbers):
    """Return the answer by the committed solution's own function, as a learner would write it."""
    asked = BY_HAND[name]
    return repr(by_hand._plain(asked.ask(solved.function(asked.exercise.name), **numbers)))


def judged(asked, answer):
    """Judge what stands for a notebook that holds an answer, as text of Python."""
    shell = type("Shell", (), {"user_ns": {grade.variable(asked.name): ast.literal_eval(answer)}})
    return grade._ask_number(lambda message: inside.answer(shell, *message["ask"]), asked)


@pytest.fixture(scope="module", params=QUESTIONS, ids=lambda pair: pair[1])
def dealt(request):
    """A question, dealt to six, and what each of them is asked."""
    room, name = request.param
    numbers = variants.deal(variants.read_questions(room)[name], 6, 5)
    wanted = [by_hand.find_wanted(BY_HAND[name], each) for each in numbers]
    return [grade.Asked(name, n, w) for n, w in zip(numbers, wanted, strict=True)]


def test_all_seventeen_chapters_ask_and_each_question_has_its_function():
    assert len(ROOMS) >= 17
    assert sorted(name for _, name in QUESTIONS) == sorted(BY_HAND)


def test_the_solutions_own_arithmetic_is_right(dealt):
    for asked in dealt:
        answer = judged(asked, arithmetic(asked.name, asked.numbers))
        assert answer == grade.Answer(f"{asked.name}_by_hand", True)


def test_no_two_answers_can_be_exchanged(dealt):
    for asked, other in zip(dealt, [*dealt[1:], dealt[0]], strict=True):
        answer = judged(asked, arithmetic(other.name, other.numbers))
        assert not answer.passed and answer.message


def test_three_digits_are_enough_and_the_right_answer_is_not_told(dealt):
    def rounded(value):
        if isinstance(value, list):
            return [rounded(each) for each in value]
        return value if isinstance(value, int) else float(f"{value:.3g}")

    for asked in dealt:
        assert judged(asked, repr(rounded(asked.wanted))).passed
        wrong = judged(asked, "123454321")
        assert not wrong.passed and not any(letter.isdigit() for letter in wrong.message)


def test_the_first_numbers_make_todays_exercise_and_two_cells_more():
    for room in ROOMS:
        questions, today = variants.read_questions(room), exercise(room)
        first = {name: question.first for name, question in questions.items()}
        made = variants.make(today, questions, first, "0" * 12)
        del made.metadata["lightcourse"]
        made.cells = [c for c in made.cells if not c.id.endswith(("-asked", "-answer"))]
        assert nbformat.writes(made) == nbformat.writes(today)
        assert nbformat.writes(today).rstrip() == (
            (ROOT / "exercises" / f"{room.name}.ipynb").read_text(encoding="utf-8").rstrip()
        )


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.name)
def test_a_variant_is_a_notebook_that_nbgrader_and_the_checks_read(room):
    questions = variants.read_questions(room)
    numbers = {n: variants.deal(q, 2, 1)[1] for n, q in questions.items()}
    today = exercise(room)
    made = variants.make(today, questions, numbers, "0" * 12)
    nbformat.validate(made)
    assert classroom.expected_checks(made) == classroom.expected_checks(today)
    assert grade.read.by_hand_numbers(classroom.code_sources(made)) == numbers
    marked = [
        [c.metadata.nbgrader for c in n.cells if "nbgrader" in c.metadata] for n in (made, today)
    ]
    assert marked[0] == marked[1]
    text = "\n".join(cell.source for cell in made.cells)
    for name, question in questions.items():
        assert question.ask.format(**numbers[name]) in text
        assert all(text.count(each.format(**numbers[name])) >= 1 for each in question.stands)


def test_a_text_that_no_longer_stands_there_is_told():
    questions = variants.read_questions(ROOM)
    first = {name: question.first for name, question in questions.items()}
    today = exercise(ROOM)
    for cell in today.cells:
        cell.source = cell.source.replace("384 × 384", "385 × 385")
    with pytest.raises(ValueError, match="stands in the exercise 0 times"):
        variants.make(today, questions, first, "0" * 12)
    with pytest.raises(ValueError, match="no function stored_bytes"):
        variants._insert([], questions["stored_bits"], first["stored_bits"])


def test_thirty_answers_differ_wherever_there_are_thirty():
    few = {}
    for room, name in QUESTIONS:
        question = variants.read_questions(room)[name]
        dealt = variants.deal(question, 30, 0)
        assert len(dealt) == 30 and all(map(question.allows, dealt))
        different = {repr(each) for each in dealt}
        few |= {name: len(different)} if len(different) < 30 else {}
    assert all(count >= 12 for count in few.values()), few
    assert len(few) <= len(QUESTIONS) // 4, few


# --- on disk -------------------------------------------------------------------------------


def write(folder, who=NAMES, seed=7):
    return classroom.write_variants(exercise(ROOM), ROOM, folder, seed, who)


def everything(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def handed_out(tmp_path_factory):
    folder = tmp_path_factory.mktemp("variants") / "out"
    write(folder)
    return folder


def read_all(path):
    return classroom.read_keys(path, "00_start", classroom.read_questions(ROOM))


def test_the_same_seed_writes_the_same_bytes(handed_out, tmp_path):
    write(tmp_path / "again")
    write(tmp_path / "other", seed=8)
    assert everything(handed_out) == everything(tmp_path / "again")
    assert everything(handed_out).keys() == everything(tmp_path / "other").keys()
    assert all(everything(tmp_path / "other")[p] != b for p, b in everything(handed_out).items())
    with pytest.raises(ValueError, match="not empty; a new folder"):
        write(tmp_path / "other")


def test_keys_hold_numbers_and_answers_and_no_notebook_holds_an_answer(handed_out):
    found = read_all(handed_out / "keys")
    assert sorted(key.learner for key in found.values()) == NAMES
    for key in found.values():
        text = (handed_out / "notebooks" / key.learner / NOTEBOOK).read_text(encoding="utf-8")
        assert key.variant in text and str(key.wanted["lora_numbers"][0]) not in text


@pytest.mark.parametrize("count", [0, -1, 2001])
def test_a_class_of_nobody_or_of_too_many_is_refused(count, tmp_path):
    with pytest.raises(ValueError, match="1 to 2000 are wanted"):
        write(tmp_path / "out", count)


def test_a_chapter_without_questions_says_so(tmp_path):
    with pytest.raises(ValueError, match="asks nothing by hand"):
        variants.read_questions(tmp_path)
    for text in ("- 1", "a: {x: 1}", "{"):
        (tmp_path / "variants.yaml").write_text(text)
        with pytest.raises(ValueError, match="holds no questions"):
            variants.read_questions(tmp_path)


def test_names_are_read_from_the_first_column(tmp_path):
    file = tmp_path / "names.csv"
    file.write_text("\ufeffName,mail\nAna López,a@b\n\n bob ,c\n", encoding="utf-8")
    assert handing_out.read_names(file) == ["Ana López", "bob"]
    for text, said in [
        ("", "nobody"),
        ("a/b", "no folder"),
        ("..", "no folder"),
        ("a\nA", "twice"),
    ]:
        file.write_text(text)
        with pytest.raises(ValueError, match=said):
            handing_out.read_names(file)


# --- keys that are not as they should be ---------------------------------------------------


def spoiled(handed_out, path, change):
    key = json.loads((handed_out / "keys" / "ann.json").read_text(encoding="utf-8"))
    change(key)
    path.write_text(json.dumps(key), encoding="utf-8")
    return path


BAD = {
    "another chapter": (lambda k: k.update(chapter="01_x"), "a key of '01_x'"),
    "no id": (lambda k: k.update(variant="../../etc"), "names no variant"),
    "an id that is no text": (lambda k: k.update(variant=7), "names no variant"),
    "code": (lambda k: k.update(code="import os"), "is no key"),
    "an entry less": (lambda k: k.pop("wanted"), "is no key"),
    "numbers that are too large": (
        lambda k: k["numbers"]["stored_bits"].update(side=10**12),
        "none that this course deals",
    ),
    "numbers that are lists": (
        lambda k: k["numbers"]["stored_bits"].update(side=[1]),
        "none that this course deals",
    ),
    "numbers that are true": (lambda k: k["numbers"].update(stored_bits=True), "none that this"),
    "a wrong answer": (lambda k: k["wanted"].update(stored_bits=99), "not what its numbers give"),
    "an unknown question": (lambda k: k["wanted"].update(other=1), "must have numbers"),
    "a learner that is none": (lambda k: k.update(learner=["ann"]), "names no learner"),
    "no number": (lambda k: k["wanted"].update(stored_bits=float("nan")), "no number of a key"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_spoiled_key_is_refused_with_its_name(name, handed_out, tmp_path):
    change, said = BAD[name]
    path = spoiled(handed_out, tmp_path / "key.json", change)
    with pytest.raises(ValueError, match=said) as caught:
        read_all(path)
    assert "key.json" in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"{}", b"\xff", b"[" * 100_000, b" " * (keys.MOST_BYTES + 1), b"1" * 10_000],
    ids=["empty", "list", "object", "no text", "deep", "giant", "long number"],
)
def test_what_is_no_key_is_refused(content, tmp_path):
    (tmp_path / "key.json").write_bytes(content)
    with pytest.raises(ValueError, match="is no key"):
        read_all(tmp_path)


def test_two_keys_of_one_id_none_and_a_link_are_refused(handed_out, tmp_path):
    with pytest.raises(ValueError, match="holds 0 keys"):
        read_all(tmp_path)
    for name in ("a", "b"):
        spoiled(handed_out, tmp_path / f"{name}.json", lambda key: None)
    with pytest.raises(ValueError, match="several keys of the variant"):
        read_all(tmp_path)
    (tmp_path / "b.json").unlink()
    (tmp_path / "b.json").symlink_to(tmp_path / "a.json")
    with pytest.raises(ValueError, match="a plain file is wanted"):
        read_all(tmp_path)


def test_a_key_is_its_own_learners_and_moodle_puts_a_number_behind(handed_out):
    found = read_all(handed_out / "keys")
    ann = next(key for key in found.values() if key.learner == "ann")
    for learner in ("ann", "ann_123"):
        assert keys.assigned(found, ann.variant, learner) == (ann, "")
    for learner in ("bob", "bob_123", "Ann", "ann_x", ""):
        assert keys.assigned(found, ann.variant, learner) == (None, keys.NOT_YOURS)
    assert keys.assigned(found, "", "ann")[1] == keys.NO_ID
    assert keys.assigned(found, "f" * 12, "ann")[1] == keys.NO_KEY
    twin = keys.Key("00_start", "a" * 12, "ann_1", {}, {})
    assert keys.assigned({**found, twin.variant: twin}, ann.variant, "ann_1")[1] == keys.NOT_YOURS


# --- a class -------------------------------------------------------------------------------


def answered(numbers, variant, cells=()):
    """Return a notebook of answers by the solution's arithmetic, without the course's cells."""
    lines = [f"{name}_by_hand = {arithmetic(name, n)}" for name, n in numbers.items()]
    checked = 'assert checks.check_by_hand("stored_bits", 1, side=384, bits=4, group=32) is False'
    book = notebook("from lightcourse import checks", checked, *lines, *cells)
    book.metadata["lightcourse"] = {"variant": variant} if variant else {}
    return book


def hand_in(folder, learner, book):
    (folder / learner).mkdir(parents=True)
    nbformat.write(book, folder / learner / NOTEBOOK)


STEAL = """
import gc, glob, os
told = [o for o in gc.get_objects() if type(o) is dict and type(o.get("wanted")) in (dict, float)]
told += [p for top in ("{keys}", "/tmp", ".") for p in glob.glob(top + "/**/*.json", recursive=True)
         if os.path.basename(p)[:-5] in ("ann", "bob", "cem", "dora", "eva", "fay")]
stored_bits_by_hand = told and open(told[0]).read()
lora_numbers_by_hand = checks.check_by_hand("lora_numbers", (1, 2, 3), inputs=1, outputs=1, rank=1)
assert not told and lora_numbers_by_hand is False
"""


@pytest.mark.timeout(600)
def test_a_class_is_graded_by_its_keys(handed_out, tmp_path):
    found = {key.learner: key for key in read_all(handed_out / "keys").values()}
    folder, numbers = tmp_path / "class", {name: key.numbers for name, key in found.items()}
    for name in NAMES:
        hand_in(folder, name, answered(numbers[name], found[name].variant))
    own, bobs = found["ann"], numbers["bob"]
    foreign = {**found, "ann": keys.Key("00_start", "b" * 12, "zoe", own.numbers, own.wanted)}
    given = {key.variant: key for key in [*found.values(), foreign["ann"]]}
    extra = {"key": json.loads(keys.as_text(own)), "wanted": own.wanted}
    forged = answered(numbers["ann"], "c" * 12)
    forged.metadata["lightcourse"].update(extra)
    copied = answered(bobs, found["bob"].variant)
    steals = notebook("from lightcourse import checks", STEAL.replace("{keys}", str(handed_out)))
    steals.metadata["lightcourse"] = {"variant": "d" * 12}
    given["d" * 12] = keys.Key("00_start", "d" * 12, "thief", own.numbers, own.wanted)
    given["e" * 12] = keys.Key("00_start", "e" * 12, "swap", numbers["cem"], found["cem"].wanted)
    for name, book in {
        "copy": copied,
        "forged": forged,
        "none": answered(numbers["ann"], ""),
        "swap": answered(bobs, "e" * 12),
        "thief": steals,
    }.items():
        hand_in(folder, name, book)
    (folder / "forged" / "ann.json").write_text(keys.as_text(own))
    layer = isolation.strongest()
    results = grading.grade_class(
        folder, NOTEBOOK, [], tmp_path / "out", keys=given, seed=1, trusted=layer == "plain",
        hidden=[handed_out / "keys"],
    )  # fmt: skip
    rows = results["learners"]
    assert results["checks"] == ["stored_bits_by_hand", "lora_numbers_by_hand"]
    assert {name: rows[name]["points"] for name in NAMES} == dict.fromkeys(NAMES, 2)
    assert [rows[name]["raised"] for name in NAMES] == [[]] * 6
    said = {name: {a["message"] for a in row["answers"]} for name, row in rows.items()}
    assert [rows[n]["points"] for n in ("copy", "forged", "none", "swap", "thief")] == [0] * 5
    assert said["copy"] == {keys.NOT_YOURS}
    assert said["forged"] == {keys.NO_KEY}
    assert said["none"] == {keys.NO_ID}
    assert all("what variant" in message for message in said["swap"])
    assert rows["copy"]["remark"] == "the same variant as bob"
    assert rows["bob"]["remark"] == "the same variant as copy"
    if layer == "namespaces":
        assert rows["thief"]["raised"] == []


@pytest.fixture
def quick(monkeypatch):
    """Grade without running anything."""
    graded = []

    def grade_sources(sources, expected, seed, limits, *, layer, hidden, asked=()):
        graded.append((sources[0], [question.wanted for question in asked]))
        return grade.Report()

    monkeypatch.setattr(grading, "grade_sources", grade_sources)
    monkeypatch.setattr(isolation, "why_not", lambda: "")
    return graded


def test_other_keys_grade_anew_and_keys_of_one_go_to_no_other(handed_out, tmp_path, quick):
    found = read_all(handed_out / "keys")
    ann, bob = (next(k for k in found.values() if k.learner == name) for name in ("ann", "bob"))
    folder, out = tmp_path / "class", tmp_path / "out"
    hand_in(folder, "ann", answered(ann.numbers, ann.variant))
    hand_in(folder, "zoe", answered(bob.numbers, bob.variant))
    for given in (found, found, {ann.variant: ann}, None):
        results = grading.grade_class(folder, NOTEBOOK, [], out, keys=given)
    wanted = [list(ann.wanted.values()), [], list(ann.wanted.values()), [], [], []]
    assert [asked for _, asked in quick] == wanted
    assert results["checks"] == []
    with pytest.raises(ValueError, match=r"inside the class's folder; move them outside"):
        grading.grade_class(folder, NOTEBOOK, [], out, keys=found, hidden=[folder / "keys"])


def test_a_notebook_that_is_missing_is_told_and_not_that_it_has_no_id(handed_out, tmp_path, quick):
    (tmp_path / "class" / "ann").mkdir(parents=True)
    found = read_all(handed_out / "keys")
    results = grading.grade_class(tmp_path / "class", NOTEBOOK, [], tmp_path / "out", keys=found)
    row = results["learners"]["ann"]
    assert {answer["message"] for answer in row["answers"]} == {"not reached"}
    assert "no notebook" in row["stopped"]


# --- one's own -----------------------------------------------------------------------------


def test_the_line_in_the_notebook_says_whether_it_is_right_and_no_more(capsys):
    numbers = {"side": 384, "bits": 4, "group": 32}
    assert check_by_hand("stored_bits", 4.5, **numbers)
    assert not check_by_hand("stored_bits", 4, **numbers)
    assert not check_by_hand("stored_bits", ..., **numbers)
    assert not check_by_hand("stored_bits", 7.77, **numbers)
    assert not check_by_hand("stored_bits", 4.5, side=1)
    assert not check_by_hand("no_such", 4.5)
    assert capsys.readouterr().out.splitlines() == [
        "✓ stored_bits",
        "✗ stored_bits: the scales are missing: each group of weights stores one, in 2 bytes",
        "✗ stored_bits: no answer yet",
        "✗ stored_bits: that is not what these numbers give",
        "✗ stored_bits: the course has no such question: the line's numbers were changed",
        "✗ no_such: the course has no such question: the line's numbers were changed",
    ]


def test_odd_answers_are_wrong_and_stop_nothing():
    asked = grade.Asked("stored_bits", {"side": 384, "bits": 4, "group": 32}, 4.5, {"x": 9.0})
    shell = type("Shell", (), {"user_ns": {}})

    def ask(message):
        return inside.answer(shell, *message["ask"])

    assert "is not defined" in grade._ask_number(ask, asked).message
    for value in (True, "4.5", [4.5], float("nan"), None, ..., print, {"a": 1}, 10**400):
        shell.user_ns["stored_bits_by_hand"] = value
        assert not grade._ask_number(ask, asked).passed
    for reply in ({}, {"answer": "x"}, {"answer": wire.encode(("raised", "a\n\x1b[2K"))}):
        answer = grade._ask_number(lambda message, reply=reply: reply, asked)
        assert not answer.passed and answer.message.isprintable()
    shell.user_ns["stored_bits_by_hand"] = 9.0
    assert grade._ask_number(ask, asked).message.endswith("it is what variant x wants")


def test_ones_own_variant_is_asked_by_the_numbers_in_it(monkeypatch, tmp_path):
    def grade_sources(sources, expected, seed, limits, *, asked=(), **options):
        return list(asked)

    monkeypatch.setattr(grade, "grade_sources", grade_sources)
    lines = [
        'passed = checks.check_by_hand("stored_bits", 1, side=384, bits=4, group=32)',
        'checks.check_by_hand("no_such", 1)',
        'checks.check_by_hand("lora_numbers", 1, inputs=f())',
        "checks.check_by_hand()\nchecks.check_x(f)(g)",
        "%time 1\n?",
    ]
    book = notebook(*lines)
    nbformat.write(book, tmp_path / "own.ipynb")
    (asked,) = grade.grade_notebook(tmp_path / "own.ipynb", [], 7)
    assert (asked.name, asked.wanted) == ("stored_bits", 4.5)
    assert classroom.expected_checks(book) == ["checks.check_x(f)(g)"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b'{"metadata": 1}',
        b'{"metadata": {"lightcourse": {"variant": 5}}}',
        b"[" * 99_999,
    ]
    + [b'{"metadata": {"lightcourse": {"variant": "%s"}}}' % (b"a" * 65)],
    ids=["empty", "list", "number", "no text", "deep", "long"],
)
def test_an_odd_id_is_none(content):
    assert grade.read.variant_in(content) == ""


def test_a_question_allows_the_numbers_that_it_names_and_no_others():
    question = variants.read_questions(ROOM)["stored_bits"]
    assert question.allows(question.first)
    for change in ({"side": 385}, {"side": 384.0}, {"bits": True}, {"more": 1}):
        assert not question.allows({**copy.copy(question.first), **change})
    assert not question.allows([])
