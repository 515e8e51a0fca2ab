"""How a check tries a learner's function and names the misconception behind a wrong answer."""

import contextlib
import copy
import inspect
import io
from collections.abc import Callable, Sequence

import numpy as np
import torch

NOT_WRITTEN = "not written yet: the function returns nothing"


def grade(
    learner: Callable,
    reference: Callable,
    cases: Sequence[tuple],
    misconceptions: dict[str, Callable] | None = None,
) -> bool:
    """Try ``learner`` on every case, print one line that begins with ✓ or ✗, and tell which.

    Parameters
    ----------
    learner : callable
        The learner's function. Whatever it prints is swallowed, whatever it raises is
        reported; nothing it does makes the check itself raise.
    reference : callable
        The right answer, of the same arguments: a number, a tensor, an array, or a tuple
        of those.
    cases : sequence of tuple
        Arguments to try, unknown to the learner. Each call gets its own copy.
    misconceptions : dict of str to callable, optional
        From what to say to a function that makes this very mistake. A learner's answers
        that equal such a function's in all cases get its message.

    Returns
    -------
    bool
        Whether every answer was right and no input was changed.
    """
    problem = _problem(learner, reference, cases, misconceptions or {})
    name = getattr(learner, "__name__", "your answer")
    print(f"✗ {name}: {problem}" if problem else f"✓ {name}")
    return not problem


def _problem(learner, reference, cases, misconceptions):
    """Return what is wrong with a learner's function, or None."""
    if not callable(learner):
        return f"a function is wanted, {type(learner).__name__} was given"
    answers, names = [], list(inspect.signature(reference).parameters)
    for case in cases:
        answer, problem = _attempt(learner, case, names)
        if problem:
            return problem
        answers.append(answer)
    wanted = [reference(*case) for case in cases]
    wrong = [i for i, pair in enumerate(zip(answers, wanted, strict=True)) if not _same(*pair)]
    if not wrong:
        return None
    for message, mistake in misconceptions.items():
        if all(_same(a, mistake(*case)) for a, case in zip(answers, cases, strict=True)):
            return message
    first = wrong[0]
    difference = _difference(answers[first], wanted[first])
    return f"{difference} (given {_given(cases[first], names)})"


def _attempt(learner, case, names):
    """Call the learner's function on a copy of the case; return (answer, problem)."""
    given = copy.deepcopy(case)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            answer = learner(*given)
    except (Exception, SystemExit) as error:
        told = f"it raised {type(error).__name__}: {error}"
        return None, f"{told} (given {_given(case, names)})"
    if answer is None or answer is Ellipsis:
        return None, NOT_WRITTEN
    if not _same(given, case):
        return None, "it changes its input: work on a copy, or make a new tensor"
    return answer, None


def _same(answer, wanted):
    """Tell whether two answers agree in structure, shape and value."""
    if isinstance(wanted, (tuple, list)):
        return (
            isinstance(answer, (tuple, list))
            and len(answer) == len(wanted)
            and all(_same(a, w) for a, w in zip(answer, wanted, strict=True))
        )
    answer, wanted = _array(answer), _array(wanted)
    if answer is None or wanted is None:
        return answer is wanted
    same_kind = (answer.dtype == bool) == (wanted.dtype == bool)
    if not same_kind or answer.shape != wanted.shape:
        return False
    # Halves and whole floats differ by rounding; 1e-4 tells any real mistake from that.
    return np.allclose(answer.astype(float), wanted.astype(float), 1e-4, 1e-6, equal_nan=True)


def _array(value):
    """Return a number, tensor or array as a NumPy array of numbers, or None."""
    try:
        array = np.asarray(value.detach() if hasattr(value, "detach") else value)
    except Exception:
        return None
    return array if array.dtype.kind in "biuf" else None


def _difference(answer, wanted):
    """Say how an answer differs from the one that is wanted, its kind first."""
    if isinstance(wanted, (tuple, list)):
        return f"({_shown(wanted)}) is wanted, {_shown([answer])} was returned"
    got, want = _array(answer), _array(wanted)
    if got is None:
        return f"a {_kind(want)} is wanted, {type(answer).__name__} was returned"
    if got.shape != want.shape:
        return f"shape {want.shape} is wanted, {got.shape} was returned"
    if (got.dtype == bool) != (want.dtype == bool):
        return f"a {_kind(want)} is wanted, a {_kind(got)} was returned"
    if want.dtype == bool:
        return _mask_difference(got, want)
    return f"{_shown([wanted])} is wanted, {_shown([answer])} was returned"


def _mask_difference(got, want):
    if got.sum() != want.sum():
        return f"{got.sum()} values are True, {want.sum()} are wanted"
    return f"the right number of values is True, but not the right ones: {want.tolist()} is wanted"


def _kind(array):
    kind = "mask of True and False" if array.dtype == bool else "number"
    return kind if array.dtype == bool or not array.shape else "tensor of numbers"


def _given(case, names):
    """Return the arguments of a case with their names."""
    return ", ".join(f"{name}={_shown([value])}" for name, value in zip(names, case, strict=True))


def _shown(values):
    """Return values in short: small things whole, large ones by their shape."""
    parts = []
    for value in values:
        array = _array(value)
        if isinstance(value, (tuple, list)):
            parts.append(f"({_shown(value)})")
        elif isinstance(value, (str, int)):
            parts.append(repr(value))
        elif array is None or array.size > 12:
            parts.append(f"a {type(value).__name__} of shape {getattr(array, 'shape', '?')}")
        else:
            parts.append(str(np.round(array.astype(float), 4).tolist()))
    return ", ".join(parts)


def normal(*shape: int, seed: int) -> torch.Tensor:
    """Return normal numbers, always the same ones for a seed."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def but(reference: Callable, place: int, function: Callable) -> Callable:
    """Return the reference with one entry of its answer replaced by what ``function`` says."""

    def wrong(*arguments):
        answer = list(reference(*arguments))
        answer[place] = function(*arguments)
        return tuple(answer)

    return wrong
