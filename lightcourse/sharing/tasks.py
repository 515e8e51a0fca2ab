"""Which task the next batch is of."""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping

import torch

Batches = Callable[[int, int], Iterator[dict]]


def task_probabilities(sizes: Mapping[str, int], temperature: float = 1.0) -> dict[str, float]:
    """Return how often each task is drawn: in proportion to its size to the power of 1 / T.

    Arivazhagan et al. 2019 (arXiv 1907.05019) draw languages so. At temperature 1 each row counts
    the same, at ``math.inf`` each task does.

    Parameters
    ----------
    sizes : dict of str to int
        Rows of each task, at least 1.
    temperature : float
        Above 0; infinity is allowed.

    Returns
    -------
    dict of str to float
        They add up to 1.

    Raises
    ------
    ValueError
        When there is no task, one has no rows, or ``temperature`` is not above 0.

    Examples
    --------
    >>> task_probabilities({"large": 800, "small": 200})
    {'large': 0.8, 'small': 0.2}
    >>> task_probabilities({"large": 800, "small": 200}, math.inf)
    {'large': 0.5, 'small': 0.5}
    """
    if not sizes:
        raise ValueError("sizes is empty; at least one task is wanted")
    for task, size in sizes.items():
        if not 0 < size < math.inf:
            raise ValueError(f"sizes[{task!r}] is {size}; at least 1 row is wanted")
    if not temperature > 0:
        raise ValueError(f"temperature is {temperature}; a number above 0 is wanted")
    largest = max(sizes.values())  # divided by it, no power overflows
    weights = {task: (size / largest) ** (1 / temperature) for task, size in sizes.items()}
    return {task: weight / sum(weights.values()) for task, weight in weights.items()}


def mixed_batches(
    batches: Mapping[str, Batches], probabilities: Mapping[str, float] | None = None
) -> Batches:
    """Return a callable that gives batches of several tasks, one task a batch.

    Each task goes through its own epochs: all its rows come once before one comes again.

    Parameters
    ----------
    batches : dict of str to callable
        By the tasks' names, such as :func:`data.text_batches` makes them.
    probabilities : dict of str to float, optional
        How often each is drawn, such as :func:`task_probabilities` tells. Without them the tasks
        take turns, which gives each the same number of steps.

    Returns
    -------
    callable
        ``batches(epoch, seed)`` yields for ever, for tasks do not end together, dicts with ``task``
        and the task's own entries; the same ones for the same arguments. An ``epoch`` begins with
        that epoch of each task.

    Raises
    ------
    ValueError
        When there is no task, ``probabilities`` has other tasks or is no distribution; while
        drawing, when a task yields no batch, or one that has an entry "task" already.
    """
    if not batches:
        raise ValueError("batches is empty; at least one task is wanted")
    if probabilities is not None:
        _check_probabilities(probabilities, batches)

    def mixed(epoch, seed):
        streams = {task: _endless(task, own, epoch, seed) for task, own in batches.items()}
        for task in _order(list(batches), probabilities, epoch, seed):
            yield _named(task, next(streams[task]))

    return mixed


def _named(task, batch):
    if "task" in batch:
        raise ValueError(
            f"a batch of batches[{task!r}] has the entry 'task', {batch['task']!r}; batches "
            "without it are wanted, it is set here"
        )
    return {"task": task} | batch


def _check_probabilities(probabilities, batches):
    if probabilities.keys() != batches.keys():
        raise ValueError(
            f"probabilities names {sorted(probabilities)}; {sorted(batches)}, the tasks of "
            "batches, are wanted"
        )
    low, total = min(probabilities.values()), math.fsum(probabilities.values())
    if not (low >= 0 and math.isclose(total, 1, rel_tol=1e-6)):
        raise ValueError(
            f"probabilities is {dict(probabilities)}; numbers from 0 on that add up to 1 are wanted"
        )


def _order(tasks, probabilities, epoch, seed):
    """Return the tasks in the order of their batches, for ever."""
    if probabilities is None:
        return itertools.cycle(tasks)
    weights = torch.tensor([probabilities[task] for task in tasks], dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    return (tasks[torch.multinomial(weights, 1, generator=generator)] for _ in itertools.count())


def _endless(task, batches, epoch, seed):
    for number in itertools.count(epoch):
        empty = True
        for batch in batches(number, seed):
            empty = False
            yield batch
        if empty:
            raise ValueError(f"batches[{task!r}] gave no batch at all; at least one is wanted")
