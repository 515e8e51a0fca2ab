"""Typing mistakes made on purpose, to see whether a model still reads a hasty finger."""

import math
import random
import unicodedata
from functools import cache

ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
JOINER = "\N{ZERO WIDTH JOINER}"


def with_typos(text: str, rate: float, seed: int = 0) -> str:
    """Return a text in which letters were swapped, dropped, doubled or hit beside the key.

    Made, not collected: real mistakes follow fingers and habits, these follow dice (Belinkov &
    Bisk 2018, arXiv 1711.02173; Pruthi et al. 2019, arXiv 1905.11268). Whatever is no letter
    stays, accents stay on their letter, and nothing is dropped at a word's end, so none vanishes.
    Only letters of the English keyboard have neighbours; others, Chinese ones too, are
    swapped, dropped or doubled.

    Parameters
    ----------
    text : str
    rate : float
        The chance of each letter to be mistyped, 0 to 1; 0.05 is a mistake in every fifth
        English word.
    seed : int
        The same text, rate and seed give the same mistakes, on any machine.

    Raises
    ------
    ValueError
        When ``text`` is no str, or ``rate`` is not between 0 and 1.

    Examples
    --------
    >>> with_typos("The plot was wonderful.", rate=0.3, seed=1)
    'Teh polt wwass wondrrful.'
    """
    if not isinstance(text, str):
        raise ValueError(f"text is a {type(text).__name__}; a str is wanted")
    _check_rate(rate)
    dice, letters = random.Random(f"{seed} {text}"), _letters(text)
    typed, place = [], 0
    while place < len(letters):
        here, after = letters[place], letters[place + 1 : place + 2]
        if here[0].isalpha() and dice.random() < rate:
            ways = _mistakes(here, after[0] if after and after[0][0].isalpha() else None)
            written, used = ways[int(dice.random() * len(ways))]
            typed.append(written)
            place += used
        else:
            typed.append(here)
            place += 1
    return "".join(typed)


def typo_rows(dataset, rate: float, seed: int = 0):
    """Return a labelled set with mistyped texts, each row marked as made.

    Parameters
    ----------
    dataset : datasets.Dataset
        One split, with a column text.
    rate, seed
        As in :func:`with_typos`.

    Returns
    -------
    datasets.Dataset
        The same rows in the same order, and a column ``made`` (str) that says how.

    Raises
    ------
    ValueError
        When there is no column text, or as :func:`with_typos`.
    """
    from datasets import Dataset, Features, Value

    if "text" not in dataset.column_names:
        raise ValueError(f"dataset has the columns {dataset.column_names}; text is wanted")
    _check_rate(rate)
    made = f"typos in {rate:.1%} of letters, seed {seed}"
    texts = [with_typos(text, rate, seed) for text in dataset["text"]]
    columns = dataset[:] | {"text": texts, "made": [made] * len(texts)}
    return Dataset.from_dict(columns, Features({**dataset.features, "made": Value("string")}))


def _check_rate(rate):
    if not 0 <= rate <= 1 or math.isnan(rate):
        raise ValueError(f"rate is {rate}; a number from 0 to 1 is wanted")


def _letters(text):
    """Cut a text into characters, each with the accents and joiners that stand on it."""
    letters = []
    for character in text:
        marks = unicodedata.category(character).startswith("M") or character == JOINER
        if letters and (marks or letters[-1].endswith(JOINER)):
            letters[-1] += character
        else:
            letters.append(character)
    return letters


def _mistakes(here, after):
    """Return what could be written instead, and how many letters that takes from the text."""
    ways = [(2 * here, 1)]
    if after:
        ways += [("", 1), (after + here, 2)]
    beside = [key.upper() if here.isupper() else key for key in neighbours().get(here.lower(), "")]
    # One way of four, whichever of the keys it is.
    return ways * max(1, len(beside)) + [(key, 1) for key in beside]


@cache
def neighbours() -> dict[str, str]:
    """Return the keys around each letter's key: each row is half a key further to the right."""
    places = {
        key: (row, column + row / 2)
        for row, keys in enumerate(ROWS)
        for column, key in enumerate(keys)
    }
    return {
        key: "".join(k for k, other in places.items() if k != key and _near(places[key], other))
        for key in places
    }


def _near(one, other):
    return abs(one[0] - other[0]) <= 1 and abs(one[1] - other[1]) <= 1
