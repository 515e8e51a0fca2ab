"""Kernels of this Python: how one is started, and how one that nobody trusts is driven.

A chapter needs its outputs, so nbclient drives its kernel. Of a learner's notebook only the
replies are read, and each within a time limit: :func:`started` does that.
"""

import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from queue import Empty

import lightcourse


@dataclass(frozen=True)
class Failure:
    """A cell that raised: its number among the code cells, its source, the error's line."""

    number: int
    source: str
    error: str


def new_manager(kind: Callable):
    """Return a manager, of one of ``jupyter_client``'s classes, of a kernel not yet started.

    It is a kernel of *this* Python, whatever kernels the user has installed elsewhere.
    """
    from jupyter_client.kernelspec import KernelSpecManager

    return kind(kernel_spec_manager=KernelSpecManager(kernel_dirs=[]))


def environment() -> dict[str, str]:
    """Return the variables that a kernel starts with: ours, and whatever the user has set.

    Nobody looks on, so widgets are off.
    """
    return {**lightcourse.PATIENT, **os.environ, "LIGHTCOURSE_WIDGETS": "0"}


@contextlib.contextmanager
def started(folder: Path, seconds: float) -> Iterator[Callable]:
    """Start a kernel in ``folder``, and kill it in the end with all that it started.

    Yields
    ------
    callable
        ``ask(code, questions=None)`` runs code and evaluates the expressions in
        ``questions``, a dict; it returns the content of IPython's ``execute_reply``. It
        raises TimeoutError ``seconds`` after the kernel's start, and ChildProcessError
        once the kernel is dead.
    """
    from jupyter_client.manager import KernelManager

    deadline = time.monotonic() + seconds
    manager = new_manager(KernelManager)
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    manager.start_kernel(cwd=str(folder.resolve()), env=environment(), **quiet)
    client = manager.client()
    try:
        client.start_channels()
        _wait_until_ready(manager, client, seconds)
        # Outputs are never read: a cell that prints without end must not fill our memory.
        client.iopub_channel.stop()
        yield lambda code, questions=None: _run(manager, client, deadline, code, questions)
    finally:
        client.stop_channels()
        _kill(manager)


def _wait_until_ready(manager, client, seconds):
    try:
        client.wait_for_ready(timeout=seconds)
    except RuntimeError as error:  # the same type for a dead kernel and for a slow one
        raise (TimeoutError if manager.is_alive() else ChildProcessError) from error


def _run(manager, client, deadline, code, questions):
    identity = client.execute(
        code, user_expressions=questions, allow_stdin=False, stop_on_error=False
    )
    while time.monotonic() < deadline:
        with contextlib.suppress(Empty):
            reply = client.get_shell_msg(timeout=0.2)
            if reply["parent_header"].get("msg_id") == identity:
                return _alive(reply["content"])
        if not manager.is_alive():
            raise ChildProcessError
    raise TimeoutError


def _alive(content):
    """Refuse the reply of a kernel that was told ``exit()`` and is on its way out."""
    if any(item.get("source") == "ask_exit" for item in content.get("payload", [])):
        raise ChildProcessError
    return content


def _kill(manager):
    """Kill a kernel and whatever the learner's code started from it."""
    import psutil

    with contextlib.suppress(psutil.Error):
        children = psutil.Process(manager.provisioner.pid).children(recursive=True)
        for child in children:
            with contextlib.suppress(psutil.Error):
                child.kill()
    manager.shutdown_kernel(now=True)
