"""Recommendation: a split by time, popularity to be better than, vectors of users and items."""

import torch


def leave_last_out(users: torch.Tensor, times: torch.Tensor, held: int = 1) -> torch.Tensor:
    """Return which ratings to hold out: the last of each user, by time.

    Whoever has no more than ``held`` ratings keeps them all: without a past there is nothing to
    recommend from. Of equal times the row that stands later is the later one. Other users'
    ratings may still be later than a held one; only a split at one moment would prevent that.

    Parameters
    ----------
    users : Tensor of shape (ratings,)
        Integers, whose rating each is.
    times : Tensor of shape (ratings,)
    held : int
        How many of each user, at least 1.

    Returns
    -------
    BoolTensor of shape (ratings,)
        True where a rating is held out.

    Raises
    ------
    ValueError
        When the two are not equally long rows, or ``held`` is below 1.

    Examples
    --------
    >>> leave_last_out(torch.tensor([0, 0, 0, 1, 2, 2]), torch.tensor([5, 9, 7, 1, 2, 3])).int()
    tensor([0, 1, 0, 0, 0, 1], dtype=torch.int32)
    """
    users, times = torch.as_tensor(users), torch.as_tensor(times)
    if users.ndim != 1 or users.shape != times.shape:
        raise ValueError(
            f"users has shape {tuple(users.shape)} and times {tuple(times.shape)}; "
            "two equally long rows are wanted"
        )
    if held < 1:
        raise ValueError(f"held is {held}; 1 or more is wanted")
    order = times.argsort(stable=True)
    order = order[users[order].argsort(stable=True)]  # by user, and for each by time
    _, counts = users[order].unique_consecutive(return_counts=True)
    left = counts.cumsum(0).repeat_interleave(counts) - torch.arange(len(users))
    last = torch.zeros(len(users), dtype=torch.bool)
    last[order] = (left <= held) & (counts > held).repeat_interleave(counts)
    return last


def popularity(items: torch.Tensor, count: int) -> torch.Tensor:
    """Return how often each item was chosen: int64 of shape (count,). Count training rows alone.

    The baseline of any recommendation, and hard to beat (Cremonesi et al. 2010,
    doi:10.1145/1864708.1864721).

    Raises
    ------
    ValueError
        When ``items`` is no row of integers from 0 to ``count`` - 1.

    Examples
    --------
    >>> popularity(torch.tensor([2, 0, 2]), 4)
    tensor([1, 0, 2, 0])
    """
    items = torch.as_tensor(items)
    if items.ndim != 1 or items.is_floating_point():
        shape = f"{tuple(items.shape)} and dtype {items.dtype}"
        raise ValueError(f"items has shape {shape}; one row of integers is wanted")
    if len(items) and not 0 <= items.min() <= items.max() < count:
        raise ValueError(f"items spans {items.min()}..{items.max()}; 0 to {count - 1} is wanted")
    return items.bincount(minlength=count)


def factorize(
    seen: torch.Tensor, width: int, steps: int = 10, weight: float = 2.0, decay: float = 30.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return vectors of users and items whose products tell what was chosen.

    Alternating least squares for choices without grades (Hu, Koren & Volinsky 2008,
    doi:10.1109/ICDM.2008.22): of each pair the product shall be 1 where the user chose the item
    and 0 where not, and what was chosen weighs ``1 + weight`` times as much. With one side's
    vectors held, the other side's have a closed form.

    Parameters
    ----------
    seen : BoolTensor of shape (users, items)
        What each user chose, in training.
    width : int
        Numbers in each vector.
    steps : int
        How often both sides are solved for.
    weight, decay : float
        The weight of what was chosen, and that of the squares of the vectors. As given here they
        found most of what was held back for choosing in MovieLens 100K, of widths from 8 to 64.

    Returns
    -------
    tuple of Tensor
        float32 of shape (users, width) and (items, width). The first items are drawn from torch's
        generator: seed it.

    Raises
    ------
    ValueError
        When ``seen`` is no matrix of bool, or width, steps, weight or decay is not above 0.
    """
    if seen.dtype != torch.bool or seen.ndim != 2 or not seen.numel():
        shape = f"{tuple(seen.shape)} and dtype {seen.dtype}"
        raise ValueError(f"seen has shape {shape}; a filled matrix of bool is wanted")
    for name, value in {"width": width, "steps": steps, "weight": weight, "decay": decay}.items():
        if not value > 0:
            raise ValueError(f"{name} is {value}; a number above 0 is wanted")
    chosen, items = seen.float(), torch.randn(seen.shape[1], width) / width**0.5
    for _ in range(steps):
        users = _solved(chosen, items, weight, decay)
        items = _solved(chosen.T, users, weight, decay)
    return users, items


def _solved(chosen, others, weight, decay):
    """Return the best vectors of one side, given those of the other: a small system a row."""
    width = others.shape[1]
    outer = (others[:, :, None] * others[:, None]).flatten(1)
    systems = (weight * chosen @ outer).unflatten(1, (width, width))
    systems = systems + others.T @ others + decay * torch.eye(width)
    return torch.linalg.solve(systems, (1 + weight) * chosen @ others)


def recommend(
    users: torch.Tensor, items: torch.Tensor, seen: torch.Tensor, k: int = 10
) -> torch.Tensor:
    """Return for each user the ``k`` unseen items of the largest products, the best first.

    Popularity is a case of it: a column of ones for users, and the counts as items of width 1. Of
    equal products the item of the smaller number comes first.

    Parameters
    ----------
    users : Tensor of shape (users, width)
    items : Tensor of shape (items, width)
    seen : BoolTensor of shape (users, items)
        What is not recommended any more.
    k : int

    Returns
    -------
    Tensor of shape (users, k)
        int64 numbers of items.

    Raises
    ------
    ValueError
        When shapes do not fit, a number is not finite, or a user has fewer than ``k`` unseen items.

    Examples
    --------
    >>> users, items = torch.tensor([[1.0], [-1.0]]), torch.tensor([[3.0], [1.0], [2.0]])
    >>> recommend(users, items, torch.tensor([[True, False, False], [False, False, False]]), 2)
    tensor([[2, 1],
            [1, 2]])
    """
    if users.ndim != 2 or items.ndim != 2 or users.shape[1] != items.shape[1]:
        shapes = f"{tuple(users.shape)} and items {tuple(items.shape)}"
        raise ValueError(f"users has shape {shapes}; two matrices of equal width are wanted")
    if seen.dtype != torch.bool or seen.shape != (len(users), len(items)):
        raise ValueError(
            f"seen has shape {tuple(seen.shape)} and dtype {seen.dtype}; "
            f"bool of shape {(len(users), len(items))} is wanted"
        )
    fewest = int((~seen).sum(1).min()) if len(seen) else k
    if not 1 <= k <= fewest:
        raise ValueError(f"k is {k}; 1 to {fewest}, the fewest unseen items of a user, is wanted")
    scores = users @ items.T
    if not scores.isfinite().all():
        raise ValueError("users or items holds NaN or infinity; finite numbers are wanted")
    scores = scores.masked_fill(seen, -torch.inf)
    return scores.sort(dim=1, descending=True, stable=True).indices[:, :k]


def coverage(lists: torch.Tensor, count: int) -> float:
    """Return the share of all ``count`` items that stand in at least one list.

    Raises
    ------
    ValueError
        As :func:`popularity`, for the numbers in ``lists``; or when there is none.

    Examples
    --------
    >>> coverage(torch.tensor([[0, 1], [0, 2]]), 4)
    0.75
    """
    if not lists.numel():
        raise ValueError(f"lists has shape {tuple(lists.shape)}; at least one item is wanted")
    return (popularity(lists.flatten(), count) > 0).double().mean().item()


def tail_share(lists: torch.Tensor, counts: torch.Tensor, head: float = 0.2) -> float:
    """Return the share of recommendations from the long tail, all but the most popular items.

    Parameters
    ----------
    lists : Tensor of shape (users, k)
        Numbers of items; or any other choices, such as the held out ones, to compare with.
    counts : Tensor of shape (items,)
        How often each item was chosen in training.
    head : float
        Which share of the items is the head, 0 to 1; rounded to whole items.

    Raises
    ------
    ValueError
        As :func:`coverage`, or when ``head`` is not between 0 and 1.

    Examples
    --------
    >>> tail_share(torch.tensor([[0, 1], [0, 2]]), torch.tensor([9, 1, 1, 0, 0]))
    0.5
    """
    if not 0 <= head <= 1:
        raise ValueError(f"head is {head}; a share from 0 to 1 is wanted")
    coverage(lists, len(counts))
    order = counts.sort(descending=True, stable=True).indices
    tail = torch.ones(len(counts), dtype=torch.bool)
    tail[order[: round(head * len(counts))]] = False
    return tail[lists].double().mean().item()
