"""Text that appears while it is written: whole characters, and no word of those that end it."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice, takewhile

import torch
from torch import nn

from lightcourse.generation.choosing import likeliest
from lightcourse.generation.streams import check_length, check_prompts, stream

UNFINISHED = "\ufffd"  # what decoders write for bytes that make no character, or none yet


def write(
    model: nn.Module,
    tokenizer,
    prompt: str,
    length: int,
    choose: Callable[[torch.Tensor], torch.Tensor] = likeliest,
    stop: Iterable[str] = (),
    cache=None,
) -> Iterator[str]:
    """Return an iterator of the text that follows a prompt, piece by piece.

    The pieces together are the text. None ends in half a character. The text ends before the
    first of the ``stop`` words, before the tokenizer's end token, or after ``length`` tokens.

    Parameters
    ----------
    model, choose, cache
        As in :func:`stream`.
    tokenizer : transformers tokenizer
        The model's own.
    prompt : str
        As the model shall read it: what a chat template or a start token adds stands in it.
    length : int
        New tokens, at most; at least 1.
    stop : iterable of str
        Words that end the text and are not part of it, wherever tokens begin and end. What
        may become one is held back until that is clear.

    Returns
    -------
    iterator of str

    Raises
    ------
    ValueError
        When the prompt has no token, ``stop`` is one string or holds an empty one, ``length``
        is below 1, or prompt + length exceeds the model's window.

    Examples
    --------
    >>> from lightcourse import models
    >>> model, tokenizer = models.load_tiny_lm("student"), models.load_tiny_tokenizer()
    >>> "".join(write(model, tokenizer, "The United", 6, stop=["."]))
    ' States'
    """
    stop = _checked_words(stop)
    ids = tokenizer(prompt, add_special_tokens=False, verbose=False)["input_ids"]
    prompts = torch.tensor([ids], dtype=torch.int64)
    check_prompts(model, prompts)
    check_length(model, len(ids), length)
    tokens = map(int, islice(stream(model, prompts, choose, cache=cache), length))
    tokens = takewhile(lambda token: token != tokenizer.eos_token_id, tokens)
    return before_stop(characters(tokenizer, ids, tokens), stop)


def _checked_words(stop):
    if isinstance(stop, str):
        raise ValueError(f"stop is the string {stop!r}; a list of strings is wanted")
    stop = list(stop)
    if "" in stop:
        raise ValueError("stop holds an empty string; words of at least one character are wanted")
    return stop


def characters(tokenizer, before: Sequence[int], tokens: Iterable[int]) -> Iterator[str]:
    """Yield the text of tokens as soon as its last character is whole.

    Parameters
    ----------
    tokenizer : transformers tokenizer
    before : sequence of int
        The tokens before: a tokenizer may write one differently at a text's beginning.
    tokens : iterable of int

    Yields
    ------
    str
        Not empty. What never becomes a character is yielded as U+FFFD, at the latest at the end.
    """
    old, new, piece = list(before), [], ""
    for token in tokens:
        new.append(token)
        piece = _decode(tokenizer, old + new)[len(_decode(tokenizer, old)) :]
        if piece and not piece.endswith(UNFINISHED):
            yield piece
            old, new, piece = new, [], ""
    if piece:
        yield piece


def _decode(tokenizer, ids):
    return tokenizer.decode(ids, clean_up_tokenization_spaces=False)


def before_stop(pieces: Iterable[str], stop: Sequence[str]) -> Iterator[str]:
    """Yield a text's pieces up to the first stop word, which may lie across them.

    Parameters
    ----------
    pieces : iterable of str
    stop : sequence of str
        None empty. Of words that end at the same place the longest counts.

    Yields
    ------
    str
        Not empty. What may become a stop word is held back until that is clear.

    Examples
    --------
    >>> list(before_stop(["one tw", "o th", "ree"], ["two", "three"]))
    ['one ']
    """
    held = ""
    for piece in pieces:
        held += piece
        starts = [(held.find(word) + len(word), held.find(word)) for word in stop if word in held]
        if starts:
            held = held[: min(starts)[1]]
            break
        cut = len(held) - _begun(held, stop)
        if cut:
            yield held[:cut]
        held = held[cut:]
    if held:
        yield held


def _begun(text, stop):
    """Return how many of the last characters may be the beginning of a stop word."""
    begun = (n for word in stop for n in range(1, len(word)) if text.endswith(word[:n]))
    return max(begun, default=0)
