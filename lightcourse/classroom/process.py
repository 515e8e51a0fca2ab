"""A learner's process, from outside: started, asked, watched, and ended with all it started."""

import contextlib
import ctypes
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from lightcourse import wire
from lightcourse.classroom import isolation
from lightcourse.classroom.isolation import Limits

# An answer is a line of JSON around what wire.encode returns.
LONGEST = wire.MOST_LETTERS + 10_000
PATIENCE = 300  # seconds for the start, which are no fault of the learner's
PERIOD = 0.1  # seconds between two looks at a learner's processes
PR_SET_CHILD_SUBREAPER = 36


@contextlib.contextmanager
def started(
    layer: str, limits: Limits, folder: Path | None = None, hidden: tuple = ()
) -> Iterator[Callable]:
    """Start a process that runs a learner's code, and end it with all that it started.

    Parameters
    ----------
    layer : str
        One of :data:`lightcourse.classroom.isolation.SAID`.
    limits : Limits
        Its processes are ended when they go beyond one of them.
    folder : path, optional
        Where a plain process works, in the user's own environment; by default a new folder,
        which is removed, and an environment made from nothing.
    hidden : tuple of path
        Folders that must not be seen in namespaces.

    Yields
    ------
    callable
        ``ask(message)`` sends a dict and returns the dict that comes back, of whatever
        content. It raises ChildProcessError, with a sentence, once the process has ended.

    Raises
    ------
    RuntimeError
        When the process does not even start, which is no fault of the learner's.
    """
    with tempfile.TemporaryDirectory(prefix="lightcourse-") as empty, _adopting() as end_orphans:
        place = Path(empty) if folder is None else folder
        process, channel = _start(layer, limits, place, hidden, own=folder is not None)
        talk = _Talk(process, channel, limits)
        try:
            _wait_until_ready(talk, process)
            yield talk.ask
        finally:
            channel.close()
            _end(process)
            end_orphans()


def _start(layer, limits, place, hidden, own):
    ours, theirs = socket.socketpair()
    windows = os.name == "nt"
    command = isolation.command(layer, place, limits, hidden, str(theirs.fileno()))
    process = subprocess.Popen(
        command,
        cwd=place if layer == "plain" else "/",
        env=isolation.environment(layer, own),
        stdin=subprocess.PIPE if windows else subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE if layer == "namespaces" else subprocess.DEVNULL,
        pass_fds=() if windows else (theirs.fileno(),),
        start_new_session=True,
    )
    if windows:
        process.stdin.write(theirs.share(process.pid))
        process.stdin.close()
    theirs.close()
    ours.settimeout(PERIOD)
    return process, ours


def _wait_until_ready(talk, process):
    try:
        ready = talk.receive()
    except ChildProcessError as error:
        process.kill()
        told = process.stderr.read().decode(errors="replace").strip() if process.stderr else ""
        raise RuntimeError(f"the learner's process did not start: {told or error}") from error
    if ready != {"ready": True}:
        raise RuntimeError("the learner's process did not start as it should")
    talk.end = time.monotonic() + talk.limits.seconds


class _Talk:
    """Lines to and from a learner's process, while its limits are watched."""

    def __init__(self, process, channel, limits):
        self.process, self.channel, self.limits = psutil.Process(process.pid), channel, limits
        self.looked = time.monotonic()
        self.end = self.looked + PATIENCE
        self.shared, self.buffer = _shared_memory(), b""

    def ask(self, message):
        """Send a message and return the reply, a dict; an empty one for anything else."""
        rest = memoryview(json.dumps(message).encode() + b"\n")
        while rest:
            rest = rest[self._try(self.channel.send, rest) or 0 :]
        return self.receive()

    def receive(self):
        """Return the next line as a dict."""
        while b"\n" not in self.buffer:
            if len(self.buffer) > LONGEST:
                raise ChildProcessError("it sent more than an answer may hold, and was ended")
            chunk = self._try(self.channel.recv, 2**16)
            if chunk == b"":
                raise ChildProcessError("its process ended")
            self.buffer += chunk or b""
        line, _, self.buffer = self.buffer.partition(b"\n")
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            return {}
        return {n: v for n, v in found.items() if _is_plain(v)} if isinstance(found, dict) else {}

    def _try(self, function, argument):
        """Send or receive what can be at once; None where nothing can for a while."""
        self._watch()
        try:
            return function(argument)
        except TimeoutError:
            return None
        except OSError as error:
            raise ChildProcessError("its process ended") from error

    def _watch(self):
        now = time.monotonic()
        if now > self.end:
            raise ChildProcessError(f"the time limit of {self.limits.seconds:g} s was reached")
        if now - self.looked > PERIOD:
            self.looked = now
            self._look_at_memory_and_processes()

    def _look_at_memory_and_processes(self):
        found = [self.process]
        with contextlib.suppress(psutil.Error):
            found += self.process.children(recursive=True)
        if len(found) > self.limits.processes:
            raise ChildProcessError(
                f"more than {self.limits.processes} processes ran, and were ended"
            )
        taken = sum(map(_own_memory, found)) + _shared_memory() - self.shared
        if taken > self.limits.memory:
            most = self.limits.memory / 2**20
            raise ChildProcessError(f"more than {most:.0f} MiB of memory were taken")


def _is_plain(value):
    """Tell whether a value is one of those that the other side sends when nobody meddles."""
    if isinstance(value, list):
        return all(isinstance(entry, str) for entry in value)
    return isinstance(value, (str, bool))


def _own_memory(process):
    """Return the bytes of a process that are not shared, such as with its children."""
    with contextlib.suppress(psutil.Error):
        memory = process.memory_info()
        return memory.rss - getattr(memory, "shared", 0)
    return 0


def _shared_memory():
    """Return the bytes of shared memory and of files in memory, on the whole machine.

    They need not be mapped by any process, so what a learner's processes hold shows only as
    a difference between two moments.
    """
    return getattr(psutil.virtual_memory(), "shared", 0)


def _end(process):
    """Kill a process with all its descendants, and wait until they are gone."""
    children = []
    with contextlib.suppress(psutil.Error):
        children = psutil.Process(process.pid).children(recursive=True)
    process.kill()  # first, so that it starts no more of them
    _kill(children)
    process.wait()
    if process.stderr:
        process.stderr.close()


def _kill(processes):
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(processes, timeout=5)


@contextlib.contextmanager
def _adopting():
    """Become the parent of orphans; yield what ends those that came meanwhile.

    A process that has left its parent would else outlive it unseen.
    """
    if sys.platform != "linux":
        yield lambda: None
        return
    before = set(psutil.Process().children())
    adopt = ctypes.CDLL(None).prctl
    adopt(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    def end_orphans():
        for _ in range(100):  # one may start another while it is looked for
            orphans = set(psutil.Process().children(recursive=True)) - before
            if not orphans:
                return
            _kill(orphans)

    try:
        yield end_orphans
    finally:
        adopt(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
