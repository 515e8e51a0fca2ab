"""How much of a reference a text says again: ROUGE."""

import re
from collections import Counter
from collections.abc import Sequence


def rouge(text: str, reference: str, order: int = 1) -> float:
    """Return ROUGE-N: the F1 of the rows of ``order`` words that a text shares with a reference.

    Of each such row as many count as both hold. F1 = 2 · shared / (rows of the text + rows of the
    reference). Lin, "ROUGE: a package for automatic evaluation of summaries", ACL workshop 2004.
    He reports recall, which a longer text can only raise; F1 lets it pay for its length.

    Words are runs of letters and digits in lower case; nothing is stemmed.

    Parameters
    ----------
    text, reference : str
    order : int
        Words in a row, at least 1.

    Returns
    -------
    float
        From 0 to 1; 0 where either is too short to hold a row.

    Raises
    ------
    ValueError
        When ``order`` is below 1.

    Examples
    --------
    >>> round(rouge("The cat sat.", "the cat lay down"), 3)  # 2 words shared, of 3 and 4
    0.571
    >>> rouge("The cat sat.", "the cat lay down", order=2)  # 1 pair shared, of 2 and 3
    0.4
    """
    if order < 1:
        raise ValueError(f"order is {order}; at least 1 is wanted")
    found, wanted = (Counter(_rows(words(one), order)) for one in (text, reference))
    return _f1((found & wanted).total(), found.total(), wanted.total())


def rouge_l(text: str, reference: str) -> float:
    """Return ROUGE-L: the F1 of the longest row of words that both hold in this order.

    Other words may stand between them (Lin 2004, section 3.1, where recall and precision weigh
    the same). Each of the two is taken as one sentence.

    Parameters
    ----------
    text, reference : str

    Returns
    -------
    float
        From 0 to 1.

    Examples
    --------
    >>> rouge_l("the gunman killed police", "police killed the gunman")  # "the gunman"
    0.5
    """
    found, wanted = words(text), words(reference)
    return _f1(_longest(found, wanted), len(found), len(wanted))


def words(text: str) -> list[str]:
    """Return a text's words as ROUGE counts them, in lower case."""
    return re.findall(r"[^\W_]+", text.lower())


def _rows(found: Sequence[str], order: int):
    return zip(*(found[i:] for i in range(order)), strict=False)


def _f1(shared, found, wanted):
    return 2 * shared / (found + wanted) if shared else 0.0


def _longest(first, second):
    """Return the length of the longest common subsequence, row by row of the usual table."""
    above = [0] * (len(second) + 1)
    for word in first:
        row = [0]
        for j, other in enumerate(second):
            row.append(above[j] + 1 if word == other else max(row[j], above[j + 1]))
        above = row
    return above[-1]
