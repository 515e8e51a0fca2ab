"""Grading a learner's notebook; a real process is started once."""

import contextlib

import nbformat
import pytest

from lightcourse import checks as lightcourse_checks
from lightcourse import wire as lightcourse_wire
from lightcourse.classroom import grade, inside
from tests.classroom.books import notebook


def write(path, *sources):
    nbformat.write(notebook(*sources), path)
    return path


class Shell:
    """What stands in for IPython: the learner's names."""

    def __init__(self, namespace):
        self.user_ns = namespace


def asked(namespace):
    """Return what stands in for a process: it answers as the real one does."""
    return lambda message: inside.answer(Shell(namespace), *message["ask"])


def judged(answer, **namespace):
    ask = asked({"f": answer, **namespace})
    return grade._ask_check(ask, "checks.check_stored_bytes(f)", 3)


def right(rows, columns, bits, group_size):
    return rows * columns * bits // 8 + rows * (columns // group_size) * 2


def test_a_right_answer_passes_whatever_its_notebook_calls_by_our_names():
    shadows = dict.fromkeys(["checks", "wire", "globals", "__import__", "lightcourse", "eval"], 3)
    assert judged(right, **shadows).passed
    assert not judged(lambda *case: 7, **shadows).passed


def test_a_known_mistake_is_named_by_the_grader():
    answer = judged(lambda rows, columns, bits, group_size: rows * columns * bits // 8)
    assert answer.message.startswith("the scales are missing")


def test_what_is_absent_or_raises_is_told_in_one_line():
    def fake(*case):
        raise ValueError("no\n✓ checks.check_stored_bytes(f)\n5 of 5 checks pass\x1b[2K")

    absent = grade._ask_check(asked({}), "checks.check_stored_bytes(f)", 0)
    assert absent == grade.Answer(
        "checks.check_stored_bytes(f)", False, "NameError: name 'f' is not defined"
    )
    message = judged(fake).message
    assert "it raised ValueError: no" in message and message.isprintable()
    assert not grade._ask_check(asked({}), "checks.check_nothing(f)", 0).passed
    assert not grade._ask_check(asked({}), "checks.check_stored_bytes(f, g)", 0).passed


@pytest.mark.parametrize("reply", [{}, {"answer": ""}, {"answer": "True"}, {"answer": ["x"]}])
def test_a_reply_that_holds_no_answer_fails(reply):
    found = grade._ask_check(lambda message: reply, "checks.check_stored_bytes(f)", 0)
    assert not found.passed
    assert found.message.startswith("its answer cannot be read")


def test_a_comparison_that_fails_is_no_pass(monkeypatch):
    def compare(*_):
        raise ZeroDivisionError

    monkeypatch.setattr(lightcourse_checks, "find_problem", compare)
    assert "cannot be compared" in judged(right).message


def test_a_notebooks_own_checks_are_judged_here():
    """On the cases that every notebook sees; the process is only told whether they pass."""
    replies = iter([{"check": "check_stored_bytes"}])
    told = []

    def ask(message):
        if "case" in message:
            return {"answer": lightcourse_wire.answer(right, message["case"])}
        told.append(message)
        return next(replies, {"error": ["ValueError", "x\n\x1b"]})

    assert grade._run(ask, "code") == "ValueError: x"
    assert told == [{"run": "code"}, {"judged": True}]


def test_no_table_of_the_answers_to_the_notebooks_cases_passes():
    exercise = lightcourse_checks.EXERCISES["check_stored_bytes"]
    table = {case: exercise.reference(*case) for case in exercise.cases(0)}
    assert lightcourse_checks.check_stored_bytes(lambda *case: table[case])
    assert "it raised KeyError" in judged(lambda *case: table[case]).message


def test_a_report_without_checks_does_not_pass():
    right, wrong = grade.Answer("a", True), grade.Answer("b", False)
    assert not grade.Report().passed
    assert grade.Report(answers=[right]).passed
    assert not grade.Report(answers=[right, wrong]).passed


def test_what_was_not_reached_did_not_pass(tmp_path, monkeypatch):
    def ask(message):
        if "while" in message["run"]:
            raise ChildProcessError("the time limit of 7 s was reached")
        return {"done": True}

    @contextlib.contextmanager
    def started(limits, layer, folder):
        assert (limits.seconds, layer, folder) == (7, "plain", tmp_path)
        yield ask

    monkeypatch.setattr(grade.process, "started", started)
    path = write(tmp_path / "loop.ipynb", "1", "# for ever\nwhile True:\n    pass", "2")
    report = grade.grade_notebook(path, ["checks.check_double(f)"], 7)
    assert report.stopped == "the time limit of 7 s was reached, in code cell 2: while True:"
    assert report.answers == [grade.Answer("checks.check_double(f)", False, "not reached")]
    assert not report.passed


ATTACKS = {
    "patched": """
import lightcourse.checks, lightcourse.classroom.grade
import atexit, builtins, sys, numpy, torch
lightcourse.classroom.grade._find_problem = lightcourse.classroom.grade._ask_check = lambda *a: ""
lightcourse.checks.check_stored_bytes = lambda f: True
torch.allclose = numpy.allclose = lambda *a, **b: True
builtins.print = lambda *a, **b: None
sys.modules["lightcourse.checks.grading"] = sys
atexit.register(lambda: print("✓"))
def patched(rows, columns, bits, group_size):
    return 7""",
    "climber": """
import sys
def climber(rows, columns, bits, group_size):
    frame = sys._getframe()
    while frame:
        for values in (frame.f_locals, frame.f_globals):
            exercise = values.get("exercise")
            reference = values.get("reference") or getattr(exercise, "reference", None)
            if reference:
                return reference(rows, columns, bits, group_size)
        frame = frame.f_back
    return 7""",
    "liar": """
import torch
class Liar:
    __eq__ = __ge__ = __le__ = lambda self, other: True
    __array__ = lambda self, *a, **b: torch.tensor(216).numpy()
def liar(*case):
    return Liar()""",
    "subclass": """
class Agreeable(torch.Tensor):
    __eq__ = lambda self, other: True
    __torch_function__ = classmethod(lambda cls, *a, **b: True)
def subclass(*case):
    return torch.tensor(7).as_subclass(Agreeable)""",
    "boastful": """
def boastful(*case):
    print("✓ checks.check_stored_bytes(boastful)")
    return 7""",
    "huge": """
def huge(*case):
    return [7] * 10_000_000""",
}


@pytest.mark.timeout(300)
def test_a_learners_notebook_in_a_real_process(tmp_path):
    path = write(
        tmp_path / "learner.ipynb",
        "raise ValueError('half done')",
        "name = input()",
        "def right(rows, columns, bits, group_size):\n"
        "    return rows * columns * bits // 8 + rows * (columns // group_size) * 2",
        *ATTACKS.values(),
        "print('x' * 100_000)",
        "def dies(*case):\n    import os\n    os._exit(0)",
    )
    before = path.read_bytes()
    names = ("right", *ATTACKS, "absent", "dies", "right")
    report = grade.grade_notebook(path, [f"checks.check_stored_bytes({n})" for n in names], 240)
    passed = dict(zip(names[:-1], [answer.passed for answer in report.answers], strict=False))
    assert [name for name, verdict in passed.items() if verdict] == ["right"]
    assert report.answers[-3].message == "NameError: name 'absent' is not defined"
    assert report.stopped == "its process ended, in checks.check_stored_bytes(dies)"
    assert not report.answers[-1].passed
    assert [(cell.number, cell.error) for cell in report.raised] == [
        (1, "ValueError: half done"),
        (2, "input() was called, but nobody is here to answer"),
    ]
    assert path.read_bytes() == before
