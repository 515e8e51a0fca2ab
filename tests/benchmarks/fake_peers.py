"""Contestants for the benchmarks that behave as badly as real ones have."""

import os
import signal
import time

import numpy as np
import torch


def right(weight, threads, copies):
    """Multiply."""
    return lambda x: [lambda: x @ weight.T] * copies


def wrong(weight, threads, copies):
    """Multiply by another weight."""
    return lambda x: [lambda: x @ np.flip(weight).T] * copies


def lost(weight, threads, copies):
    """Return NaN."""
    return lambda x: [lambda: x @ weight.T * np.nan] * copies


def missing(weight, threads, copies):
    """Want what is not installed."""
    import no_such_library  # noqa: F401


def choosy(weight, threads, copies):
    """Refuse the shape."""
    raise ValueError("8 inputs; a multiple of 256 is wanted")


def segfault(weight, threads, copies):
    """Crash for more than one row."""
    return lambda x: [lambda: crash() if len(x) > 1 else x @ weight.T] * copies


def hang(weight, threads, copies):
    """Never come back."""
    return lambda x: [lambda: time.sleep(3600)] * copies


def late(weight, threads, copies):
    """Crash in the middle of the turns, as if it were killed from outside."""
    made = []

    def call(x):
        made.append(x)
        return x @ weight.T if len(made) < 200 else crash(signal.SIGKILL)

    return lambda x: [lambda: call(x)] * copies


def crash(number=signal.SIGSEGV):
    os.kill(os.getpid(), number)


def pid(state):
    """Return the worker's process, and remember having been asked."""
    state["asked"] = state.get("asked", 0) + 1
    return os.getpid(), state["asked"]


def raising(state):
    raise RuntimeError("first line\nsecond line")


def leaving(state):
    os._exit(3)


class Sevens:
    """A session that writes sevens, and crashes where it reads too many tokens at once."""

    def __init__(self, most):
        self.most = most

    def read(self, new, keep=1):
        """Return logits that are largest at 7."""
        if new.shape[1] > self.most:
            crash()
        logits = torch.zeros(1, keep, 49_152)
        logits[..., 7] = 1
        return logits


def writer(threads):
    """Write sevens."""
    return lambda: Sevens(1000)


def late_writer(threads):
    """Warm up well, and crash afterwards."""
    return lambda: Sevens(100)


def no_writer(threads):
    """Want what is not installed."""
    import no_such_library  # noqa: F401
