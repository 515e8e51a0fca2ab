"""Notebooks without a browser: run a chapter, grade a learner's exercises."""

import ast
import contextlib
import os
import secrets
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty

import lightcourse

NO_INPUT = "StdinNotImplementedError"


@dataclass(frozen=True)
class Failure:
    """A cell that raised: its number among the code cells, its source, the error's line."""

    number: int
    source: str
    error: str


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


@dataclass(frozen=True)
class Answer:
    """What one check said: ``passed``, and the message that it printed."""

    expression: str
    passed: bool
    message: str = ""


@dataclass
class Report:
    """What grading a notebook found.

    Parameters
    ----------
    raised : list of Failure
        Cells that raised; the later ones ran all the same.
    answers : list of Answer
        One for each expected check, in order.
    stopped : str
        Why grading ended early; empty when it did not.
    """

    raised: list[Failure] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    stopped: str = ""

    @property
    def passed(self) -> bool:
        """True when there are checks and every one of them passed."""
        return bool(self.answers) and all(answer.passed for answer in self.answers)


def read_notebook(path: str | Path):
    """Return the notebook in ``path`` as an ``nbformat`` node of version 4.

    Raises
    ------
    FileNotFoundError
        When there is no such file.
    ValueError
        When the file is no notebook.
    """
    import nbformat

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        notebook = nbformat.reads(path.read_text(encoding="utf-8"), as_version=4)
        nbformat.validate(notebook)
    except Exception as error:  # nbformat raises a different type for each kind of damage
        raise ValueError(f"{path} is no Jupyter notebook (.ipynb)") from error
    return notebook


def code_cells(notebook) -> list[str]:
    """Return the sources of the code cells that hold something, in order."""
    return [cell.source for cell in notebook.cells if _is_code(cell)]


def _is_code(cell):
    return cell.cell_type == "code" and bool(cell.source.strip())


# --- running a chapter ---------------------------------------------------------------------


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
    kernel = client.setup_kernel(cleanup_kc=True, env={**lightcourse.PATIENT, **os.environ})
    with _PeakMemory() as memory, _bar(notebook) as bar, kernel:
        for index, cell in enumerate(notebook.cells):
            if _is_code(cell):
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
        km=AsyncKernelManager(kernel_spec_manager=_this_python()),
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
    from tqdm.auto import tqdm

    # None: no bar where nobody looks, in a pipe or a log file.
    return tqdm(total=len(code_cells(notebook)), unit="cell", disable=None)


def _this_python():
    """Choose kernels of *this* Python, whatever kernels the user has installed elsewhere."""
    from jupyter_client.kernelspec import KernelSpecManager

    return KernelSpecManager(kernel_dirs=[])


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


# --- grading a learner's exercises ---------------------------------------------------------


def expected_checks(notebook) -> list[str]:
    """Return the checks that a notebook calls, each once: ``["checks.check_x(fn)", …]``.

    Statements ``checks.check_x(…)`` and ``assert checks.check_x(…)`` count; an
    ``assert not`` demonstrates a failure and does not.
    """
    found = [check for source in code_cells(notebook) for check in _checks_in(source)]
    return list(dict.fromkeys(found))


def _checks_in(source):
    from IPython.core.inputtransformer2 import TransformerManager

    try:
        statements = ast.parse(TransformerManager().transform_cell(source)).body
    except SyntaxError:
        return
    for statement in statements:
        call = getattr(statement, "test" if isinstance(statement, ast.Assert) else "value", None)
        if isinstance(call, ast.Call) and ast.unparse(call.func).startswith("checks.check_"):
            yield ast.unparse(call)


def grade(path: str | Path, expected: list[str], seconds: float, seed: int | None = None) -> Report:
    """Run a learner's notebook in a process of its own and ask each expected check.

    Cells may raise; the later ones run all the same. What they print counts for nothing.
    Afterwards the learner's process only answers: it is sent one case after the other, and
    what it returns is compared in *this* process, which never runs the learner's code. So
    nothing that is patched or looked up over there changes a verdict here. The kernel is no
    sandbox, though: a notebook can read and write files and use the network, and the course's
    library, with the right answers to its exercises, can be imported in it.

    Parameters
    ----------
    path : path
        The notebook; it is only read.
    expected : list of str
        Expressions as :func:`expected_checks` returns them.
    seconds : float
        Limit for everything together; the process is killed when it is reached.
    seed : int, optional
        Of the cases; by default a new one each time, so that no table of answers fits.
    """
    seed = secrets.randbelow(2**31) if seed is None else seed
    report, place = Report(), "the kernel's start"
    path = Path(path)
    try:
        with _kernel(path.parent, seconds) as ask:
            for number, source in enumerate(code_cells(read_notebook(path)), 1):
                place = f"code cell {number}: {first_line(source)}"
                reply = ask(source)
                if reply["status"] == "error":
                    report.raised.append(Failure(number, source, _error_line(reply)))
            for expression in expected:
                place = expression
                report.answers.append(_ask_check(ask, expression, seed))
    except TimeoutError:
        report.stopped = f"the time limit of {seconds:g} s was reached in {place}"
    except ChildProcessError:
        report.stopped = f"the kernel died in {place}"
    late = expected[len(report.answers) :]
    report.answers += [Answer(expression, False, "not reached") for expression in late]
    return report


def first_line(source: str) -> str:
    """Return the first line of a cell that is neither blank nor a comment."""
    lines = [line.strip() for line in source.splitlines() if line.strip()]
    return next((line for line in lines if not line.startswith("#")), lines[0])


def _error_line(reply):
    if reply["ename"] == NO_INPUT:
        return "input() was called, but nobody is here to answer"
    return " ".join(f"{reply['ename']}: {reply['evalue']}".split())


def _ask_check(ask, expression, seed):
    """Judge here what the learner's process answers to each case of a check."""
    from lightcourse import checks

    call = ast.parse(expression, mode="eval").body
    exercise = checks.EXERCISES.get(call.func.attr)
    if exercise is None or len(call.args) != 1 or call.keywords:
        return Answer(expression, False, "the course has no such check of one function")
    function = ast.unparse(call.args[0])
    problem = checks.find_problem(exercise, seed, lambda case: _answer(ask, function, case))
    return Answer(expression, not problem, problem)


def _answer(ask, function, case):
    """Have one case answered in the learner's process; whatever comes back is only text."""
    # Through a lambda, for a notebook may give `globals` and `__import__` other meanings.
    wire = "(lambda: 0).__builtins__['__import__']('lightcourse.wire', fromlist=['_'])"
    reply = ask("", {"answer": f"{wire}.answer({function}, {case!r})"})
    result = reply.get("user_expressions", {}).get("answer", {})
    if result.get("status") == "error":
        return _missing(f"{result.get('ename')}: {result.get('evalue')}")
    return str(result.get("data", {}).get("text/plain", "")).strip("'")


def _missing(told):
    from lightcourse import wire

    return wire.encode(("missing", told))


@contextlib.contextmanager
def _kernel(folder: Path, seconds: float) -> Iterator:
    """Start a kernel; give a function that runs code in it until ``seconds`` are over."""
    from jupyter_client.manager import KernelManager

    deadline = time.monotonic() + seconds
    manager = KernelManager(kernel_spec_manager=_this_python())
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    manager.start_kernel(cwd=str(folder.resolve()), **quiet)
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
