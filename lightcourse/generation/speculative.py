"""Speculative decoding: a draft proposes several tokens, the target judges them in one call.

What is written has the target's own distribution, whatever the draft proposes (Leviathan et
al. 2022, arXiv 2211.17192; Chen et al. 2023, arXiv 2302.01318).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from lightcourse.generation.choosing import certain, drawn
from lightcourse.generation.sessions import begin
from lightcourse.generation.streams import check_length, check_prompts, evaluating


@dataclass(frozen=True)
class Speculation:
    """What was written, and how.

    Parameters
    ----------
    ids : Tensor of int64, shape (1, prompt + length)
    drafted : int
        Tokens that the draft proposed.
    judged : int
        Of these, the ones up to the first that was refused: what came behind it was lost.
    accepted : int
    calls : int
        How often the target was asked.
    """

    ids: torch.Tensor
    drafted: int
    judged: int
    accepted: int
    calls: int

    @property
    def acceptance(self) -> float:
        """The share of judged tokens that were accepted; NaN where nothing was proposed."""
        return self.accepted / self.judged if self.judged else math.nan


@torch.no_grad()
def speculate(
    target,
    draft: Callable[[torch.Tensor, int], tuple[torch.Tensor, torch.Tensor | None]],
    prompts: torch.Tensor,
    length: int,
    distribution: Callable[[torch.Tensor], torch.Tensor] = certain,
    lookahead: int = 4,
    generator: torch.Generator | None = None,
    cache=None,
) -> Speculation:
    """Return a prompt with ``length`` tokens as the target would write them, in fewer calls.

    A proposed token x is accepted with probability min(1, p(x) / q(x)), where p is the target's
    distribution and q the draft's. Where one is refused, its place is drawn from the positive
    part of p - q; where all are accepted, the target's call gives one more.

    With :func:`certain` these are the very tokens of greedy decoding. But several positions in
    one call are summed in another order than one by one: where two tokens are likely alike up
    to float32's rounding, the texts may part.

    Parameters
    ----------
    target : nn.Module, or object with ``begin``
        As in :func:`stream`. It is asked in evaluation mode, and unchanged.
    draft : callable
        :class:`ModelDraft`, :func:`prompt_lookup`, or any other of that form:
        :mod:`lightcourse.generation.drafts`.
    prompts : Tensor of int64, shape (1, prompt)
        One text: several would be accepted to different lengths.
    length : int
        New tokens, at least 1.
    distribution : callable
        From the target's logits, shape (t, vocabulary), to the probabilities that a token is
        drawn from: :func:`certain`, or such as ``partial(probabilities, temperature=0.8)``.
    lookahead : int
        Tokens that the draft proposes at once, at least 1.
    generator : torch.Generator, optional
        One of its own without it, of seed 0. It may be the draft's, but not one of equal seed:
        what is judged must not depend on the dice that judge it.
    cache : transformers.Cache, optional
        Of the target, as in :func:`begin`. It must be able to forget ``lookahead`` tokens.

    Returns
    -------
    Speculation

    Raises
    ------
    ValueError
        When the prompt is none, or none of a single text; ``length`` or ``lookahead`` is below
        1; prompt + length exceeds the target's window, or the draft's; the draft proposes
        more than it was asked for, or from another vocabulary; a cache cannot forget.
    """
    _check(target, prompts, length, lookahead)
    generator = generator or torch.Generator(prompts.device).manual_seed(0)
    ids, end, counts = prompts[0], prompts.shape[1] + length, [0, 0, 0, 0]
    with evaluating(target):
        session = begin(target, cache=cache)
        while len(ids) < end:
            # The target's own token comes last: it needs a place, too.
            tokens, shares = _proposed(draft, ids, min(lookahead, end - len(ids) - 1))
            new = torch.cat([ids, tokens])[None, session.length :]
            own = distribution(session.read(new, len(tokens) + 1)[0])
            count, last = judge(own, tokens, _shares(tokens, shares, own), generator)
            session.forget(len(tokens) - count)
            ids = torch.cat([ids, tokens[:count], last])
            now = (len(tokens), min(count + 1, len(tokens)), count, 1)
            counts = [sum(pair) for pair in zip(counts, now, strict=True)]
    return Speculation(ids[None], *counts)


def _proposed(draft, ids, count):
    if not count:
        return ids[:0], None
    tokens, shares = draft(ids, count)
    if len(tokens) > count:
        raise ValueError(f"draft proposes {len(tokens)} tokens; {count} at most are wanted")
    return tokens, shares


def judge(
    own: torch.Tensor,
    tokens: torch.Tensor,
    shares: torch.Tensor,
    generator: torch.Generator,
) -> tuple[int, torch.Tensor]:
    """Return how many proposed tokens are accepted, and the token that follows them.

    Parameters
    ----------
    own : Tensor of floats, shape (c + 1, vocabulary)
        The target's distributions, at each proposed token and behind the last one.
    tokens : Tensor of int64, shape (c,)
    shares : Tensor of floats, shape (c, vocabulary)
        The draft's distributions, that the tokens were drawn from.
    generator : torch.Generator

    Returns
    -------
    int
        From 0 to c.
    Tensor of int64, shape (1,)
    """
    at = tokens[:, None]
    kept = accepts(own[:-1].gather(1, at), shares.gather(1, at), generator)
    count = int(kept.flatten().long().cumprod(0).sum())
    left = own[count]
    if count < len(tokens):
        left = (left - shares[count]).clamp(min=0)
        # Nothing is left only where both are equal up to rounding: then either will do.
        left = left if left.any() else own[count]
    return count, drawn(left[None], generator)


def accepts(p: torch.Tensor, q: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Accept tokens of probability q at the draft and p at the target, as often as min(1, p / q).

    Parameters
    ----------
    p, q : Tensor of floats, of one shape
    generator : torch.Generator

    Returns
    -------
    Tensor of bool, of that shape
    """
    return torch.rand(p.shape, generator=generator, device=p.device) * q < p


def expected_speedup(acceptance: float, lookahead: int, cost: float) -> float:
    """Return how many times sooner a text is written, as the theory has it.

    Of a call of the target come (1 - a^(g + 1)) / (1 - a) tokens on average, in the time of
    g · c + 1 calls (Leviathan et al. 2022, arXiv 2211.17192, theorem 3.8). It takes each token
    to be accepted as often as every other, and g + 1 tokens to be read in the time of one.

    Parameters
    ----------
    acceptance : float
        a, from 0 to 1: :attr:`Speculation.acceptance`.
    lookahead : int
        g, at least 1.
    cost : float
        c, the time of a call of the draft over that of the target; 0 or more.

    Returns
    -------
    float
        Below 1 where it is slower.

    Raises
    ------
    ValueError
        When an argument is out of range.

    Examples
    --------
    >>> round(expected_speedup(0.8, 4, 0.1), 2)
    2.4
    """
    if not 0 <= acceptance <= 1:
        raise ValueError(f"acceptance is {acceptance}; a number from 0 to 1 is wanted")
    if lookahead < 1:
        raise ValueError(f"lookahead is {lookahead}; at least 1 is wanted")
    if not 0 <= cost < math.inf:
        raise ValueError(f"cost is {cost}; a number of 0 or more is wanted")
    tokens = sum(acceptance**power for power in range(lookahead + 1))
    return tokens / (lookahead * cost + 1)


def _check(target, prompts, length, lookahead):
    check_prompts(target, prompts)
    if len(prompts) != 1:
        raise ValueError(f"prompts holds {len(prompts)} texts; one is wanted")
    check_length(target, prompts.shape[1], length)
    if lookahead < 1:
        raise ValueError(f"lookahead is {lookahead}; at least 1 is wanted")


def _shares(tokens, shares, own):
    """Return the draft's distributions; where it was certain, 1 for each token."""
    if shares is None:
        return F.one_hot(tokens, own.shape[-1]).to(own.dtype)
    if shares.shape[-1] != own.shape[-1]:
        raise ValueError(
            f"draft knows {shares.shape[-1]} tokens; {own.shape[-1]}, the target's vocabulary, "
            "are wanted"
        )
    return shares
