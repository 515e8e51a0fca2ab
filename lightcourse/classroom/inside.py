"""What runs in a learner's process: cells, and a function's answers; it judges nothing.

It speaks with the grader in lines of JSON, over a socket: it is sent code to run and cases to
answer, and sends back errors and answers, as text. Neither references nor seeds come here.
"""

import contextlib
import json
import os
import socket
import sys
import types


class Channel:
    """Lines of JSON to the grader and back, each a dict; a message of it is answered by one."""

    def __init__(self, place: str):
        if os.name == "nt":
            self.socket = socket.fromshare(sys.stdin.buffer.read())
        else:
            self.socket = socket.socket(fileno=int(place))
            self.socket.set_inheritable(False)
        self.lines = self.socket.makefile("rb")

    def send(self, message: dict) -> None:
        """Send a message."""
        self.socket.sendall(json.dumps(message).encode() + b"\n")

    def receive(self) -> dict:
        """Wait for the next message; the process ends with the grader."""
        line = self.lines.readline()
        if not line:
            os._exit(0)
        return json.loads(line)


def take_on(limits: dict) -> None:
    """Take limits on that this process, and whatever it starts, cannot lift again."""
    try:
        import resource
    except ImportError:  # Windows
        return
    _limit(resource, resource.RLIMIT_CORE, 0)
    _limit(resource, resource.RLIMIT_FSIZE, limits["disk"])
    # Of one process, and twice over: torch and Numba reserve more than they use. How much all
    # of them really use, the grader watches.
    _limit(resource, resource.RLIMIT_DATA, 2 * limits["memory"])
    if limits["tasks"]:
        _limit(resource, resource.RLIMIT_NPROC, limits["tasks"])


def _limit(resource, what, most):
    hard = resource.getrlimit(what)[1]
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(what, (most, most))


def stand_in(channel: Channel) -> types.ModuleType:
    """Return what notebooks here import as ``lightcourse.checks``.

    Its checks hand each case that the grader sends to the learner's function, and return
    what the grader says of the answers. The cases are those that every notebook sees, and
    nothing that is said here counts for the points.
    """
    module = types.ModuleType("lightcourse.checks", "Checks, made in the grader's process.")
    module.__getattr__ = lambda name: _check(channel, name)
    return module


def _check(channel, name):
    if not name.startswith("check_"):
        raise AttributeError(f"lightcourse.checks has no {name} while a notebook is graded")
    from lightcourse import wire

    if name == "check_by_hand":  # judged when the notebook has run; nobody may try numbers here
        return lambda *answer, **numbers: False

    def check(function):
        channel.send({"check": name})
        while "judged" not in (message := channel.receive()):
            channel.send({"answer": wire.answer(function, message["case"])})
        return message["judged"] is True

    return check


def new_shell():
    """Return an IPython shell that keeps no history and leaves the terminal alone."""
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    quiet = Config(
        {"HistoryManager": {"enabled": False}, "InteractiveShell": {"colors": "nocolor"}}
    )
    shell = InteractiveShell.instance(config=quiet)
    shell.ask_exit = lambda: os._exit(0)
    shell.enable_gui = lambda gui=None: None
    shell.system = shell.system_raw  # no terminal: nobody reads what a command prints
    return shell


def run(shell, source: str) -> dict:
    """Run a cell; return what it raised, if anything."""
    try:
        result = shell.run_cell(source, store_history=True)
        error = result.error_before_exec or result.error_in_exec
    except BaseException as found:  # a cell may have broken the shell itself
        error = found
    return {"error": _told(error)} if error is not None else {"done": True}


def _told(error):
    try:
        return [type(error).__name__[:100], str(error)[:1000]]
    except BaseException:
        return [type(error).__name__[:100], ""]


def answer(shell, function: str, case: str) -> dict:
    """Let the function that an expression names answer a case."""
    from lightcourse import wire

    try:
        found = eval(function, shell.user_ns)
    except BaseException as error:
        return {"answer": wire.encode(("missing", ": ".join(_told(error))))}
    return {"answer": wire.answer(found, case)}


def main(place: str, limits: str) -> None:
    """Serve the grader until it leaves."""
    channel = Channel(place)
    take_on(json.loads(limits))
    import lightcourse
    from lightcourse import wire  # noqa: F401  before a cell can spoil what it imports

    sys.modules["lightcourse.checks"] = lightcourse.checks = stand_in(channel)
    shell = new_shell()
    sys.path.insert(0, "")  # as in Jupyter: modules beside the notebook
    channel.send({"ready": True})
    while True:
        message = channel.receive()
        told = run(shell, message["run"]) if "run" in message else answer(shell, *message["ask"])
        channel.send(told)


if __name__ == "__main__":
    main(*sys.argv[1:])
