"""What reads a clock, or is marked, is alone on the machine; other tests are not."""

import os
import threading
from types import SimpleNamespace

import nbformat
import psutil
import pytest

from tests.notebooks.strict import nbval
from tools import turns

fcntl = pytest.importorskip("fcntl", reason="Windows runs one test at a time")
code = nbformat.v4.new_code_cell
# Ends when the other notebook is inside of this cell too, so not at all if they took turns.
MEET = """import pathlib, time
pathlib.Path({own!r}).touch()
while not pathlib.Path({other!r}).exists():
    time.sleep(0.01)"""
# The other notebook's cells come before or after this one. The time is there to see it fail.
ALONE = """import time
time.perf_counter()
with open("log", "a") as log:
    print("enter", file=log, flush=True)
    time.sleep(0.3)
    print("leave", file=log)"""
BESIDE = """for _ in range(9):
    with open("log", "a") as log:
        print("beside", file=log)
    time.sleep(0.1)"""


@pytest.mark.parametrize(
    ("cell", "alone"),
    [
        (code("1 + 1", metadata={"clock": True}), True),
        (code("runs = metrics.latencies(calls)"), True),
        (code("begun = time.perf_counter()"), True),
        (code("bandwidth = limits.stream_read()"), True),
        (code("from lightcourse.metrics import latencies"), False),
        (code("print(accuracy)", metadata={"atol": 0.02}), False),
    ],
)
def test_a_cell_that_states_or_calls_a_clock_is_alone(cell, alone):
    assert turns.is_alone(SimpleNamespace(cell=cell)) == alone


def test_other_tests_are_not_alone(request):
    assert not turns.is_alone(request.node)


@pytest.mark.alone
def test_unless_they_are_marked(request):
    assert turns.is_alone(request.node)


def waits(path):
    """Tell whether somebody holds a lock alone."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def test_who_comes_later_does_not_overtake_who_waits_to_be_alone(tmp_path):
    order = []

    def hold(name, alone):
        with turns.turn(tmp_path, alone):
            order.append(name)

    one = threading.Thread(target=hold, args=("alone", True))
    other = threading.Thread(target=hold, args=("later", False))
    with turns.turn(tmp_path, False):
        hold("together", False)
        one.start()
        while not waits(tmp_path / "gate"):
            pass
        other.start()
        other.join(0.2)
        assert order == ["together"]
    one.join()
    other.join()
    assert order == ["together", "alone", "later"]


def test_two_notebooks_run_together_but_for_cells_that_read_a_clock(tmp_path):
    for own, other in ("ab", "ba"):
        cells = [code(MEET.format(own=own, other=other)), code(ALONE), code(BESIDE), code("1 / 0")]
        for number, cell in enumerate(cells, 1):
            cell.execution_count = number
        notebook = nbformat.v4.new_notebook(cells=cells)
        nbformat.write(notebook, tmp_path / f"{own}.ipynb")
    status, said = nbval(tmp_path, "-n2", "--dist=loadfile", "-p", "tools.turns")
    assert status == 1 and "2 failed, 6 passed" in said, said
    assert all(f"/{name}.ipynb::Cell 3 " in said.replace("\n", " ") for name in "ab"), said
    log = (tmp_path / "log").read_text().split()
    assert log.count("enter") == 2 and log.count("beside") == 18
    assert all(b == "leave" for a, b in zip(log, log[1:], strict=False) if a == "enter")


def test_as_many_workers_as_there_are_processors_and_memory_for(monkeypatch):
    for cores, free, workers in ((1, 64, 1), (2, 64, 2), (16, 64, 2), (16, 8, 1), (2, 1, 1)):
        monkeypatch.setattr(os, "cpu_count", lambda cores=cores: cores)
        memory = SimpleNamespace(available=free * 1e9)
        monkeypatch.setattr(psutil, "virtual_memory", lambda memory=memory: memory)
        assert turns.pytest_xdist_auto_num_workers() == workers
