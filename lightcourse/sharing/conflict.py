"""Whether tasks pull the weights that they share into one direction."""

import itertools
from collections.abc import Callable, Mapping

import torch
from torch import nn

from lightcourse import layers
from lightcourse.training import model_loss


def gradient_cosines(
    model: nn.Module,
    batches: Mapping[str, dict],
    loss: Callable[[nn.Module, dict], torch.Tensor] = model_loss,
) -> dict[tuple[str, str], float]:
    """Return the cosine between the gradients of each two tasks, on the weights they share.

    Below 0 a step for the one undoes what the other learned: Yu et al. 2020 (arXiv 2001.06782)
    call that a conflict. Two batches of one task show what to compare with: they are not at 1.

    Parameters
    ----------
    model : nn.Module
        Asked in evaluation mode, without dropout. Left as it was, its gradients too, and so is
        torch's random generator, from which a loss may draw.
    batches : dict of str to dict
        By any names, a batch of each task, of many rows: small ones tell more of their rows than
        of the task.
    loss : callable
        As in :func:`training.train`.

    Returns
    -------
    dict of (str, str) to float
        From -1 to 1, for each pair in the order of ``batches``. Of the trainable parameters those
        count that every batch's loss depends on; heads of their own do not.

    Raises
    ------
    ValueError
        When there are less than two batches, they share no trainable parameter, or a gradient is
        zero or not finite.
    """
    if len(batches) < 2:
        raise ValueError(f"batches holds {list(batches)}; at least two batches are wanted")
    parameters = [p for p in model.parameters() if p.requires_grad]
    with layers.evaluating(model), torch.enable_grad(), torch.random.fork_rng(devices=[]):
        found = {name: _gradients(loss(model, b), parameters) for name, b in batches.items()}
    shared = [all(g is not None for g in parts) for parts in zip(*found.values(), strict=True)]
    if not any(shared):
        raise ValueError(f"{list(batches)} share no trainable parameter; at least one is wanted")
    directions = {name: _direction(name, found.pop(name), shared) for name in batches}
    pairs = itertools.combinations(batches, 2)
    return {(a, b): (directions[a] @ directions[b]).clamp(-1, 1).item() for a, b in pairs}


def _gradients(value, parameters):
    """Return the gradient of each parameter, ``None`` where the value does not depend on it."""
    if not parameters or not value.requires_grad:
        return [None] * len(parameters)
    return torch.autograd.grad(value, parameters, allow_unused=True)


def _direction(name, gradients, shared):
    """Return the gradient on what is shared as one vector of length 1."""
    chosen = itertools.compress(gradients, shared)
    whole = torch.cat([gradient.flatten().double() for gradient in chosen])
    length = whole.norm()
    if not 0 < length < torch.inf:
        raise ValueError(f"the gradient of {name!r} has length {length:.3g}; it has no direction")
    return whole / length
