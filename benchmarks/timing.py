"""Timing in turns: a machine that slows down slows every contestant alike."""

import gc
import itertools
import random
import statistics
import time

TURN = 2e-3  # seconds of timed calls a turn, at least one call
LONG = 50e-3  # calls from here on need no untimed call before them


class Contestant:
    """A list of calls, one for each copy of the weight, and the seconds of those made so far."""

    def __init__(self, calls):
        for call in calls:  # touch every copy once
            call()
        self.calls = itertools.cycle(calls)
        self.estimate = timed(next(self.calls))
        self.seconds, self.turns, self.every = [], 0, 1

    def slow_down(self, fastest):
        """Sit out some rounds when one turn would cost more than ten of the fastest's."""
        turn = max(self.estimate, TURN)
        self.every = max(1, min(8, round(turn / (10 * max(fastest, TURN)))))

    def take_a_turn(self):
        """Make one untimed call, which wakes the library's threads, then some timed ones."""
        if self.estimate < LONG:
            next(self.calls)()
        for _ in range(max(1, min(50, int(TURN / self.estimate)))):
            self.seconds.append(timed(next(self.calls)))
        self.turns += 1


def timed(call) -> float:
    """Return the seconds that a call takes by the wall clock."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def in_turns(contestants, seconds, least=3, settle=True) -> dict[str, dict[str, float]]:
    """Time contestants turn by turn, in an order that changes with each round.

    Parameters
    ----------
    contestants : dict of str to list of callables
    seconds : float
        New rounds start until so much time has passed.
    least : int
        Turns that each one takes at the least.
    settle : bool
        Wait before each turn until no thread of the last one is left spinning.

    Returns
    -------
    dict of str to dict
        For each name the median, the quartiles' distance (both in seconds) and the calls.
    """
    field = {name: Contestant(calls) for name, calls in contestants.items()}
    order, shuffle = list(field.values()), random.Random(0).shuffle
    fastest = min(contestant.estimate for contestant in order)
    for contestant in order:
        contestant.slow_down(fastest)
    end, rounds = time.perf_counter() + seconds, 0
    gc.collect()
    gc.disable()
    try:
        while time.perf_counter() < end or any(one.turns < least for one in order):
            shuffle(order)
            for contestant in order:
                if rounds % contestant.every == 0:
                    if settle:
                        wait_until_quiet()
                    contestant.take_a_turn()
            rounds += 1
    finally:
        gc.enable()
    return {name: summary(contestant.seconds) for name, contestant in field.items()}


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
