"""How far a learner's process is kept from the machine: the layers, and what each one needs.

``namespaces`` is for a class: Linux gives the process a machine of its own, see
:mod:`lightcourse.classroom.jail`. ``plain`` is for one's own notebook, or for people one trusts:
a process with limits, which can read and write what its user can.
"""

import functools
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil

import lightcourse
from lightcourse import folders, language

SAID = {
    "namespaces": "Linux namespaces: no network, no files but Python and the course's library, "
    "read-only, no other processes, an ordinary user",
    "plain": "a plain process with limits: it could read and write this user's files and use the "
    "network",
}
JAIL = Path(__file__).with_name("jail.py")
PACKAGE = Path(lightcourse.__file__).resolve().parent
SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/nix/store", "/gnu/store")
SETTINGS = ("/etc/ld.so.cache", "/etc/alternatives", "/etc/localtime", "/sys/devices/system/cpu")
LIBRARY, ASSETS, WORK, HOME = "/course/lightcourse", "/assets", "/tmp/work", "/tmp/home"
# Compiled kernels: a copy for each learner, who may add to it but hand nothing on.
COMPILED = "/kernels/__pycache__"
FONTS = "/fonts"
USERS = (f"root:x:0:0::/:/bin/sh\nlearner:x:65534:65534::{HOME}:/bin/sh\n", "learner:x:65534:\n")


@dataclass(frozen=True)
class Limits:
    """What a learner's processes may use, all of them together.

    Parameters
    ----------
    seconds : float
        From the first cell to the last answer.
    memory : int
        Bytes of resident memory; by default 8 GiB, or three quarters of a smaller machine's.
    processes : int
        How many at a time.
    disk : int
        Bytes of one file, and of all files in namespaces, where they lie in memory.
    """

    seconds: float = 300
    memory: int = min(8 * 2**30, psutil.virtual_memory().total * 3 // 4)
    processes: int = 64
    disk: int = 2**30


def strongest() -> str:
    """Return ``"namespaces"`` where this machine has them, else ``"plain"``."""
    return "plain" if why_not() else "namespaces"


@functools.cache
def why_not() -> str:
    """Return why there are no namespaces to be had here; an empty string where there are.

    Found by starting the library in them, once for each run of the program.
    """
    import tempfile

    if sys.platform != "linux":
        return f"{sys.platform} has none; Linux has"
    command = [sys.executable, "-P", "-c", "import IPython, torch, lightcourse.wire"]
    with tempfile.TemporaryDirectory() as root:
        plan = {**_plan(Path(root), Limits(), ()), "command": command, "loud": True}
        run = subprocess.run(_jailed(plan), capture_output=True, text=True, errors="replace")
    if run.returncode == 0:
        return ""
    return (run.stderr.strip().splitlines() or [f"exit status {run.returncode}"])[-1]


def command(layer: str, root: Path, limits: Limits, hidden: tuple, channel: str) -> list[str]:
    """Return the command line of a learner's process in a layer.

    Parameters
    ----------
    layer : str
        ``"namespaces"`` or ``"plain"``.
    root : path
        An empty folder, which namespaces use and leave empty.
    limits : Limits
        The learner's process takes them on before it runs anything.
    hidden : tuple of path
        Folders that must not be seen inside, should they lie in one that is.
    channel : str
        Names the socket to the process that asks.
    """
    own = {"memory": limits.memory, "disk": limits.disk, "tasks": _tasks(layer, limits)}
    inner = [sys.executable, "-P", "-m", "lightcourse.classroom.inside", channel, json.dumps(own)]
    if layer == "plain":
        return inner
    return _jailed({**_plan(root, limits, hidden), "command": inner, "loud": False})


def _tasks(layer, limits):
    """Return how many threads there may be: in a namespace the kernel counts its own alone."""
    return limits.processes + 8 * (os.cpu_count() or 1) + 64 if layer == "namespaces" else 0


def _jailed(plan):
    return [sys.executable, "-I", "-S", str(JAIL), json.dumps(plan)]


def environment(layer: str, own: bool) -> dict[str, str]:
    """Return the variables of a learner's process: the user's own where it is ``own`` work.

    For a class they are made from nothing: what a teacher's environment holds stays here.
    """
    if own:
        found = os.environ.get("PYTHONPATH", "")
        path = os.pathsep.join(filter(None, (str(PACKAGE.parent), found)))
        return {**lightcourse.PATIENT, **os.environ, **_quiet(), "PYTHONPATH": path}
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    return {**lightcourse.PATIENT, **kept, **_quiet(), **_places(layer)}


_KEPT = ("LIGHTCOURSE_KERNELS", "OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "SYSTEMROOT")


def _quiet():
    spoken = {language.VARIABLE: language.current()}
    return spoken | {"LIGHTCOURSE_WIDGETS": "0", "PYTHONHASHSEED": "0", "MPLBACKEND": "agg"}


def _places(layer):
    if layer == "plain":
        path, cache = str(PACKAGE.parent), str(folders.cache_dir())
        return {"PATH": os.defpath, "PYTHONPATH": path, "LIGHTCOURSE_CACHE": cache}
    return {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "PYTHONPATH": str(Path(LIBRARY).parent),
        "LIGHTCOURSE_CACHE": ASSETS,
        "HOME": HOME,
        "MPLCONFIGDIR": FONTS,
        "HF_HUB_OFFLINE": "1",
        "LANG": "C.UTF-8",
    }


def _plan(root, limits, hidden):
    """Return what :mod:`lightcourse.classroom.jail` does, but for the program that it becomes."""
    python = _python_folders()
    system = [path for path in SYSTEM if os.path.isdir(path)]
    shown = [path for path in system if not os.path.islink(path)]
    shown += [path for path in SETTINGS if os.path.exists(path)] + python
    pairs = [(path, path) for path in _outermost(shown)] + [(str(PACKAGE), LIBRARY)]
    assets, compiled = folders.cache_dir(), PACKAGE / "kernels" / "__pycache__"
    copies = [(compiled, LIBRARY + COMPILED), (_fonts(), FONTS)]
    if assets.is_dir():
        pairs.append((str(assets), ASSETS))
    return {
        "root": str(root),
        "parent": os.getpid(),
        "shown": pairs,
        "links": [(path, os.readlink(path)) for path in system if os.path.islink(path)]
        + [("/dev/fd", "/proc/self/fd"), ("/dev/ptmx", "pts/ptmx")],
        "files": list(zip(("/etc/passwd", "/etc/group"), USERS, strict=True)),
        "scratch": [("/tmp", limits.disk), ("/dev/shm", 2**28)],
        "copies": [(str(source), target) for source, target in copies if source.is_dir()],
        "hidden": [f"{LIBRARY}/checks", *map(str, (*_course(), *hidden))],
        "folders": [WORK, HOME],
        "environment": environment("namespaces", own=False),
    }


def _fonts():
    """Return the folder of matplotlib's list of fonts, which takes it seconds to make."""
    import matplotlib.font_manager

    return Path(matplotlib.get_cachedir())


def _python_folders():
    """Return the folders of this Python and of the packages that it finds."""
    found = [sys.prefix, sys.base_prefix, os.path.dirname(os.path.realpath(sys.executable))]
    found += [path for path in sys.path if os.path.basename(path).endswith("-packages")]
    return [path for path in found if os.path.isdir(path) and path != "/"]


def _outermost(paths):
    """Leave out what lies in another one of these folders."""
    paths = sorted({os.path.abspath(path) for path in paths})
    return [p for p in paths if not any(p.startswith(f"{other}/") for other in paths)]


def _course():
    """Return the folders with answers: where Python's own folder holds the course, they show."""
    names = ("solutions", "sources", "tests", "exercises", "chapters", "build", ".git")
    return [PACKAGE / "checks", *(PACKAGE.parent / name for name in names)]
