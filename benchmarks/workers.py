"""A process for each contestant: whoever crashes or hangs leaves a line in the table.

All stay alive side by side and work when they are told to, one at a time, so that contestants
in processes of their own still take turns.
"""

import multiprocessing
import signal
import traceback
from contextlib import suppress

# Imported once, by the process from which the workers are forked; it computes nothing.
PRELOAD = ["benchmarks.cells", "benchmarks.encoding", "benchmarks.generation"]


class Failed(Exception):
    """What kept a contestant from its answer.

    Parameters
    ----------
    reason : str
        As it stands in the table; what it is comes first, details behind a colon.
    crashed : bool
        Whether the process has died by itself: a new one may do better.
    """

    def __init__(self, reason, crashed=False):
        super().__init__(reason)
        self.reason, self.crashed = reason, crashed


class Crew:
    """A worker for each name, started when it is first asked, and anew when it has died.

    Parameters
    ----------
    limit : float
        Seconds that one answer may take.
    """

    def __init__(self, limit):
        self.limit, self.workers = limit, {}

    def __enter__(self):
        return self

    def __exit__(self, *error):
        while self.workers:  # who is asked no more ends by itself, and tidies up
            self._dismiss(next(iter(self.workers)), patience=2)

    def ask(self, name, function, *arguments):
        """Return ``function(state, *arguments)``, computed by the worker of that name.

        Parameters
        ----------
        name : str
        function : callable
            At a module's top, or a ``functools.partial`` of such. ``state`` is a dict that
            the worker keeps from one question to the next.

        Raises
        ------
        Failed
            When it is not installed, raised something, took too long, or crashed.
        """
        process, pipe = self.workers.get(name) or self._start(name)
        try:
            pipe.send((function, arguments))
            if not pipe.poll(self.limit):
                self._dismiss(name)
                raise Failed(f"too slow: stopped after {self.limit:g} s")
            answered, answer = pipe.recv()
        except (EOFError, OSError):
            process.join(5)
            code = process.exitcode
            self._dismiss(name)
            raise Failed(_end(code), crashed=True) from None
        if not answered:
            raise Failed(answer)
        return answer

    def _start(self, name):
        kinds = multiprocessing.get_all_start_methods()
        context = multiprocessing.get_context("forkserver" if "forkserver" in kinds else "spawn")
        if "forkserver" in kinds:
            context.set_forkserver_preload(PRELOAD)
        ours, theirs = context.Pipe()
        process = context.Process(target=serve, args=(theirs,), daemon=True)
        process.start()
        theirs.close()  # so that the pipe ends when the worker does
        self.workers[name] = process, ours
        return self.workers[name]

    def _dismiss(self, name, patience=0):
        process, pipe = self.workers.pop(name)
        pipe.close()
        process.join(patience)
        process.kill()
        process.join()


def serve(pipe):
    """Answer questions until nobody is left to ask: what a worker does."""
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is for who asks
    state = {}
    with torch.inference_mode(), suppress(EOFError, OSError):
        while True:
            function, arguments = pipe.recv()
            pipe.send(_answer(function, state, arguments))


def _answer(function, state, arguments):
    try:
        return True, function(state, *arguments)
    except ImportError as error:
        return False, f"not installed: {error}"
    except ValueError as error:
        return False, f"refused: {error}"
    except Exception as error:
        line = "".join(traceback.format_exception_only(error)).strip().splitlines()[0]
        return False, line[:200]


def _end(code):
    """Say how a process has ended; None where it only stopped answering."""
    signaled = code is not None and code < 0
    return f"crashed (signal {-code})" if signaled else f"crashed (exit status {code})"
