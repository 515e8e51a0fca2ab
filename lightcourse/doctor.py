"""Is this machine ready for the course? One line for each thing, and what to do about it."""

import importlib.metadata
import os
import platform
import shutil
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
OLDEST_PYTHON = (3, 11)
FEATURES = (
    *("avx2", "fma", "f16c", "avxvnni", "avx512f", "avx512vnni", "avx512bf16"),
    *("amx-int8", "amx-bf16"),
    *("neon", "dotprod", "fullfp16", "i8mm", "bf16", "sve"),
)
LITTLE_MEMORY = 2 * 2**30
GIB = 2**30
REINSTALL = "in the course's folder: python -m pip install -c constraints.txt -e ."
OWN_FOLDER = "set LIGHTCOURSE_CACHE to a folder of yours"
RESTORE = "in the course's folder: git checkout -- lightcourse/bundled; or get the course anew"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Parameters
    ----------
    mark : {"✓", "!", "✗"}
        Fine; works but worth knowing; needed and missing.
    name, detail : str
        What was looked at and what was found.
    step : str
        What to do next; never empty beside ✗.
    """

    mark: str
    name: str
    detail: str
    step: str = ""


def examine() -> Iterator[Finding]:
    """Look at everything in turn; a probe that breaks becomes a finding, not an exception."""
    for name, probe in PROBES.items():
        try:
            yield from probe()
        except Exception as error:
            yield Finding("✗", name, f"{type(error).__name__}: {error}", REINSTALL)


def check_python() -> Iterator[Finding]:
    """Ask whether Python is new enough."""
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    wanted = ".".join(map(str, OLDEST_PYTHON))
    if sys.version_info[:2] < OLDEST_PYTHON:
        yield Finding("✗", "python", f"{found}; {wanted} or newer is wanted", "install it")
    else:
        yield Finding("✓", "python", f"{found}, {sys.prefix}")


def check_packages() -> Iterator[Finding]:
    """Ask whether every needed package is here, in the range that the course needs."""
    pins, problems = _pins(), []
    needed = _requirements()
    for requirement in needed:
        problems += filter(None, [_check_package(requirement, pins.get(requirement.name.lower()))])
    yield from problems
    if not any(problem.mark == "✗" for problem in problems):
        exact = f", {len(needed) - len(problems)} exactly as in constraints.txt" if pins else ""
        yield Finding("✓", "packages", f"all {len(needed)} in the wanted ranges{exact}")


def _check_package(requirement, pin):
    wanted = f"{requirement.name}{requirement.specifier}"
    install = f'python -m pip install "{pin or wanted}"'
    try:
        version = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        return Finding("✗", requirement.name, "not installed", install)
    if not requirement.specifier.contains(version, prereleases=True):
        return Finding("✗", requirement.name, f"{version}, but {wanted} is wanted", install)
    if pin and not pin.specifier.contains(version, prereleases=True):
        detail = f"{version}; the course was tested with {pin}"
        return Finding("!", requirement.name, detail, install)
    return None


def _requirements():
    """Return the packages that apply here, from the installed metadata or from pyproject."""
    from packaging.requirements import Requirement

    pyproject = ROOT / "pyproject.toml"
    if pyproject.is_file():
        lines = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]["dependencies"]
    else:
        lines = importlib.metadata.requires("lightcourse") or []
    requirements = [Requirement(line) for line in lines]
    return [r for r in requirements if r.marker is None or r.marker.evaluate({"extra": ""})]


def _pins():
    """Return what constraints.txt pins, by lower-case name; empty where there is no such file."""
    from packaging.requirements import Requirement

    path = ROOT / "constraints.txt"
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    lines = [line.split("#")[0].strip() for line in text.splitlines()]
    pins = [Requirement(line) for line in lines if line]
    return {p.name.lower(): p for p in pins if p.marker is None or p.marker.evaluate()}


def check_cpu() -> Iterator[Finding]:
    """Name the processor, its cores and the instructions that the kernels could use."""
    import psutil

    physical, logical = psutil.cpu_count(logical=False), psutil.cpu_count()
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else logical
    detail = f"{_cpu_name()}; cores: {physical or '?'}, threads: {logical}, usable: {usable}"
    yield Finding("✓", "cpu", detail)
    yield Finding("✓", "cpu features", " ".join(_cpu_features()) or "none that matters here")


def _cpu_name():
    from llvmlite import binding

    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return binding.get_host_cpu_name()


def _cpu_features():
    """Return those of FEATURES that LLVM, which compiles the kernels, sees on this machine."""
    from llvmlite import binding

    try:
        found = binding.get_host_cpu_features()
    except RuntimeError:  # some ARM machines do not tell
        return ["not told by this system"]
    return [feature for feature in FEATURES if found.get(feature)]


def check_memory() -> Iterator[Finding]:
    """Ask whether there is memory for a chapter."""
    import psutil

    memory = psutil.virtual_memory()
    detail = f"{memory.available / GIB:.1f} of {memory.total / GIB:.1f} GiB free"
    if memory.available < LITTLE_MEMORY:
        step = f"close other programs until {LITTLE_MEMORY // GIB} GiB are free"
        yield Finding("!", "memory", detail, step)
    else:
        yield Finding("✓", "memory", detail)


def check_disk() -> Iterator[Finding]:
    """Ask whether the cache folder has room for the assets that are still missing."""
    from lightcourse import assets

    folder = assets.cache_dir()
    existing = next(parent for parent in [folder, *folder.parents] if parent.exists())
    free = shutil.disk_usage(existing).free
    missing = [a for a in assets.CATALOG.values() if a.needed and assets.status(a.name) != "intact"]
    # Twice, because SmolLM2 is kept a second time, converted.
    wanted = 2 * sum(asset.size + asset.unpacked for asset in missing)
    detail = f"{free / GIB:.1f} GiB free in {folder}"
    if not os.access(existing, os.W_OK):
        # A room may share one folder that holds all; only converted models are then not kept.
        mark, detail = ("✗" if missing else "!"), f"{folder} cannot be written"
        yield Finding(mark, "disk", detail, OWN_FOLDER)
    elif free < wanted:
        step = f"free {wanted / GIB:.1f} GiB, or set LIGHTCOURSE_CACHE to a roomier folder"
        yield Finding("✗", "disk", detail, step)
    else:
        yield Finding("✓", "disk", detail)


def check_assets() -> Iterator[Finding]:
    """Ask whether the downloaded models and data are whole, by their hashes."""
    from lightcourse import assets

    for asset in assets.CATALOG.values():
        status = assets.status(asset.name)
        name, step = f"asset {asset.name}", f"lightcourse assets {asset.name}"
        if status == "intact":
            yield Finding("✓", name, status)
        elif asset.needed or status != "missing":
            yield Finding("✗" if asset.needed else "!", name, status, step)


def check_bundled() -> Iterator[Finding]:
    """Ask whether the models and data that come with the course load."""
    from lightcourse import data, models

    for name, load in {
        "teacher": lambda: models.load_tiny_lm("teacher"),
        "student": lambda: models.load_tiny_lm("student"),
        "tokenizer": models.load_tiny_tokenizer,
        "speeches": lambda: data.load_speeches("test"),
        "reviews": data.load_reviews,
        "factbook": data.load_factbook,
    }.items():
        yield _try_to_load(name, load)


def _try_to_load(name: str, load: Callable) -> Finding:
    try:
        load()
    except Exception as error:
        return Finding("✗", f"bundled {name}", f"{type(error).__name__}: {error}", RESTORE)
    return Finding("✓", f"bundled {name}", "loads")


def check_kernels() -> Iterator[Finding]:
    """Ask which kernels this machine runs, and whether they answer as NumPy does."""
    import numba

    from lightcourse import kernels
    from lightcourse.kernels import caching, trials

    path, wrong = kernels.path(), trials.wrong()
    if wrong:
        step = f"unset NUMBA_* variables, delete {caching.folder()}, and look again"
        detail = f"{path}: Numba and NumPy disagree on {', '.join(wrong)}"
        yield Finding("✗", "kernels", detail, step)
    elif numba.config.DISABLE_JIT:
        step = "unset NUMBA_DISABLE_JIT to compile them"
        yield Finding("!", "kernels", "equal to NumPy, but the compiler is off: slow", step)
    else:
        compiled = f"compiled by Numba {numba.__version__}"
        yield Finding("✓", "kernels", f"path {path}, equal to NumPy, {compiled}")


def check_kernel_cache() -> Iterator[Finding]:
    """Ask where compiled kernels are kept from one run to the next."""
    from lightcourse.kernels import caching

    folder = caching.folder()
    if folder is None:
        detail = "compiled anew in each process: no folder can be written"
        yield Finding("!", "kernel cache", detail, OWN_FOLDER)
    elif folder.is_relative_to(tempfile.gettempdir()):
        detail = f"{folder}: the system may empty it"
        yield Finding("!", "kernel cache", detail, OWN_FOLDER)
    else:
        yield Finding("✓", "kernel cache", str(folder))


PROBES = {
    "python": check_python,
    "packages": check_packages,
    "cpu": check_cpu,
    "memory": check_memory,
    "disk": check_disk,
    "assets": check_assets,
    "bundled files": check_bundled,
    "kernels": check_kernels,
    "kernel cache": check_kernel_cache,
}
