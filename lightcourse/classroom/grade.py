"""Grading a learner's exercises: their process answers, this one compares."""

import ast
import contextlib
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lightcourse import language, wire
from lightcourse.classroom import process, read
from lightcourse.classroom.isolation import Limits

NO_INPUT = ["EOFError", "EOF when reading a line"]
LONGEST_TEXT = 2000  # letters of what a report says of a check or a cell


@dataclass(frozen=True)
class Failure:
    """A cell that raised: its number among the code cells, its source, the error's line."""

    number: int
    source: str
    error: str


@dataclass(frozen=True)
class Answer:
    """What one check said: ``passed``, and the message that it printed."""

    expression: str
    passed: bool
    message: str = ""


@dataclass(frozen=True)
class Asked:
    """A question by hand: its name, a variant's numbers, the answer wanted, other variants'."""

    name: str
    numbers: dict
    wanted: object
    others: dict = field(default_factory=dict)


@dataclass
class Report:
    """What grading a notebook found.

    Parameters
    ----------
    raised : list of Failure
        Cells that raised; the later ones ran all the same.
    answers : list of Answer
        One for each expected check, in order, and then one for each question by hand.
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
    """Run one's own notebook in a process of its own and ask each expected check.

    It is a plain process, which can do what its user can: for the notebooks of others there
    is :func:`lightcourse.classroom.grade_class`.

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
    path = Path(path).resolve()
    content = path.read_bytes()
    sources = read.sources_in(content)
    options = {"layer": "plain", "folder": path.parent}
    if asked := _own_questions(sources):
        options["asked"] = asked
    with language.spoken(language.of_notebook(content)):
        return grade_sources(sources, expected, seed, Limits(seconds), **options)


def _own_questions(sources):
    """Return what one's own variant asks by hand, by the numbers that stand in it."""
    from lightcourse.checks import BY_HAND, by_hand

    found = []
    for name, numbers in read.by_hand_numbers(sources).items():
        with contextlib.suppress(Exception):  # somebody has changed the question or its numbers
            found.append(Asked(name, numbers, by_hand.find_wanted(BY_HAND[name], numbers)))
    return found


def grade_sources(
    sources: list[str],
    expected: list[str],
    seed: int,
    limits: Limits,
    *,
    asked: Sequence[Asked] = (),
    **process_options,
) -> Report:
    """Run cells in a process of their own and ask each expected check.

    Cells may raise; the later ones run all the same. What they print counts for nothing.
    Afterwards the learner's process only answers: it is sent one case after the other, and
    what it returns is compared in *this* process, which never runs the learner's code. So
    nothing that is patched or looked up over there changes a verdict here.

    Parameters
    ----------
    sources : list of str
        The code cells.
    expected : list of str
        Expressions as :func:`lightcourse.classroom.expected_checks` returns them.
    seed : int
        Of the cases. It never leaves this process.
    limits : Limits
        Of the process, which is killed when one is reached.
    asked : sequence of Asked
        The questions by hand; what they want never leaves this process either.
    **process_options
        Of :func:`lightcourse.classroom.process.started`.
    """
    report, place = Report(), "the start"
    try:
        with process.started(limits=limits, **process_options) as ask:
            for number, source in enumerate(sources, 1):
                place = f"code cell {number}: {read.first_line(source)}"
                if error := _run(ask, source):
                    report.raised.append(Failure(number, source, error))
            for expression in expected:
                place = expression
                report.answers.append(_ask_check(ask, expression, seed))
            for question in asked:
                place = variable(question.name)
                report.answers.append(_ask_number(ask, question))
    except ChildProcessError as error:
        report.stopped = one_line(f"{error}, in {place}")
    names = [*expected, *(variable(question.name) for question in asked)]
    late = names[len(report.answers) :]
    report.answers += [Answer(expression, False, "not reached") for expression in late]
    return report


def one_line(text) -> str:
    """Return what learners had a hand in as one line of letters that can be shown."""
    line = " ".join("".join(c for c in str(text) if c.isprintable() or c.isspace()).split())
    return line if len(line) <= LONGEST_TEXT else f"{line[:LONGEST_TEXT]} …"


def _run(ask, source):
    """Run a cell; return the line of its error. Meanwhile its own checks are made here."""
    reply = ask({"run": source})
    while "check" in reply:
        passed = not _find_problem(str(reply["check"]), 0, lambda case: _text(ask({"case": case})))
        reply = ask({"judged": passed})
    if "error" not in reply:
        return ""
    if reply["error"] == NO_INPUT:
        return "input() was called, but nobody is here to answer"
    told = reply["error"] if isinstance(reply["error"], list) else [reply["error"]]
    return one_line(": ".join(map(str, told))) or "an error"


def _ask_check(ask, expression, seed):
    """Judge here what the learner's process answers to each case of a check."""
    call = ast.parse(expression, mode="eval").body
    if len(call.args) != 1 or call.keywords:
        return Answer(expression, False, "the course has no such check of one function")
    function = ast.unparse(call.args[0])
    answer = lambda case: _text(ask({"ask": [function, case]}))  # noqa: E731
    problem = _find_problem(call.func.attr, seed, answer)
    return Answer(expression, not problem, one_line(problem))


def _ask_number(ask, asked):
    """Judge here what the learner's process holds as the answer to a question by hand."""
    from lightcourse.checks import BY_HAND, by_hand

    name = variable(asked.name)
    text = _text(ask({"ask": [f"lambda: {name}", wire.encode(())]}))
    try:
        problem = by_hand.find_problem(BY_HAND[asked.name], asked.numbers, asked.wanted, text)
        answer, _ = by_hand.read_answer(text)
        others = [v for v, wanted in asked.others.items() if by_hand.agree(answer, wanted)]
    except Exception as error:  # it compares whatever comes, odd as it may be
        return Answer(name, False, f"the answer cannot be compared ({type(error).__name__})")
    if problem and others:
        problem += f"; it is what variant {others[0]} wants"
    return Answer(name, not problem, one_line(problem))


def variable(question: str) -> str:
    """Return the name by which a notebook holds the answer to a question by hand."""
    return f"{question}_by_hand"


def _find_problem(check: str, seed: int, answer: Callable) -> str:
    """Return what is wrong with the answers, by one check of the course; empty if nothing."""
    from lightcourse import checks

    if check not in checks.EXERCISES:
        return "the course has no such check of one function"
    try:
        return checks.find_problem(checks.EXERCISES[check], seed, answer)
    except ChildProcessError:
        raise
    except Exception as error:  # checks compare whatever comes, odd as it may be
        return f"the answers cannot be compared with the right ones ({type(error).__name__})"


def _text(reply):
    """Return the answer in a reply, which is text, whatever else it is said to be."""
    return str(reply.get("answer", ""))
