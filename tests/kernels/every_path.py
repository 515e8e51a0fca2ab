"""Tests run on every path that this machine has, in this process or in a fresh one."""

import functools
import os
import subprocess
import sys

import numpy as np
import pytest
from numba import config

from lightcourse import kernels
from lightcourse.kernels import paths, pool, table

# One test for each path of the table; those that this machine has not are skipped by name.
each_path = pytest.mark.parametrize(
    "path",
    [
        pytest.param(
            row.name,
            marks=pytest.mark.skipif(
                row.name not in paths.available(), reason=f"this machine has no path {row.name}"
            ),
        )
        for row in table.PATHS
    ],
)


def on_every_path(test):
    """Run a test on each path, on one thread and on two."""

    @functools.wraps(test)
    def run(*arguments, **named):
        for path in paths.available():
            for threads in range(1, min(2, config.NUMBA_NUM_THREADS) + 1):
                with use(path, threads):
                    test(*arguments, **named)

    return run


class use:
    """Run kernels on one path and so many threads, however small the work."""

    def __init__(self, path, threads):
        self.path, self.threads, self.patch = path, threads, pytest.MonkeyPatch()

    def __enter__(self):
        self.patch.setattr(paths, "path", lambda: self.path)
        self.patch.setattr(paths, "LITTLE_WEIGHTS", 0)
        self.patch.setattr(pool, "WORTH_WAKING", 0)
        kernels.set_threads(self.threads)

    def __exit__(self, *error):
        self.patch.undo()
        kernels.set_threads(1)


def integers(rng, outputs, inputs, low=-127, high=127):
    return rng.integers(low, high + 1, (outputs, inputs)).astype(np.int8)


def rows(rng, count, inputs):
    """Rows of very different sizes, a few with a value that is no number."""
    x = rng.standard_normal((count, inputs)) * 10.0 ** rng.integers(-6, 6, (count, 1))
    for bad in (np.inf, np.nan):
        x[rng.random(count) < 0.05, inputs // 2 : inputs // 2 + 1] = bad
    return x.astype(np.float32)


def ask(code, **environment):
    """Run code in a fresh Python, whose environment says which kernels it has."""
    inherited = {name: value for name, value in os.environ.items() if name != "LIGHTCOURSE_KERNELS"}
    return subprocess.run(
        [sys.executable, "-c", code], env=inherited | environment, capture_output=True, text=True
    )
