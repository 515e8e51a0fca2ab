"""Summaries made of a text's own sentences, and those that a language model writes."""

import re

import torch
from torch.nn import functional as F

from lightcourse.applications.replies import answer

# A sentence ends at . ! or ? before a capital letter, but not behind these. I counts
# wars and kings more often than it begins a name.
SHORT = r"(?<!\bDr\.)(?<!\bMr\.)(?<!\bMrs\.)(?<!\bSt\.)(?<!\bJr\.)(?<!\b[A-HJ-Z]\.)"
ENDS = re.compile(rf"(?:(?<=[.!?])|(?<=[.!?][\"'”’)])){SHORT}\s+(?=[\"'“‘(]?[A-Z0-9])")
ASKED = "Summarize this text in {count} short sentences:\n\n{text}"


def sentences(text: str) -> list[str]:
    """Return a text's sentences, by their punctuation.

    Examples
    --------
    >>> sentences("Dr. Vargas won in 1930. He governed until 1945! Was it long?")
    ['Dr. Vargas won in 1930.', 'He governed until 1945!', 'Was it long?']
    """
    return [found for part in ENDS.split(text) if (found := part.strip())]


def lead(count: int, total: int) -> list[int]:
    """Return the first ``count`` places: the baseline that needs no model."""
    return list(range(min(_counted(count), total)))


def central(found: torch.Tensor, count: int) -> list[int]:
    """Return the places of the sentences that are most like all others, in the text's order.

    The cosine with the other sentences, summed: a plain form of centrality as in LexRank (Erkan
    and Radev 2004, doi:10.1613/jair.1523).

    Parameters
    ----------
    found : Tensor of floats, shape (sentences, width)
        Rows of length 1, as :func:`~lightcourse.applications.search.unit_vectors` returns them.
    count : int
        At least 1; all places, where there are no more.
    """
    alike = found @ found.T
    scores = alike.sum(1) - alike.diagonal()
    order = scores.argsort(descending=True, stable=True)
    return sorted(order[: _counted(count)].tolist())


def diverse(found: torch.Tensor, count: int, balance: float = 0.7) -> list[int]:
    """Return the places of sentences that are like the whole and unlike each other, in order.

    Maximal marginal relevance (Carbonell and Goldstein 1998, doi:10.1145/290941.291025): one by
    one the sentence of the largest ``balance`` · (cosine with the mean of all) - (1 - balance) ·
    (largest cosine with one chosen before).

    Parameters
    ----------
    found, count
        As in :func:`central`.
    balance : float
        From 0 to 1; 1 minds no repetition.

    Raises
    ------
    ValueError
        When ``count`` is below 1 or ``balance`` not within 0 to 1.
    """
    if not 0 <= balance <= 1:
        raise ValueError(f"balance is {balance}; 0 to 1 is wanted")
    like, chosen = found @ F.normalize(found.mean(0), dim=0), []
    said = torch.zeros(len(found))
    for _ in range(min(_counted(count), len(found))):
        scores = balance * like - (1 - balance) * said
        scores[chosen] = -torch.inf
        chosen.append(int(scores.argmax()))
        said = (found @ found[chosen].T).amax(1)
    return sorted(chosen)


def written(model, tokenizer, text: str, count: int, length: int = 120, most: int = 1500) -> str:
    """Return what a chat model writes when asked for a summary, cut to ``count`` sentences.

    Nothing holds it to the text: it may leave out, repeat, or invent.

    Parameters
    ----------
    model, tokenizer
        As in :func:`lightcourse.applications.answer`.
    text : str
    count : int
        Sentences, at most.
    length : int
        New tokens, at most.
    most : int
        Tokens of the text that are read.
    """
    ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    if len(ids) > most:
        text = tokenizer.decode(ids[:most], clean_up_tokenization_spaces=False)
    asked = [{"role": "user", "content": ASKED.format(count=_counted(count), text=text)}]
    return " ".join(sentences("".join(answer(model, tokenizer, asked, length)))[:count])


def _counted(count):
    if count < 1:
        raise ValueError(f"count is {count}; at least 1 is wanted")
    return count
