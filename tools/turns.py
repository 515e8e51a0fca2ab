"""Two tests at a time, and some alone: what pytest-xdist is told.

With ``-n auto`` two workers run tests at the same time, where the machine has processors and
memory for two. A notebook's cell that reads a clock would then measure its neighbour, and a test
whose own threads or processes wait for each other would need its processor. So these wait until
the other worker has finished its test, and the other one waits for them: every test holds a lock,
with others or by itself.
"""

import atexit
import functools
import os
import re
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest

NOTEBOOK_BYTES = 4.5e9  # the largest notebook and the worker that runs it; README tells each
CLOCKS = re.compile(r"\b(latency|latencies|perf_counter|stream_read|int8_peak|energy|torchrun)\(")


def is_alone(item) -> bool:
    """Tell whether a test is marked ``alone``, or a cell that states a clock or calls one.

    What a cell measured without showing it, a later one may show.
    """
    if cell := getattr(item, "cell", None):
        return "clock" in cell.metadata or bool(CLOCKS.search(cell.source))
    return item.get_closest_marker("alone") is not None


@contextmanager
def turn(folder: Path, alone: bool):
    """Hold the machine, alone or together with others; ``folder`` has the locks of one run.

    Who waits to be alone holds the gate, so that nobody who comes later overtakes.
    """
    import fcntl  # Windows has none; there, README's commands use one process

    with (folder / "gate").open("w") as gate, (folder / "machine").open("w") as machine:
        fcntl.flock(gate, fcntl.LOCK_EX)
        fcntl.flock(machine, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        fcntl.flock(gate, fcntl.LOCK_UN)
        try:
            yield
        finally:  # closing is not enough: a process that the test forked keeps the file open
            fcntl.flock(machine, fcntl.LOCK_UN)


@pytest.hookimpl(wrapper=True, tryfirst=True)  # around pytest-timeout's, which counts no waiting
def pytest_runtest_protocol(item):
    worker = getattr(item.config, "workerinput", None)
    if worker is None:  # one process runs all tests
        return (yield)
    with turn(Path(worker["turns"]), is_alone(item)):
        return (yield)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node):
    node.workerinput["turns"] = _folder()


@functools.cache
def _folder():
    folder = tempfile.mkdtemp(prefix="lightcourse-turns-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers():
    """Return how many workers ``-n auto`` means: two at most."""
    import psutil

    room = int(psutil.virtual_memory().available // NOTEBOOK_BYTES)
    return max(1, min(2, os.cpu_count() or 1, room))
