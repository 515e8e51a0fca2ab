"""A chat's answers: a history that fits the window, and a model that reads only what is new."""

from collections.abc import Callable, Iterable, Iterator

import torch

from lightcourse import generation
from lightcourse.generation.sessions import begin, vocabulary_of, window_of

ROLES = "user", "assistant"


def answer(
    model,
    tokenizer,
    messages: list[dict],
    length: int = 256,
    choose: Callable[[torch.Tensor], torch.Tensor] = generation.likeliest,
    stop: Iterable[str] = (),
) -> Iterator[str]:
    """Return an iterator of what a model answers to the last message, piece by piece.

    Turns that no longer fit the model's window are left out, the oldest first.

    Parameters
    ----------
    model : nn.Module, or object with ``begin``
        A causal language model that was tuned for chats. A :class:`Remembering` one reads only
        what is new.
    tokenizer : transformers tokenizer
        The model's own, with a chat template.
    messages : list of dict
        Each with ``role`` and ``content``: a system message or none, then the user's and the
        assistant's in turn; the last is the user's.
    length : int
        New tokens, at most.
    choose : callable
        As in :func:`lightcourse.generation.stream`: greedy, or what
        :func:`lightcourse.generation.sampled` returns for a generator with a seed.
    stop : iterable of str
        Words that end the answer and are never shown, in part or whole. The tokenizer's special
        tokens always are such words.

    Returns
    -------
    iterator of str
        No piece ends in half a character.

    Raises
    ------
    ValueError
        When ``messages`` are not as above, the last turn does not fit, or as
        :func:`lightcourse.generation.write`.
    """
    if isinstance(stop, str):
        raise ValueError(f"stop is the string {stop!r}; a list of strings is wanted")
    kept = fitting(tokenizer, messages, window_of(model) - length)
    words = [*stop, *tokenizer.all_special_tokens]
    return generation.write(model, tokenizer, prompt(tokenizer, kept), length, choose, words)


def prompt(tokenizer, messages: list[dict]) -> str:
    """Return messages in the form that the model was tuned on, up to where it answers."""
    return tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)


def fitting(tokenizer, messages: list[dict], most: float) -> list[dict]:
    """Return the system message and as many of the last turns as fit.

    A turn is a user's message and its answer. It stays whole or goes, the oldest first.

    Parameters
    ----------
    tokenizer, messages
        As in :func:`answer`.
    most : int
        Tokens of the prompt, what the template adds included.

    Raises
    ------
    ValueError
        When ``messages`` are not as in :func:`answer`, or the last turn alone does not fit.
    """
    _check(tokenizer, messages)
    system = [m for m in messages if m["role"] == "system"]
    users = [i for i, m in enumerate(messages) if m["role"] == "user"]
    for first in users:
        kept = system + messages[first:]
        text = prompt(tokenizer, kept)
        tokens = len(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
        if tokens <= most:
            return kept
    raise ValueError(
        f"messages: the last one and the system's make {tokens} tokens; {most} at most, the "
        "window less the answer's length, are wanted"
    )


def _check(tokenizer, messages):
    turns = [m["role"] for m in messages]
    turns = turns[1:] if turns[:1] == ["system"] else turns
    wanted = [ROLES[i % 2] for i in range(len(turns))]
    if turns != wanted or len(turns) % 2 == 0:
        raise ValueError(
            f"messages has the roles {[m['role'] for m in messages]}; a system's or none, then "
            "user's and assistant's in turn, the last a user's, are wanted"
        )
    for number, message in enumerate(messages):
        for word in tokenizer.all_special_tokens:
            if word in message["content"]:
                raise ValueError(
                    f"messages[{number}] holds {word}, which would end it for the model; plain "
                    "text is wanted"
                )


class Remembering:
    """A model that keeps what it read last, and of the next text reads only what differs.

    The histories of a chat begin alike, so each turn costs its own tokens alone. Once an old turn
    has been left out, all behind it stands elsewhere and is read anew.

    Parameters
    ----------
    model : nn.Module, or object with ``begin``
        Takes the model's place in :func:`answer` and :func:`lightcourse.generation.write`, for
        one text at a time.

    Attributes
    ----------
    held : list of int
        The tokens that it read.
    """

    def __init__(self, model):
        self.window, self.vocabulary = window_of(model), vocabulary_of(model)
        self.config, self.held = model.config, []
        self._session, self._begins = begin(model), True

    @property
    def length(self) -> int:
        """The tokens read."""
        return self._session.length

    def begin(self, mask: torch.Tensor | None = None) -> "Remembering":
        """Return itself: its next reading is the beginning of a text."""
        if mask is not None:
            raise ValueError("mask is given; None, one text without padding, is wanted")
        self._begins = True
        return self

    def read(self, new: torch.Tensor, keep: int = 1) -> torch.Tensor:
        """Read on, or begin a text; as :meth:`lightcourse.generation.TorchSession.read`."""
        if len(new) != 1:
            raise ValueError(f"new holds {len(new)} texts; one is wanted")
        if self._begins:
            new, self._begins = self._unread(new, keep), False
        # Noted before it is read: whoever interrupts leaves a session that holds fewer, never more.
        self.held = self.held[: self.length] + new[0].tolist()
        return self._session.read(new, keep)

    def _unread(self, new, keep):
        """Forget what differs; return what is to be read, of which ``keep`` logits are wanted."""
        held, ids = self.held[: self.length], new[0].tolist()
        most = min(len(held), max(len(ids) - keep, 0))
        same = next((i for i in range(most) if held[i] != ids[i]), most)
        self._session.forget(self.length - same)
        return new[:, same:]

    def forget(self, count: int) -> None:
        """Drop the last ``count`` tokens."""
        self._session.forget(count)
