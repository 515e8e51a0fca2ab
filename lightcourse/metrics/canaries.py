"""Whether a language model would give away a secret that stood in its training text."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from lightcourse.metrics.intervals import whole
from lightcourse.metrics.row_losses import UNLABELLED, losses

ROWS = 64  # of a batch


@dataclass(frozen=True)
class Exposure:
    """The place of a secret among all candidates, from the least surprising one.

    Parameters
    ----------
    rank : float
        1: the model finds the secret likelier than any other candidate. Candidates that it
        finds exactly as likely share the middle of their places.
    count : int
        Candidates, the secret among them.
    """

    rank: float
    count: int

    @property
    def bits(self) -> float:
        """How much guessing the model saves: log2 of the candidates, less log2 of the rank."""
        return math.log2(self.count) - math.log2(self.rank)

    @property
    def by_luck(self) -> float:
        """How often a secret that the model never saw would stand as far in front."""
        return min(1.0, self.rank / self.count)

    def __str__(self):
        place = f"place {self.rank:g} of {self.count:,}"
        return f"{self.bits:.1f} bits ({place}; by luck once in {1 / self.by_luck:,.0f})"


def exposure(model: nn.Module, candidates: Sequence[Sequence[int]], secret: int) -> Exposure:
    """Return how far in front the model puts a secret among candidates that look alike.

    Carlini et al. 2019, arXiv 1802.08232: put a canary, such as "my number is 4821", into the
    training text, and rank all numbers by how likely the model finds them. An unseen secret has
    1.4 bits on average, and log2 of the candidates is the most there is: with few candidates
    even a secret that is known by heart shows few bits.

    Parameters
    ----------
    model : nn.Module
        A causal language model.
    candidates : sequence of rows of int
        The tokens of each text, what stands before the secret included; at least 2 tokens. A
        longer text has more to foretell: texts of equally many tokens compare best.
    secret : int
        Which of them stood in the training text, from 0.

    Raises
    ------
    ValueError
        When there are fewer than two candidates, one has fewer than 2 tokens or stands twice,
        ``secret`` is none of them, or the model's loss is NaN.
    """
    rows = _rows(candidates)
    if not 0 <= whole("secret", secret) < len(rows):
        raise ValueError(f"secret is {secret}; 0..{len(rows) - 1}, one of them, is wanted")
    return _exposed(model, rows)[secret]


def exposures(model: nn.Module, candidates: Sequence[Sequence[int]]) -> list[Exposure]:
    """Return each candidate's :func:`exposure`, from one reading of all of them.

    Raises
    ------
    ValueError
        As :func:`exposure`.
    """
    return _exposed(model, _rows(candidates))


def _exposed(model, rows):
    found = losses(model, [_padded(rows[i : i + ROWS]) for i in range(0, len(rows), ROWS)])
    if found.isnan().any():
        raise ValueError("model finds a candidate's loss to be NaN; a number is wanted")
    ordered = found.sort().values
    less, upto = (torch.searchsorted(ordered, found, right=right) for right in (False, True))
    return [
        Exposure((a + b + 1) / 2, len(rows))
        for a, b in zip(less.tolist(), upto.tolist(), strict=True)
    ]


def _rows(candidates):
    rows = [tuple(torch.as_tensor(row).tolist()) for row in candidates]
    if len(rows) < 2 or min(map(len, rows)) < 2:
        lengths = f"{len(rows)} rows, the shortest of {min(map(len, rows), default=0)} tokens"
        raise ValueError(f"candidates has {lengths}; two or more rows of two or more are wanted")
    if len(set(rows)) < len(rows):
        raise ValueError("candidates holds one text twice; different ones are wanted")
    return rows


def _padded(rows):
    """Return a batch; what is filled up stands behind the text, where no token looks."""
    shape = len(rows), max(map(len, rows))
    ids, labels = torch.zeros(shape, dtype=torch.long), torch.full(shape, UNLABELLED)
    for place, row in enumerate(rows):
        ids[place, : len(row)] = labels[place, : len(row)] = torch.tensor(row)
    return {"input_ids": ids, "labels": labels}
