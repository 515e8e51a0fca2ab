"""A program: cores that run one after the other, in one call, on all threads.

What a model computes between token ids and logits is a list of steps, each a core with its
job. All jobs are described once; a run sets the number of rows in each, and calls core after
core, without Python in between: that alone costs a model hosted by torch milliseconds a token.
"""

from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numba import njit

from lightcourse.kernels import caching, jobs, pool
from lightcourse.kernels.attention import BLOCK
from lightcourse.kernels.fields import FIELDS, Field
from lightcourse.kernels.jobs import Slot

CACHE = caching.ready()


class Each(IntEnum):
    """What a core's units are counted by."""

    PANELS, ROWS, BLOCKS, TEXTS = range(4)


class Step(NamedTuple):
    """One core of a program.

    Parameters
    ----------
    core : core
    job : ndarray of int64, shape (FIELDS,)
    each : Each
    units : int
        For each row, block of rows, or text; or of all.
    work : int
        Multiply-adds for each row, or as good as these.
    many, fewest : core and int, optional
        Which core serves from so many rows on.
    """

    core: object
    job: np.ndarray
    each: Each
    units: int
    work: int
    many: object = None
    fewest: int = jobs.NEVER


class Program:
    """Steps, ready to run.

    Parameters
    ----------
    steps : list of Step
    """

    COLUMNS = ("core", "many", "fewest", "each", "units", "work")

    def __init__(self, steps: list[Step]):
        self.jobs = np.zeros((len(steps), FIELDS), np.int64)
        self.table = np.zeros((len(steps), len(self.COLUMNS)), np.int64)
        for i, step in enumerate(steps):
            self.jobs[i, : len(step.job)] = step.job
            core = jobs.address(step.core)
            many = core if step.many is None else jobs.address(step.many)
            self.table[i] = core, many, step.fewest, step.each, step.units, step.work

    def run(self, rows: int, times: int, held: int, threads: int) -> None:
        """Run all steps on so many rows: ``times`` new positions of each text."""
        board, workers = pool.ready(threads)
        _run(self.table, self.jobs, rows, times, held, board, workers)


# One thread does less than so many multiply-adds sooner than two could share them, once all are
# awake: a round of the pool takes 1 to 2 us.
LITTLE = 2**17


@njit(cache=CACHE, nogil=True)
def _run(table, jobs, rows, times, held, board, workers):
    for i in range(len(table)):
        step, job = table[i], jobs[i]
        job[Slot.ROWS], job[Field.TIMES], job[Field.HELD] = rows, times, held
        core = step[1] if rows >= step[2] else step[0]
        each, units, work = step[3], step[4], step[5]
        if each == Each.ROWS:
            units *= rows
        elif each == Each.BLOCKS:
            units *= rows // times * ((times + BLOCK - 1) // BLOCK)
        elif each == Each.TEXTS:
            units *= rows // times
        if workers and units > 1 and work * rows >= LITTLE:
            pool.share_with(board, core, job, units, workers)
        else:
            pool.call(core, job.ctypes.data, 0, units)
