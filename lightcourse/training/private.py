"""DP-SGD as a loss for the one loop: no row moves the weights by more than its share."""

import math
from collections.abc import Callable

import torch
from torch import nn

from lightcourse.training.losses import model_loss
from lightcourse.training.updates import trainable_parameters


def private_loss(
    clip: float,
    noise: float,
    expected: float,
    loss: Callable[[nn.Module, dict], torch.Tensor] = model_loss,
) -> Callable[[nn.Module, dict], torch.Tensor]:
    """Return a loss for :func:`train` whose gradient hides each single row (DP-SGD).

    Abadi et al. 2016, arXiv 1607.00133. The gradient of each row is found alone, and scaled
    down to a norm of ``clip`` where it is longer; their sum gets normal noise of ``noise *
    clip`` on each number, and is divided by ``expected``. What :func:`train` does with it
    after that, its own clipping, AdamW, its decay, sees no row again and costs no privacy.
    :func:`epsilon` tells what was bought. It counts on this:

    - batches of ``data.poisson_batches``, in which each row stands by chance: with batches
      of a shuffled epoch the promise is another one;
    - a model that computes each row by itself (no batch norm);
    - other rows for ``evaluate``, and a choice of learning rate that did not look at these;
    - noise that nobody can repeat: who knows ``Recipe.seed`` can take it away again. For a
      course that is fine, for people's data it is not;
    - and that ``History.losses`` stay in the house: they are those of the rows, without noise.

    Parameters
    ----------
    clip : float
        The longest gradient of one row; above 0.
    noise : float
        Above 0; 1 is common. At 0 rows are clipped, and nothing is hidden.
    expected : float
        Rows of a batch on average, the rate of sampling times all rows. Not those that
        happen to be in a batch: their number would tell of the rows too.
    loss : callable
        ``loss(model, batch)`` of a batch of one row.

    Returns
    -------
    callable
        ``loss(model, batch)``: the mean loss of the rows, 0 of none.

    Raises
    ------
    ValueError
        When a number is out of its range; while training, when a row's gradient is not finite.
    """
    for name, number in (("clip", clip), ("expected", expected)):
        if not 0 < number < math.inf:
            raise ValueError(f"{name} is {number}; a number above 0 is wanted")
    if not 0 <= noise < math.inf:
        raise ValueError(f"noise is {noise}; a number from 0 is wanted")

    def noised(model, batch):
        parameters = list(trainable_parameters(model).values())
        total, losses = _sum_of_clipped(model, parameters, batch, clip, loss)
        pulled = torch.zeros(())
        for parameter, gradient in zip(parameters, total, strict=True):
            gradient = (gradient + noise * clip * torch.randn_like(gradient)) / expected
            pulled = pulled + (parameter * gradient).sum()  # whose gradient that is
        value = torch.tensor(losses).mean() if losses else torch.zeros(())
        return value + pulled - pulled.detach()

    return noised


def _sum_of_clipped(model, parameters, batch, clip, loss):
    """Return the sum of the rows' clipped gradients, and the rows' losses."""
    total, losses = [torch.zeros_like(p) for p in parameters], []
    for row in range(len(next(iter(batch.values())))):
        value = loss(model, {name: rows[row : row + 1] for name, rows in batch.items()})
        # A parameter that this row did not use, such as an expert, has no gradient.
        found = torch.autograd.grad(value, parameters, allow_unused=True)
        found = [
            torch.zeros_like(p) if g is None else g for g, p in zip(found, parameters, strict=True)
        ]
        norm = torch.linalg.vector_norm(torch.stack([g.norm() for g in found]))
        if not norm.isfinite():
            raise ValueError(
                f"row {row} of a batch has a gradient of norm {norm}; clipping wants a number"
            )
        torch._foreach_add_(total, found, alpha=min(1.0, clip / max(norm.item(), 1e-30)))
        losses.append(value.item())
    return total, losses
