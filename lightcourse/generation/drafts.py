"""Who proposes tokens to a larger model: another model, or the text itself.

A draft is a callable. ``draft(ids, count)`` looks at the text so far, a Tensor of int64 of shape
(t,), and returns at most ``count`` tokens that may follow, and the distributions that they were
drawn from: Tensors of shape (c,) and (c, vocabulary), c from 0 to ``count``. In place of the
distributions stands None where nothing was drawn: each token was certain.
"""

from collections.abc import Callable

import torch

from lightcourse.generation.choosing import certain, drawn
from lightcourse.generation.sessions import begin


class ModelDraft:
    """A smaller model that writes ahead: a student, a copy of the target in 4 bits.

    Parameters
    ----------
    model : nn.Module, or object with ``begin``
        As in :func:`stream`, in evaluation mode and of the target's vocabulary.
    distribution : callable
        From logits to the probabilities that a token is drawn from: :func:`certain`, or such
        as ``partial(probabilities, temperature=0.8)``. The closer to the target's, the more is
        accepted; what is written has the target's distribution with any.
    generator : torch.Generator, optional
        One of its own without it, of seed 1. It may be the target's, but not one of equal seed.
    """

    def __init__(
        self,
        model,
        distribution: Callable[[torch.Tensor], torch.Tensor] = certain,
        generator: torch.Generator | None = None,
    ):
        self.session, self.distribution, self.generator = begin(model), distribution, generator
        self._read = None  # the tokens that the session holds

    def __call__(self, ids: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return ``count`` tokens behind ``ids``, and their distributions.

        Parameters
        ----------
        ids : Tensor of int64, shape (t,)
            At least one. Of what the session holds, it forgets what is no longer part of them.
        count : int
            At least 1.
        """
        if self.generator is None:
            self.generator = torch.Generator(ids.device).manual_seed(1)
        self._rewind(ids)
        tokens, shares = [], []
        for _ in range(count):
            logits = self.session.read(ids[None, len(self._read) :])[0]
            self._read = ids
            shares.append(self.distribution(logits))
            tokens.append(drawn(shares[-1], self.generator))
            ids = torch.cat([ids, tokens[-1]])
        return torch.cat(tokens), torch.cat(shares)

    def _rewind(self, ids):
        """Forget what does not begin ``ids``, and its last token: one must be new to be read."""
        read = ids[:0] if self._read is None else self._read
        both = min(len(read), len(ids) - 1)
        same = int((read[:both] == ids[:both]).long().cumprod(0).sum())
        self.session.forget(len(read) - same)
        self._read = ids[:same]


def prompt_lookup(ids: torch.Tensor, count: int, ngram: int = 2) -> tuple[torch.Tensor, None]:
    """Return what followed the last ``ngram`` tokens when they stood in the text before.

    A draft without a model, for texts that repeat themselves: summaries, code that is edited,
    answers about a document (Saxena 2023, "Prompt Lookup Decoding"). Of several places the
    latest counts.

    Parameters
    ----------
    ids : Tensor of int64, shape (t,)
    count : int
        Tokens at most.
    ngram : int
        At least 1.

    Returns
    -------
    tokens : Tensor of int64, shape (c,)
        None where these tokens stood nowhere before: c is 0.
    None
        The tokens were certain.

    Raises
    ------
    ValueError
        When ``ngram`` is below 1.

    Examples
    --------
    >>> prompt_lookup(torch.tensor([7, 8, 9, 5, 7, 8]), count=2)[0].tolist()
    [9, 5]
    """
    if ngram < 1:
        raise ValueError(f"ngram is {ngram}; at least 1 is wanted")
    if len(ids) <= ngram:
        return ids[:0], None
    # The last place of all is where the tokens stand now: nothing follows them there.
    found = (ids.unfold(0, ngram, 1)[:-1] == ids[-ngram:]).all(dim=1).nonzero()
    if not len(found):
        return ids[:0], None
    begin = int(found[-1]) + ngram
    return ids[begin : begin + count], None
