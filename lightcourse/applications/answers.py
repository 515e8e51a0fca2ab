"""Answers taken out of passages: the sentence that fits, and the number or name in it."""

import re
import string
from collections import Counter
from dataclasses import dataclass

import numpy as np
from torch import nn

from lightcourse.applications.search import unit_vectors

NUMBER = r"-?\d[\d,.]*\d%?|\d%?"
MONTHS = "January|February|March|April|May|June|July|August|September|October|November|December"
DATE = rf"\d{{1,2}} (?:{MONTHS})(?: \d{{4}})?|\b\d{{4}}\b"
NAME = r"(?:[A-Z][\w'’.-]+ )+[A-Z]{2,}\b(?: [IVX]+\b)?|[A-Z]{3,} [IVX]+\b"
# What a question asks for, by how it begins; the first row that fits counts.
WANTED = (
    (r"when\b|in which year|what year|until when", DATE),
    (r"how (?:many|much|fast|salty|old|high)|what is .*(?:rate|mortality|number)", NUMBER),
    (r"who\b|which (?:monarch|king)|after which monarch", NAME),
)


@dataclass(frozen=True)
class Answer:
    """What was found: the sentence, the piece of it that is asked for, and the cosine of both."""

    text: str
    sentence: str
    confidence: float

    def __str__(self):
        return f"{self.text}   ({self.confidence:.2f})"


def clauses(text: str) -> list[str]:
    """Split a passage at semicolons and full stops before a capital; none is lost.

    Examples
    --------
    >>> clauses("mild, wet winters; hot summers. It snows.")
    ['mild, wet winters', 'hot summers.', 'It snows.']
    """
    return [part for part in re.split(r";\s+|(?<=[a-z\d)][.!?])\s+(?=[A-Z])", text) if part.strip()]


def best_answer(question: str, passages: list[dict], encoder: nn.Module, tokenizer) -> Answer:
    """Return the sentence of some passages whose vector is nearest to the question's.

    Where the question asks for a number, a date or a person, only sentences that hold one count
    (all, where none does), and the answer is the first such piece; else it is the sentence.

    Parameters
    ----------
    question : str
    passages : list of dict
        With country, section and text: each sentence is read behind country and section.
    encoder, tokenizer
        As :func:`lightcourse.applications.search.unit_vectors` takes them.

    Raises
    ------
    ValueError
        When there is no passage.
    """
    heads = [(f"{row['country']}, {row['section']}: ", row["text"]) for row in passages]
    read = [(head, sentence) for head, text in heads for sentence in clauses(text)]
    if not read:
        raise ValueError("passages is empty; a passage at least is wanted")
    read = [pair for pair in read if piece(question, pair[1]) != pair[1]] or read
    vectors = unit_vectors([question, *map("".join, read)], encoder, tokenizer).numpy()
    scores = vectors[1:] @ vectors[0]
    sentence = read[scores.argmax()][1]
    return Answer(piece(question, sentence), sentence, float(scores.max()))


def piece(question: str, sentence: str) -> str:
    """Return the number, date or person that a question asks for, or the whole sentence.

    Examples
    --------
    >>> piece("Who is the president of Poland?", "President Karol NAWROCKI (since 6 August 2025)")
    'Karol NAWROCKI'
    >>> piece("What is the birth rate of Poland?", "8.03 births/1,000 population (2025 est.)")
    '8.03'
    """
    for beginning, form in WANTED:
        if re.match(beginning, question.lower()):
            found = re.search(
                form, re.sub(r"^(?:Prime Minister|President|King|Queen) ", "", sentence)
            )
            return found[0] if found else sentence
    return sentence


def token_f1(said: str, wanted: str) -> float:
    """Return how far two answers share their words: SQuAD's F1 (arXiv 1606.05250).

    Case, punctuation and articles do not count; words are counted as often as they occur.

    Examples
    --------
    >>> token_f1("the Danish fort", "Danish fort."), round(token_f1("a fort on a hill", "fort"), 2)
    (1.0, 0.5)
    """
    first, second = (Counter(_plain(text)) for text in (said, wanted))
    both = (first & second).total()
    return 2 * both / (first.total() + second.total()) if both else float(first == second)


def contains(said: str, wanted: str) -> bool:
    """Tell whether all of the wanted answer's words stand in what was said, side by side."""
    return f" {' '.join(_plain(wanted))} " in f" {' '.join(_plain(said))} "


def _plain(text):
    """Return SQuAD's plain form of an answer, in words."""
    kept = "".join(letter for letter in text.lower() if letter not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", kept).split()


def risk_by_coverage(confidence: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return how many questions are answered and how many of these wrongly, by threshold.

    Parameters
    ----------
    confidence : ndarray of shape (questions,)
    right : ndarray of bool, shape (questions,)
        False for every question that has no answer.

    Returns
    -------
    tuple of ndarray
        Coverage, the share of questions at or above each confidence that occurs, from the highest
        to the lowest; and risk, the share of wrong answers among them (El-Yaniv & Wiener, JMLR
        11, 2010).

    Raises
    ------
    ValueError
        When the two are empty or not equally long.
    """
    confidence, right = np.asarray(confidence, np.float64), np.asarray(right, bool)
    if confidence.shape != right.shape or confidence.ndim != 1 or not right.size:
        raise ValueError(
            f"confidence is {confidence.shape} and right {right.shape}; two filled rows are wanted"
        )
    order = np.argsort(-confidence, kind="stable")
    last = np.append(np.diff(confidence[order]) != 0, True)  # equal confidences stand together
    answered = np.arange(1, len(right) + 1)
    risk = 1 - right[order].cumsum() / answered
    return answered[last] / len(right), risk[last]
