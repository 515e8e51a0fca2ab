"""Compress in forked processes: killed at the n-th call, or some of several.

Usage: python -m tests.streaming.forked killed CHECKPOINT FOLDER COUNT
       python -m tests.streaming.forked shared CHECKPOINT FOLDER RANKS
       python -m tests.streaming.forked memory CHECKPOINT FOLDER BITS

A process of its own, because one that runs tests has threads, which no fork takes along.
"""

import hashlib
import json
import os
import random
import shutil
import signal
import sys
from functools import partial
from pathlib import Path

from lightcourse.streaming import Compression, compress, compressing

HOW = Compression(4, 32, prune="2:4")
WATCHED = ("lightcourse/streaming", "lightcourse/files")
SHARD = 60_000


def work(checkpoint, out, place=(0, 1)):
    compress(checkpoint, out, HOW, place, SHARD)


def forked(function):
    """Start a function in a child; return its process id."""
    child = os.fork()
    if child == 0:
        try:
            function()
            os._exit(0)
        finally:
            os._exit(1)
    return child


def status(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def counting(function, act):
    """Run a function, and call ``act`` with the number of each call made in the watched files."""
    calls = 0

    def look(frame, event, _):
        nonlocal calls
        if any(part in frame.f_code.co_filename for part in WATCHED):
            calls += 1
            act(calls)

    sys.setprofile(look)
    try:
        function()
    finally:
        sys.setprofile(None)
    return calls


def kill_at(number):
    def act(calls):
        if calls == number:
            os.kill(os.getpid(), signal.SIGKILL)

    return act


def contents(folder):
    paths = sorted(path for path in folder.rglob("*"))
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def killed(checkpoint, folder, count):
    """Return how many runs were killed, and how many of them ended differently when resumed."""
    calls = counting(job(checkpoint, folder / "whole"), lambda _: None)
    wanted, wrong, seen = contents(folder / "whole"), [], 0
    out = folder / "killed"
    for number in random.Random(0).sample(range(1, calls), count):
        seen += status(forked(partial(counting, job(checkpoint, out), kill_at(number)))) < 0
        early = (out / "config.json").exists() and contents(out) != wanted
        resumed = status(forked(job(checkpoint, out)))
        if early or resumed or contents(out) != wanted:
            wrong.append(number)
        shutil.rmtree(out)
    return {"calls": calls, "killed": seen, "wrong": wrong}


def job(checkpoint, out, place=(0, 1)):
    return lambda: work(checkpoint, out, place)


def together(checkpoint, out, ranks, wrap):
    """Return the exit statuses of several processes, the first one started last."""
    places = [(rank, ranks) for rank in reversed(range(ranks))]
    children = [forked(wrap(job(checkpoint, out, place))) for place in places]
    return [status(child) for child in children]


def impatiently(function, act):
    """Run a function that does not wait for those who were killed before."""
    compressing.PATIENCE = 1
    counting(function, act)


def shared(checkpoint, folder, ranks):
    """Return whether the files of several processes are those of one, after a kill of all too."""
    calls = counting(job(checkpoint, folder / "one"), lambda _: None)
    wanted, drawn, same = contents(folder / "one"), random.Random(1), []

    def to_be_killed(function):
        return partial(impatiently, function, kill_at(drawn.randrange(1, calls)))

    for turn in range(3):
        out = folder / f"many-{turn}"
        statuses = together(checkpoint, out, ranks, to_be_killed) if turn else []
        assert not turn or min(statuses) < 0, statuses
        # Others go on: fewer than before, so that what each one does is cut otherwise.
        statuses = together(checkpoint, out, ranks - bool(turn), lambda function: function)
        same.append(not any(statuses) and contents(out) == wanted)
    return {"same": same}


def memory(checkpoint, folder, bits):
    """Return by how many bytes the largest memory of this process grew."""
    compress(checkpoint, folder / "warm", Compression(bits, 32))
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    compress(checkpoint, folder / "out", Compression(bits, 32))
    return {"grown": resident("VmHWM") - before}


def resident(kind):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(kind))


if __name__ == "__main__":
    what, checkpoint, folder, number = sys.argv[1:]
    print(json.dumps(globals()[what](checkpoint, Path(folder), int(number))))
