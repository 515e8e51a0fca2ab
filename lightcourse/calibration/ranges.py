"""Ranges of the inputs of each layer: their ends, or a histogram's percentiles."""

from collections.abc import Collection, Iterable

import torch
from torch import nn

from lightcourse import layers
from lightcourse.calibration.observing import choose_layers, observe_inputs

BINS = 2048


def calibrate(
    model: nn.Module,
    batches: Iterable[dict],
    names: Collection[str] | None = None,
    percent: float = 100.0,
) -> dict[str, tuple[float, float]]:
    """Measure the range of the inputs of each linear layer over all tokens.

    Parameters
    ----------
    model, batches
        The model runs once over the batches, as
        :func:`lightcourse.calibration.observe_inputs` tells; padding does not count.
    names : collection of str, optional
        Layers to measure. Without it all linear layers, an output layer that shares its
        weight with an embedding table among them.
    percent : float
        100: the smallest and the largest value. Below, down to 50: a range that holds so
        much of the values, either end losing the same share. That is read off a histogram
        of 2,048 bins a layer, and exact to a bin: 1/512 of the largest size at most.

    Returns
    -------
    dict of str to (float, float)
        For each layer that ran, low and high; :func:`quantize_` takes it as
        ``activation_ranges``.

    Raises
    ------
    ValueError
        As ``observe_inputs``, or when ``percent`` is out of range, there is no linear
        layer, or ``names`` holds an unknown one.
    """
    check_percent(percent)
    model = layers.inside(model)
    found = [*layers.linear_layers(model), *layers.tied_layers(model)]
    found = {name: model.get_submodule(name) for name in found}
    chosen = choose_layers(model, found, names)
    if percent == 100:
        return observe_inputs(model, batches, chosen, _widen)
    counts = observe_inputs(model, batches, chosen, _count)
    return {name: histogram.inner_range(percent) for name, histogram in counts.items()}


def check_percent(percent: float) -> None:
    """Raise ``ValueError`` where ``percent`` does not lie above 50 and up to 100."""
    if not 50 < percent <= 100:
        raise ValueError(f"percent is {percent}; more than 50 and at most 100 is wanted")


def _widen(ends, rows):
    low, high = (end.item() for end in rows.aminmax())
    return (low, high) if ends is None else (min(low, ends[0]), max(high, ends[1]))


def _count(histogram, rows):
    histogram = histogram or _Histogram()
    histogram.add(rows)
    return histogram


class _Histogram:
    """Counts of values between ±limit, in bins that double their width for larger ones."""

    def __init__(self):
        self.counts, self.limit, self.ends = torch.zeros(BINS, dtype=torch.int64), 0.0, None

    def add(self, values):
        """Count a batch of values."""
        self.ends = _widen(self.ends, values)
        self._reach(max(-self.ends[0], self.ends[1]))
        for part in values.flatten().split(2**24):  # histc counts in float32: so far it is exact
            self.counts += torch.histc(part, BINS, -self.limit, self.limit).to(self.counts)

    def _reach(self, size):
        """Double the bins until they reach as far as ``size``: two by two they become one."""
        self.limit = self.limit or size or 1.0
        while self.limit < size:
            merged = self.counts.view(-1, 2).sum(1)
            self.counts = torch.zeros_like(self.counts)
            self.counts[BINS // 4 : -BINS // 4] = merged
            self.limit *= 2

    def inner_range(self, percent):
        """Return the bins' edges between which ``percent`` of the values lie."""
        cut = self.counts.sum() * (100 - percent) / 200
        below = self.counts.cumsum(0)
        first = int((below <= cut).sum())
        last = BINS - int((below[-1] - below + self.counts <= cut).sum())
        width = 2 * self.limit / BINS
        low, high = first * width - self.limit, last * width - self.limit
        return max(low, self.ends[0]), min(high, self.ends[1])
