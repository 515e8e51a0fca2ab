"""How a check tries a learner's function and names the misconception behind a wrong answer."""

import contextlib
import functools
import inspect
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from lightcourse import wire
from lightcourse.checks import comparing
from lightcourse.checks.words import say, sentences

_print = print  # a notebook may give the name another meaning, even in builtins


def _same(answer, wanted, *case):
    return comparing.same(answer, wanted)


@dataclass(frozen=True)
class Exercise:
    """One exercise: what is right, on which cases it shows, and which mistakes are known.

    Parameters
    ----------
    name : str
        The name of the function that the learner writes.
    reference : callable
        The right answer: a number, a tensor, an array, or a tuple or list of those.
    cases : callable
        From a seed (int) to a list of tuples of arguments. Whatever the seed, they must tell
        the reference from each mistake, and the mistakes from each other.
    mistakes : dict of str to callable
        From an id to a function that makes this very mistake. What to say of it stands in
        ``words``, in a file for each language.
    alike : callable, optional
        ``alike(answer, wanted, *case)`` tells whether two answers are equally right: where
        the statement leaves a choice (ties, rounding of halves), they need not be equal.
    """

    name: str
    reference: Callable
    cases: Callable[[int], list[tuple]]
    mistakes: dict[str, Callable]
    alike: Callable = _same


def grade(learner: Callable, exercise: Exercise, seed: int = 0) -> bool:
    """Try ``learner`` on every case, print one line that begins with ✓ or ✗, and tell which.

    Parameters
    ----------
    learner : callable
        The learner's function. Whatever it prints is swallowed, whatever it raises is
        reported; nothing it does makes the check itself raise.
    exercise : Exercise
        What it is measured by.
    seed : int
        Of the cases.

    Returns
    -------
    bool
        Whether every answer was right and no input was changed.
    """
    problem = find_problem(exercise, seed, lambda text: wire.answer(learner, text))
    name = getattr(learner, "__name__", None)
    name = say("your_answer") if name is None else str(name)
    _print(f"✗ {name}: {problem}" if problem else f"✓ {name}")
    return not problem


def find_problem(exercise: Exercise, seed: int, ask: Callable[[str], str]) -> str:
    """Return what is wrong with a learner's function, or an empty string.

    ``ask`` is :func:`lightcourse.wire.answer` of that function, here or in another process;
    where there is no such function, it says so by ``("missing", why)``.
    """
    names = list(inspect.signature(exercise.reference).parameters)
    with fresh_settings():
        cases = exercise.cases(seed)
    answers = []
    for case in cases:
        answer, problem = _attempt(ask, case, names)
        if problem:
            return problem
        answers.append(answer)
    with fresh_settings():
        return _verdict(exercise, cases, answers, names)


def _attempt(ask, case, names):
    """Ask for one answer; return (answer, problem)."""
    try:
        kind, found, *after = wire.decode(ask(wire.encode(case)))
    except (TypeError, ValueError):
        return None, say("unreadable")
    if kind == "missing":
        return None, one_line(found) or say("unreadable")
    if kind == "no function":
        return None, say("no_function", given=one_line(found))
    if kind == "raised":
        arguments = comparing.given(case, names)
        return None, say("raised", error=one_line(found), arguments=arguments)
    if found is None or (isinstance(found, wire.Other) and found.type_name == "ellipsis"):
        return None, say("not_written")
    if not comparing.same(after, [case]):
        return None, say("changes_its_input")
    return found, ""


def one_line(text) -> str:
    """Return what a learner's code said as one line without control characters."""
    return "".join(c for c in " ".join(str(text).split()) if c.isprintable())[:500]


def _verdict(exercise, cases, answers, names):
    def agree(function, place):
        wanted = function(*cases[place])
        return exercise.alike(answers[place], wanted, *cases[place])

    places = range(len(cases))
    wrong = [place for place in places if not agree(exercise.reference, place)]
    if not wrong:
        return ""
    for known, mistake in exercise.mistakes.items():
        if all(agree(mistake, place) for place in places):
            return sentences(exercise.name)[known]
    if told := _by_entry(exercise, cases, answers, names):
        return told
    case, answer = cases[wrong[0]], answers[wrong[0]]
    told = comparing.difference(answer, exercise.reference(*case))
    return say("in_this_case", difference=told, arguments=comparing.given(case, names))


def _by_entry(exercise, cases, answers, names):
    """Say of each wrong entry of a tuple which mistake it shows, or else how it differs."""
    rights = [exercise.reference(*case) for case in cases]
    parts = [comparing.entries(answer) for answer in answers]
    count = len(rights[0]) if isinstance(rights[0], tuple) else 0
    if exercise.alike is not _same or any(p is None or len(p) != count for p in parts):
        return ""

    @functools.cache  # one mistake on one case, for all entries
    def made(known, number):
        return comparing.entries(exercise.mistakes[known](*cases[number])) or []

    told = []
    for place in range(count):
        got, right = ([each[place] for each in column] for column in (parts, rights))
        differing = (i for i in range(len(cases)) if not comparing.same(got[i], right[i]))
        first = next(differing, None)
        if first is not None:
            message = _known_entry(exercise, made, got, place)
            if not message:
                arguments = comparing.given(cases[first], names)
                difference = comparing.difference(got[first], right[first])
                message = say("in_this_case", difference=difference, arguments=arguments)
            told.append(say("entry", place=place + 1, count=count, difference=message))
    return "; ".join(told)


def _known_entry(exercise, made, got, place):
    """Return what is said of the mistake that makes one entry what it is in every case."""
    for known in exercise.mistakes:
        entries = (made(known, number) for number in range(len(got)))
        if all(
            len(m) > place and comparing.same(g, m[place])
            for g, m in zip(got, entries, strict=True)
        ):
            return sentences(exercise.name)[known]
    return ""


@contextlib.contextmanager
def fresh_settings() -> Iterator[None]:
    """Compute as a new process would, whatever the learner's notebook has set."""
    dtype = torch.get_default_dtype()
    with (
        np.errstate(all="ignore"),
        warnings.catch_warnings(action="ignore"),
        torch.inference_mode(False),
        torch.enable_grad(),
        torch.device("cpu"),
    ):
        torch.set_default_dtype(torch.float32)
        try:
            yield
        finally:
            torch.set_default_dtype(dtype)
