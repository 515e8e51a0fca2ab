"""Timing in turns: a machine that slows down slows every contestant alike."""

import gc
import itertools
import random
import statistics
import time

from benchmarks.workers import Failed

TURN = 2e-3  # seconds of timed calls a turn, at least one call
LONG = 50e-3  # calls from here on need no untimed call before them


class Contestant:
    """A list of calls, one for each copy of the weight, timed where they are made.

    Parameters
    ----------
    calls : list of callables
    settle : bool
        Wait after each turn until no thread of it is left spinning.
    """

    def __init__(self, calls, settle):
        for call in calls:  # touch every copy once
            call()
        self.calls, self.settle = itertools.cycle(calls), settle
        # The shortest of three: one alone may hold what a library does once, for all its threads.
        self.estimate = min(timed(next(self.calls)) for _ in range(3))

    def take_a_turn(self) -> list[float]:
        """Make one untimed call, which wakes the library's threads, then some timed ones."""
        gc.disable()
        try:
            if self.estimate < LONG:
                next(self.calls)()
            count = max(1, min(50, int(TURN / self.estimate)))
            return [timed(next(self.calls)) for _ in range(count)]
        finally:
            gc.enable()
            if self.settle:
                wait_until_quiet()


def timed(call) -> float:
    """Return the seconds that a call takes by the wall clock."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def in_turns(turns, estimates, seconds, least=3):
    """Let contestants take turns, in an order that changes with each round.

    Parameters
    ----------
    turns : dict of str to callable
        Each returns the seconds of one turn's calls, or raises ``Failed`` and sits out the rest.
    estimates : dict of str to float
        The seconds that a call of each one takes.
    seconds : float
        New rounds start until so much time has passed.
    least : int
        Turns that each one takes at the least.

    Returns
    -------
    times : dict of str to dict
        For each name the median, the quartiles' distance (both in seconds) and the calls.
    failed : dict of str to Failed
    """
    every = {name: sit_out(estimates[name], min(estimates.values())) for name in turns}
    found, taken, failed = {name: [] for name in turns}, dict.fromkeys(turns, 0), {}
    order, shuffle, rounds = list(turns), random.Random(0).shuffle, 0
    end = time.perf_counter() + seconds
    while order and (time.perf_counter() < end or any(taken[name] < least for name in order)):
        shuffle(order)
        for name in [name for name in order if rounds % every[name] == 0]:
            try:
                found[name] += turns[name]()
                taken[name] += 1
            except Failed as failure:
                failed[name] = failure
                order.remove(name)
        rounds += 1
    return {name: summary(found[name]) for name in turns if name not in failed}, failed


def sit_out(estimate, fastest) -> int:
    """Return of how many rounds one is for whom a turn costs more than ten of the fastest's."""
    return max(1, min(8, round(max(estimate, TURN) / (10 * max(fastest, TURN)))))


def wait_until_quiet(limit=0.2):
    """Wait until this process has stopped computing: pools of threads spin for a while."""
    end = time.perf_counter() + limit
    while time.perf_counter() < end:
        computed = time.process_time()
        time.sleep(2e-3)
        if time.process_time() - computed < 5e-4:
            return


def summary(seconds) -> dict[str, float]:
    """Return the median, the distance of the quartiles, and how many there are."""
    low, median, high = statistics.quantiles(seconds, n=4, method="inclusive")
    return {"median": median, "spread": high - low, "calls": len(seconds)}
