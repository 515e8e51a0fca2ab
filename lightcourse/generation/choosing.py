"""From logits to the next token: the distribution, and what is drawn from it."""

import math
from collections.abc import Callable

import torch
from torch.nn import functional as F


def likeliest(logits: torch.Tensor) -> torch.Tensor:
    """Return the id of the largest of each row of logits: greedy decoding."""
    return logits.argmax(dim=-1)


def certain(logits: torch.Tensor) -> torch.Tensor:
    """Return the distribution of greedy decoding: 1 for the likeliest token, 0 for all others.

    Parameters
    ----------
    logits : Tensor of floats, shape (..., vocabulary)

    Returns
    -------
    Tensor of float32, shape (..., vocabulary)
    """
    return F.one_hot(likeliest(logits), logits.shape[-1]).float()


def probabilities(
    logits: torch.Tensor,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
) -> torch.Tensor:
    """Return the distribution that sampling draws from.

    The temperature comes first, then ``top_k``, then ``top_p``; what is left sums to 1 again.

    Parameters
    ----------
    logits : Tensor of floats, shape (..., vocabulary)
    temperature : float
        Above 0, and finite. Logits are divided by it: below 1 likely tokens get likelier.
    top_k : int, optional
        Exactly so many tokens stay, at least 1 (Fan et al. 2018, arXiv 1805.04833). Of equal
        ones those of the smaller id. Beyond the vocabulary all stay.
    top_p : float, optional
        The smallest set of tokens stays whose probability reaches it, above 0 and at most 1
        (nucleus sampling, Holtzman et al. 2019, arXiv 1904.09751). The likeliest always does.

    Returns
    -------
    Tensor of float32, shape (..., vocabulary)

    Raises
    ------
    ValueError
        When an argument is out of range.

    Examples
    --------
    >>> logits = torch.tensor([0.5, 0.3, 0.2]).log()
    >>> [round(p, 3) for p in probabilities(logits, top_k=2).tolist()]
    [0.625, 0.375, 0.0]
    """
    _check(temperature, top_k, top_p)
    logits = logits.float() / temperature
    if top_k is None and top_p is None:
        return logits.softmax(dim=-1)
    # Stable: of equal logits the smaller id comes first, on every machine.
    ordered, ids = logits.sort(dim=-1, descending=True, stable=True)
    kept = _truncated(ordered, top_k, top_p).softmax(dim=-1)
    return torch.zeros_like(kept).scatter(-1, ids, kept)


def _truncated(ordered, top_k, top_p):
    """Exclude tokens from logits that are ordered from the largest down."""
    if top_k is not None:
        place = torch.arange(ordered.shape[-1], device=ordered.device)
        ordered = ordered.masked_fill(place >= top_k, -torch.inf)
    if top_p is not None:
        shares = ordered.softmax(dim=-1)
        ahead = shares.cumsum(dim=-1) - shares
        # The first has nothing ahead of it: it stays.
        ordered = ordered.masked_fill(ahead >= top_p, -torch.inf)
    return ordered


def _check(temperature, top_k, top_p):
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature is {temperature}; a number above 0 is wanted")
    if top_k is not None and (top_k != int(top_k) or top_k < 1):
        raise ValueError(f"top_k is {top_k}; a whole number of at least 1 is wanted")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p is {top_p}; a number above 0 and at most 1 is wanted")


def sampled(
    temperature: float,
    generator: torch.Generator,
    top_k: int | None = None,
    top_p: float | None = None,
) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return what draws from :func:`probabilities`, an id a row.

    Parameters
    ----------
    temperature, top_k, top_p
        As in :func:`probabilities`.
    generator : torch.Generator
        On the device of the logits: torch's global one does not move. Texts that are written
        together share its dice.

    Raises
    ------
    ValueError
        When an argument is out of range.
    """
    _check(temperature, top_k, top_p)

    def choose(logits):
        return drawn(probabilities(logits, temperature, top_k, top_p), generator)

    return choose


def drawn(distribution: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Return an id drawn from each row of a distribution.

    Parameters
    ----------
    distribution : Tensor of floats, shape (n, vocabulary)
        Not negative; a row need not sum to 1.
    generator : torch.Generator
        On the device of the distribution.

    Returns
    -------
    Tensor of int64, shape (n,)
    """
    return torch.multinomial(distribution, 1, generator=generator).squeeze(-1)
