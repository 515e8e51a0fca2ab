"""Running a chapter: nbclient executes the notebook, we count its seconds and its memory."""

import contextlib
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from lightcourse import language, progress
from lightcourse.classroom import kernel, read
from lightcourse.classroom.grade import Failure


@dataclass(frozen=True)
class Execution:
    """What running a notebook cost, and where it failed.

    Parameters
    ----------
    seconds : float
        Wall time, the kernel's start included.
    peak_bytes : int
        Largest resident memory of the kernel and its children, sampled 20 times a second.
    failure : Failure or None
        The cell that raised; nothing after it ran.
    """

    seconds: float
    peak_bytes: int
    failure: Failure | None


def execute(notebook, folder: str | Path) -> Execution:
    """Run ``notebook`` in place, in a fresh kernel of this Python, behind a progress bar.

    Parameters
    ----------
    notebook : nbformat node
        Its outputs are replaced.
    folder : path
        The kernel's working folder.
    """
    start, failure = time.perf_counter(), None
    client = notebook_client(notebook, folder)
    spoken = notebook.metadata.get("lightcourse", {}).get("language", language.ENGLISH)
    environment = kernel.environment() | {language.VARIABLE: spoken}
    running = client.setup_kernel(cleanup_kc=True, env=environment)
    with _PeakMemory() as memory, _bar(notebook) as bar, running:
        for index, cell in enumerate(notebook.cells):
            if read.holds_code(cell):
                failure = _run_cell(client, cell, index)
                bar.update()
            if failure:
                break
    return Execution(time.perf_counter() - start, memory.peak, failure)


def notebook_client(notebook, folder: str | Path, **options):
    """Return a client that runs ``notebook`` in a kernel of this Python, whatever is installed."""
    from jupyter_client.manager import AsyncKernelManager
    from nbclient import NotebookClient

    return NotebookClient(
        notebook,
        km=kernel.new_manager(AsyncKernelManager),
        resources={"metadata": {"path": str(folder)}},
        extra_arguments=["--log-level=ERROR"],
        record_timing=False,
        shutdown_kernel="immediate",
        **options,
    )


def _run_cell(client, cell, index):
    """Run one cell; return its Failure, or None. Cells tagged raises-exception may raise."""
    from nbclient.exceptions import CellExecutionError, DeadKernelError

    number = client.code_cells_executed + 1
    try:
        client.execute_cell(cell, index, execution_count=number)
    except CellExecutionError as error:
        return Failure(number, cell.source, f"{error.ename}: {error.evalue}")
    except DeadKernelError:
        return Failure(number, cell.source, "the kernel died; was there enough memory?")
    return None


def _bar(notebook):
    total = len(read.code_sources(notebook))
    return progress.bar(total=total, unit="cell", show=progress.in_terminal())


class _PeakMemory:
    """Sample the memory of all child processes from a thread, for as long as the block runs."""

    def __init__(self):
        self.peak = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._done.set()
        self._thread.join()

    def _sample(self):
        while not self._done.wait(0.05):
            self.peak = max(self.peak, _memory_of_children())


def _memory_of_children():
    import psutil

    total = 0
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            total += process.memory_info().rss
    return total
