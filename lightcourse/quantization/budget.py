"""Bits for each layer, so that the model fits into a budget of bytes and loses little.

Layers are not equally sensitive (HAWQ, Dong et al. 2019, arXiv 1905.03696). Each offers several
choices, one of which is taken: what it costs in bytes, and what it costs in quality. That is a
knapsack with several sizes of each thing.
"""

from collections.abc import Mapping

Choices = Mapping[str, Mapping[int, float]]


def choose_bits(losses: Choices, sizes: Choices, budget: float) -> dict[str, int]:
    """Choose the bits of each layer so that the sum of losses is the smallest within a budget.

    Exact: layer by layer, only those combinations are kept that no other one beats in both bytes
    and loss. It is as good as the losses are, and these leave out how layers play together.

    Parameters
    ----------
    losses : dict of str to dict of int to float
        For each layer and number of bits the loss that it adds, all else unchanged.
    sizes : dict of str to dict of int to float
        The same keys: bytes.
    budget : float
        Bytes of all layers together.

    Returns
    -------
    dict of str to int
        Bits by layer, as :func:`lightcourse.quantization.quantize_` takes them.

    Raises
    ------
    ValueError
        When the keys differ, a value is no finite number, or even the smallest choices exceed
        the budget.

    Examples
    --------
    >>> losses = {"a": {2: 9.0, 4: 1.0}, "b": {2: 2.0, 4: 1.0}}
    >>> choose_bits(losses, {"a": {2: 10, 4: 20}, "b": {2: 10, 4: 20}}, budget=30)
    {'a': 4, 'b': 2}
    """
    _check(losses, sizes, budget)
    best = [(0.0, 0.0, ())]  # bytes, loss, the bits so far
    for name in losses:
        longer = sorted(
            (used + sizes[name][bits], lost + losses[name][bits], (*chosen, bits))
            for used, lost, chosen in best
            for bits in losses[name]
        )
        best = list(_unbeaten(longer, budget - _smallest(sizes, after=name)))
    return dict(zip(losses, min(best, key=lambda one: one[1])[2], strict=True))


def choose_bits_greedily(losses: Choices, sizes: Choices, budget: float) -> dict[str, int]:
    """Choose bits step by step: from the most bytes down, each time where a byte costs least.

    What most tools do, in less time than :func:`choose_bits`, whose arguments it takes. It may
    miss the best choice, since a step is never taken back.

    Parameters
    ----------
    losses, sizes, budget
        As in :func:`choose_bits`.

    Returns
    -------
    dict of str to int

    Raises
    ------
    ValueError
        As in :func:`choose_bits`.
    """
    _check(losses, sizes, budget)
    chosen = {name: max(sizes[name], key=sizes[name].get) for name in sizes}
    while sum(sizes[name][bits] for name, bits in chosen.items()) > budget:
        steps = [
            (
                (losses[name][new] - losses[name][old]) / (sizes[name][old] - sizes[name][new]),
                name,
                new,
            )
            for name, old in chosen.items()
            for new in sizes[name]
            if sizes[name][new] < sizes[name][old]
        ]
        _, name, new = min(steps)
        chosen[name] = new
    return {name: chosen[name] for name in losses}


def _unbeaten(combinations, budget):
    """Keep those within the budget that lose less than all smaller ones; bytes ascend."""
    least = float("inf")
    for used, lost, chosen in combinations:
        if used <= budget and lost < least:
            least = lost
            yield used, lost, chosen


def _smallest(sizes, after=None):
    """Return the fewest bytes of the layers behind one, or of all."""
    names = list(sizes)
    return sum(
        min(sizes[name].values()) for name in names[names.index(after) + 1 if after else 0 :]
    )


def _check(losses, sizes, budget):
    if not losses or {n: set(c) for n, c in losses.items()} != {
        n: set(c) for n, c in sizes.items()
    }:
        raise ValueError("losses and sizes do not name the same layers and bits, or none")
    numbers = [value for part in (losses, sizes) for one in part.values() for value in one.values()]
    if not all(abs(value) < float("inf") for value in numbers):
        raise ValueError("losses or sizes hold NaN or infinity; finite numbers are wanted")
    if not all(losses.values()) or not (least := _smallest(sizes)) <= budget:
        raise ValueError(
            f"budget is {budget} bytes; with the fewest bits the layers take {least}, so at least "
            "so many are wanted"
        )
