"""Batches in which each row stands by chance, as privacy wants them."""

from collections.abc import Callable, Iterator

import torch

from lightcourse.data.batches import generator_of, rows_of


def poisson_batches(
    tensors: dict[str, torch.Tensor], rate: float
) -> Callable[[int, int], Iterator[dict]]:
    """Return a callable that gives batches in which each row stands with the same chance.

    Batches are of different sizes, a row may stand in two that follow each other or in none of
    an epoch, and a batch may be empty. Whether one row is there tells nothing of the others: the
    bookkeeping of DP-SGD (``training.epsilon``) rests on that.

    Parameters
    ----------
    tensors : dict of str to Tensor
        All with the same number of rows, at least 1.
    rate : float
        The chance; above 0, at most 1. An epoch has 1 / rate batches, rounded.

    Returns
    -------
    callable
        ``batches(epoch, seed)`` yields dicts with the keys of ``tensors``, the same ones for
        the same arguments.

    Raises
    ------
    ValueError
        When the tensors have no rows or not equally many, or ``rate`` is out of its range.
    """
    count = rows_of(tensors)
    if not 0 < rate <= 1:
        raise ValueError(f"rate is {rate}; a number above 0, at most 1, is wanted")

    def batches(epoch, seed):
        generator = generator_of(epoch, seed)
        for _ in range(round(1 / rate)):
            chosen = (torch.rand(count, generator=generator) < rate).nonzero()[:, 0]
            yield {name: tensor[chosen] for name, tensor in tensors.items()}

    return batches
