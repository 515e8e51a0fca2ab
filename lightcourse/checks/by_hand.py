"""Questions that are answered by a number, worked out by hand, from numbers of one's own."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass

from lightcourse import wire
from lightcourse.checks import comparing, grading
from lightcourse.checks.words import say, sentences

# Three digits are asked for; two variants' answers lie further apart than both may be off.
TOLERANCE = 0.005
APART = 0.0105

_print = print


@dataclass(frozen=True)
class ByHand:
    """One question: an exercise's function, and what is asked of it with some numbers.

    Parameters
    ----------
    exercise : Exercise
        Its reference answers, and its mistakes are recognized.
    ask : callable
        ``ask(function, **numbers)`` returns what the function says: a number, or a tuple.
    """

    exercise: grading.Exercise
    ask: Callable


def find_wanted(question: ByHand, numbers: dict):
    """Return the right answer to a question, by the exercise's reference, as plain numbers."""
    with grading.fresh_settings():
        return _plain(question.ask(question.exercise.reference, **numbers))


def agree(answer, wanted, tolerance: float = TOLERANCE) -> bool:
    """Tell whether an answer is right: whole numbers just so, others to three digits."""
    return comparing.same(answer, wanted, tolerance)


def find_problem(question: ByHand, numbers: dict, wanted, text: str) -> str:
    """Return what is wrong with an answer, without giving the right one; empty if nothing.

    Parameters
    ----------
    question : ByHand
        What was asked.
    numbers : dict
        Those of this variant.
    wanted : number, str, tuple or list
        The right answer.
    text : str
        What :func:`lightcourse.wire.answer` says of a function that returns the answer.
    """
    answer, problem = read_answer(text)
    if problem or agree(answer, wanted):
        return problem
    for known, mistake in question.exercise.mistakes.items():
        if _is_made(question, numbers, mistake, answer):
            return sentences(question.exercise.name)[known]
    return say("not_by_hand")


def read_answer(text: str) -> tuple:
    """Return (the answer that a text holds, why there is none)."""
    try:
        kind, found, *_ = wire.decode(text)
    except (TypeError, ValueError):
        return None, say("unreadable")
    if kind != "answer":
        return None, grading.one_line(found) or say("unreadable")
    if found is None or (isinstance(found, wire.Other) and found.type_name == "ellipsis"):
        return None, say("no_answer")
    return found, ""


def _is_made(question, numbers, mistake, answer):
    """Tell whether a known mistake leads to an answer; it may fail on numbers such as these."""
    with contextlib.suppress(Exception), grading.fresh_settings():
        return agree(answer, _plain(question.ask(mistake, **numbers)))
    return False


def _plain(value):
    """Return numbers as JSON has them; of floats six digits, which every processor agrees on."""
    if isinstance(value, (tuple, list)):
        return [_plain(entry) for entry in value]
    if isinstance(value, str):
        return value
    found = comparing.to_array(value).tolist()
    if isinstance(found, list):
        return _plain(found)
    return float(f"{found:.6g}") if isinstance(found, float) else found


def check(questions: dict, name: str, answer, numbers: dict) -> bool:
    """Print one line that begins with ✓ or ✗, and return whether an answer is right."""
    try:
        question = questions[name]
        wanted = find_wanted(question, numbers)
        text = wire.encode(("answer", answer))
        problem = find_problem(question, numbers, wanted, text)
    except Exception:  # numbers that somebody has changed
        problem = say("no_question")
    _print(f"✗ {name}: {problem}" if problem else f"✓ {name}")
    return not problem
