"""Grading a learner's exercises: their process answers, this one compares."""

import ast
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from lightcourse.classroom import kernel, read
from lightcourse.classroom.kernel import Failure

NO_INPUT = "StdinNotImplementedError"


@dataclass(frozen=True)
class Answer:
    """What one check said: ``passed``, and the message that it printed."""

    expression: str
    passed: bool
    message: str = ""


@dataclass
class Report:
    """What grading a notebook found.

    Parameters
    ----------
    raised : list of Failure
        Cells that raised; the later ones ran all the same.
    answers : list of Answer
        One for each expected check, in order.
    stopped : str
        Why grading ended early; empty when it did not.
    """

    raised: list[Failure] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    stopped: str = ""

    @property
    def passed(self) -> bool:
        """True when there are checks and every one of them passed."""
        return bool(self.answers) and all(answer.passed for answer in self.answers)


def grade_notebook(
    path: str | Path, expected: list[str], seconds: float, seed: int | None = None
) -> Report:
    """Run a learner's notebook in a process of its own and ask each expected check.

    Cells may raise; the later ones run all the same. What they print counts for nothing.
    Afterwards the learner's process only answers: it is sent one case after the other, and
    what it returns is compared in *this* process, which never runs the learner's code. So
    nothing that is patched or looked up over there changes a verdict here. The kernel is no
    sandbox, though: a notebook can read and write files and use the network, and the course's
    library, with the right answers to its exercises, can be imported in it.

    Parameters
    ----------
    path : path
        The notebook; it is only read.
    expected : list of str
        Expressions as :func:`lightcourse.classroom.expected_checks` returns them.
    seconds : float
        Limit for everything together; the process is killed when it is reached.
    seed : int, optional
        Of the cases; by default a new one each time, so that no table of answers fits.
    """
    seed = secrets.randbelow(2**31) if seed is None else seed
    report, place = Report(), "the kernel's start"
    path = Path(path)
    try:
        with kernel.started(path.parent, seconds) as ask:
            for number, source in enumerate(read.code_sources(read.read_notebook(path)), 1):
                place = f"code cell {number}: {read.first_line(source)}"
                reply = ask(source)
                if reply["status"] == "error":
                    report.raised.append(Failure(number, source, _error_line(reply)))
            for expression in expected:
                place = expression
                report.answers.append(_ask_check(ask, expression, seed))
    except TimeoutError:
        report.stopped = f"the time limit of {seconds:g} s was reached in {place}"
    except ChildProcessError:
        report.stopped = f"the kernel died in {place}"
    late = expected[len(report.answers) :]
    report.answers += [Answer(expression, False, "not reached") for expression in late]
    return report


def _error_line(reply):
    if reply["ename"] == NO_INPUT:
        return "input() was called, but nobody is here to answer"
    return " ".join(f"{reply['ename']}: {reply['evalue']}".split())


def _ask_check(ask, expression, seed):
    """Judge here what the learner's process answers to each case of a check."""
    from lightcourse import checks

    call = ast.parse(expression, mode="eval").body
    exercise = checks.EXERCISES.get(call.func.attr)
    if exercise is None or len(call.args) != 1 or call.keywords:
        return Answer(expression, False, "the course has no such check of one function")
    function = ast.unparse(call.args[0])
    problem = checks.find_problem(exercise, seed, lambda case: _answer(ask, function, case))
    return Answer(expression, not problem, problem)


def _answer(ask, function, case):
    """Have one case answered in the learner's process; whatever comes back is only text."""
    # Through a lambda, for a notebook may give `globals` and `__import__` other meanings.
    wire = "(lambda: 0).__builtins__['__import__']('lightcourse.wire', fromlist=['_'])"
    reply = ask("", {"answer": f"{wire}.answer({function}, {case!r})"})
    result = reply.get("user_expressions", {}).get("answer", {})
    if result.get("status") == "error":
        return _missing(f"{result.get('ename')}: {result.get('evalue')}")
    return str(result.get("data", {}).get("text/plain", "")).strip("'")


def _missing(told):
    from lightcourse import wire

    return wire.encode(("missing", told))
