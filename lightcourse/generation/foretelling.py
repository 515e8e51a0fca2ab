"""How well a session foretells a text: what a smaller cache costs."""

import torch
from torch.nn import functional as F


def surprise(session, ids: torch.Tensor, step: int = 1) -> float:
    """Return the mean negative log-likelihood of each token but the first, in nats.

    As :func:`lightcourse.metrics.cross_entropy`, but read through a session's cache, ``step``
    tokens at a time: what a cache rounds or drops is missing for all later tokens.

    Parameters
    ----------
    session : session
        That has read nothing, such as ``begin(model, cache=…)``.
    ids : Tensor of int64, shape (n, t)
        Texts of one length, of at least 2 tokens.
    step : int
        At least 1: as in generation. More is quicker, and kinder to the cache: the tokens of a
        step see each other as they are.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        When the texts are too short, too long for the model's window, or ``step`` is below 1.
    """
    if ids.ndim != 2 or ids.shape[1] < 2 or not len(ids):
        raise ValueError(f"ids has shape {tuple(ids.shape)}; (n, 2 or more) is wanted")
    if step < 1:
        raise ValueError(f"step is {step}; at least 1 is wanted")
    total, wanted = 0.0, ids[:, 1:].split(step, dim=1)
    for new, next_ones in zip(ids[:, :-1].split(step, dim=1), wanted, strict=True):
        logits = session.read(new, keep=new.shape[1])
        total += F.cross_entropy(logits.flatten(0, 1), next_ones.flatten(), reduction="sum").item()
    return total / ids[:, 1:].numel()
