"""How long a call takes."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Latency:
    """The time of one call, over many: median and spread (interquartile range) in seconds."""

    median: float
    spread: float
    repeats: int
    threads: int

    def __str__(self):
        return (
            f"{self.median * 1e3:.2f} ms ± {self.spread * 1e3 / 2:.2f} "
            f"(median of {self.repeats}, {self.threads} thread{'s' * (self.threads > 1)})"
        )


def latency(function: Callable[[], object], repeats: int = 20, warmup: int = 3) -> Latency:
    """Time ``function()`` without gradients, after calls that warm it up.

    Parameters
    ----------
    function : callable
        Takes no argument; must do the same work at each call.
    repeats, warmup : int
        Timed calls (at least 2), and untimed ones before them.

    Raises
    ------
    ValueError
        When ``repeats`` is below 2 or ``warmup`` below 0.
    """
    return latencies({"": function}, repeats, warmup)[""]


def latencies(
    functions: dict[str, Callable[[], object]], repeats: int = 20, warmup: int = 3
) -> dict[str, Latency]:
    """Time several functions in turns, so that a machine that slows down slows all alike.

    Parameters
    ----------
    functions : dict of str to callable
        Each round calls every one of them once.
    repeats, warmup : int
        Timed and untimed rounds, as in :func:`latency`.

    Raises
    ------
    ValueError
        As :func:`latency`, or when there is no function.
    """
    if not functions:
        raise ValueError("functions is empty; at least one is wanted")
    if repeats < 2 or warmup < 0:
        raise ValueError(f"repeats is {repeats} and warmup {warmup}; at least 2 and 0 are wanted")
    times = {name: [] for name in functions}
    with torch.inference_mode():
        for _ in range(warmup + repeats):
            for name, function in functions.items():
                start = time.perf_counter()
                function()
                times[name].append(time.perf_counter() - start)
    return {name: _summary(values[warmup:]) for name, values in times.items()}


def _summary(times):
    low, median, high = statistics.quantiles(times, n=4, method="inclusive")
    return Latency(median, high - low, len(times), torch.get_num_threads())
