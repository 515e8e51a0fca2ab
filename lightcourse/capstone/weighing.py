"""What a submission answers, and how fast beside its teacher: measured, and not yet judged."""

from dataclasses import dataclass
from pathlib import Path

import torch

from lightcourse import metrics
from lightcourse.capstone.submission import Submission, load_submission, load_teacher
from lightcourse.integers import integer_matrices

# Texts to time: as many letters as a long sentence, some 45 tokens; the teacher reads 24 of them.
LETTERS, TIMED = 200, 5
ROUNDS = 30
# How much rounding to half precision moves a number: 2**-9 of it in bfloat16.
HALF = 2.0**-8
SAME_LOGITS = 0.01  # of their standard deviation
PROBES = 32


@dataclass(frozen=True)
class Weighed:
    """What was measured of a submission.

    Parameters
    ----------
    predictions : list of int
        A class for each text.
    latency, teacher_latency : Latency
        Of all timed sentences, read one after the other, in turns with the teacher.
    letters : (int, int)
        Of the shortest and the longest of them.
    """

    predictions: list[int]
    latency: metrics.Latency
    teacher_latency: metrics.Latency
    letters: tuple[int, int]


def answers(submission: Submission, texts: list[str], batch: int = 32) -> list[int]:
    """Return the class that each text is given; texts of like length are read together.

    Raises
    ------
    ValueError
        When the model answers NaN or infinity.
    """
    order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
    found = [0] * len(texts)
    for start in range(0, len(order), batch):
        rows = order[start : start + batch]
        logits = submission.logits([texts[row] for row in rows])
        if not torch.isfinite(logits).all():
            raise ValueError("the model answers NaN or infinity; finite logits are wanted")
        for row, label in zip(rows, logits.argmax(dim=1).tolist(), strict=True):
            found[row] = label
    return found


def weigh(
    folder: str | Path, texts: list[str], teacher: Submission | None = None, rounds: int = ROUNDS
) -> Weighed:
    """Load a submission, let it answer, and time it in turns with its teacher.

    A call goes from a text to its logits, tokens included, one text at a time, on one thread.

    Parameters
    ----------
    folder : path
    texts : list of str
    teacher : Submission, optional
        By default :func:`load_teacher`'s.
    rounds : int
        Timed rounds, at least 2.

    Raises
    ------
    ValueError
        With a sentence for the folder's author, when it cannot be loaded, answers NaN, or is the
        teacher.
    """
    teacher = teacher or load_teacher()
    submission = load_submission(folder, teacher.labels)
    if is_teacher(submission, teacher, texts[:PROBES]):
        raise ValueError(
            "it is the teacher itself, which renaming, reordering or rounding to half precision "
            "does not change; a lighter model is wanted"
        )
    predictions = answers(submission, texts)
    timed = sorted(texts, key=lambda text: (abs(len(text) - LETTERS), text))[:TIMED]
    calls = {"own": _reading(submission, timed), "teacher": _reading(teacher, timed)}
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        found = metrics.latencies(calls, rounds)
    finally:
        torch.set_num_threads(before)
    lengths = [len(text) for text in timed]
    return Weighed(predictions, found["own"], found["teacher"], (min(lengths), max(lengths)))


def _reading(submission, texts):
    def read():
        for text in texts:
            submission.logits([text])

    return read


def is_teacher(submission: Submission, teacher: Submission, texts: list[str]) -> bool:
    """Tell whether a submission is its teacher, under other names, in another order, or rounded.

    It is where it has as many numbers as the teacher, none of them integers, and either all are
    the teacher's up to rounding to half precision, or all logits are the teacher's within a
    hundredth of what they spread.
    """
    own, wanted = _numbers(submission.model), _numbers(teacher.model)
    if integer_matrices(submission.model) or _count(own) < _count(wanted):
        return False
    if own.keys() == wanted.keys() and all(_near(own[name], wanted[name]) for name in own):
        return True
    there = teacher.logits(texts)
    return bool((submission.logits(texts) - there).abs().max() <= SAME_LOGITS * there.std())


def _numbers(model):
    return dict(model.named_parameters(remove_duplicate=False))


def _count(parameters):
    return sum(parameter.numel() for parameter in parameters.values())


def _near(one, other):
    if one.shape != other.shape:
        return False
    one, other = one.detach().float(), other.detach().float()
    return bool(((one - other).abs() <= HALF * other.abs() + 1e-6).all())
