"""Find figures that another processor would print differently, without having one.

``python -m tools.probe run [VARIATION …]`` executes every notebook as other machines might, and
keeps what came out in build/probe; ``python -m tools.probe report`` compares that with what is
committed, and writes docs/any-machine.md. A VARIATION may be followed by names of notebooks:
``noise-1:03_pruning,04_linear_quantization``.
"""

import datetime
import difflib
import os
import subprocess
import sys
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell

import lightcourse
from benchmarks import machine
from lightcourse import classroom
from tools import notebooks, rules, tolerances

ROOT = Path(__file__).resolve().parents[1]
KEPT = ROOT / "build" / "probe"
REPORT = ROOT / "docs" / "any-machine.md"
SHAKE = f"exec(open({str(ROOT / 'tools' / 'noise.py')!r}).read(), {{}})"
# What each library does on a processor that has no more than this.
AVX2 = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "MKL_CBWR": "AVX2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "OPENBLAS_CORETYPE": "Haswell",
    "LIGHTCOURSE_KERNELS": "avx2",
}
SSE = {
    "ATEN_CPU_CAPABILITY": "default",
    "MKL_CBWR": "COMPATIBLE",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "OPENBLAS_CORETYPE": "Nehalem",
    "LIGHTCOURSE_KERNELS": "portable",
}
VARIATIONS = {
    "noise-1": {"LIGHTCOURSE_NOISE": "1"},
    "noise-2": {"LIGHTCOURSE_NOISE": "2"},
    "avx2": AVX2,
    "sse": SSE,
    "busy-1": {},
    "busy-2": {},
    "busy-3": {},
}

WHAT = {
    "noise-1": "weights and inputs moved by a millionth of their size",
    "noise-2": "the same, by other noise",
    "avx2": "every library computes as on a processor with AVX2 and no more",
    "sse": "every library computes as before AVX2, our kernels take the portable path",
    "busy-1": "other processes keep both cores busy",
    "busy-2": "once more",
    "busy-3": "once more",
}
HEADING = """# The course on other machines

What `tools/probe.py` found on {date}, on one machine: {processor}, kernels on
the path {path of our kernels}, torch {torch}, numpy {numpy}. It executed the notebooks of
the course as other machines might, and compared each cell with what is committed. Text, whole
numbers and shapes must be equal, a learned figure may move within the tolerance that its cell
states (`tools/tolerances.py`), an `assert` must hold.

| variation | what is changed | cells | moved within tolerance | moved beyond, or raised |
|---|---|---|---|---|"""


def committed() -> list[Path]:
    """Return every notebook of the course."""
    folders = ("chapters", "solutions", "exercises")
    return [path for folder in folders for path in sorted((ROOT / folder).glob("*.ipynb"))]


def run(variation: str, names: list[str]) -> None:
    """Execute the notebooks called ``names``, or all, as on the machine of a variation."""
    for path in committed():
        if not names or path.stem in names:
            kept = KEPT / variation / path.parent.name / path.name
            kept.parent.mkdir(parents=True, exist_ok=True)
            nbformat.write(executed(path, VARIATIONS[variation]), kept)
            print(variation, path.relative_to(ROOT), flush=True)


def executed(path: Path, settings: dict[str, str]):
    """Return a notebook as it comes out under the environment variables in ``settings``."""
    notebook = nbformat.read(path, as_version=4)
    if "LIGHTCOURSE_NOISE" in settings:
        notebook.cells.insert(0, new_code_cell(SHAKE))
    client = classroom.notebook_client(notebook, path.parent, allow_errors=True)
    quiet = {
        "TQDM_DISABLE": "1",
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": str(ROOT),
        **lightcourse.PATIENT,
    }
    client.execute(cleanup_kc=True, env={**os.environ, **quiet, **settings})
    return notebooks.tidy(notebook)


@contextmanager
def both_cores_busy():
    """Keep two processors busy meanwhile."""
    command = [sys.executable, "-c", "while True: pass"]
    others = [subprocess.Popen(command) for _ in range(2)]
    try:
        yield
    finally:
        for other in others:
            other.kill()


@dataclass
class Found:
    """What became of the cells of one variation: how many, and lines about those that moved."""

    compared: int = 0
    within: list[str] = field(default_factory=list)
    beyond: list[str] = field(default_factory=list)


def compare(variation: str) -> Found:
    """Compare with what is committed all that was kept of a variation."""
    found = Found()
    for path in committed():
        kept = KEPT / variation / path.parent.name / path.name
        if kept.exists():
            ours, theirs = (rules.code_cells(nbformat.read(p, as_version=4)) for p in (path, kept))
            shaken = len(theirs) - len(ours)  # the cell that brought the noise
            for number, pair in enumerate(zip(ours, theirs[shaken:], strict=True)):
                _enter(found, f"{path.parent.name}/{path.stem} [cell {number}]", *pair)
    return found


def _enter(found, place, ours, theirs):
    """Say of a cell whether it raised, moved within its tolerance, or beyond it."""
    raised = [o for o in theirs.outputs if o.output_type == "error"]
    one, other = ("\n".join(_texts(cell)) for cell in (ours, theirs))
    found.compared += 1
    if raised:
        found.beyond.append(f"{place} raises {raised[0].ename}: {raised[0].evalue}")
    elif rules.ignores_output(ours) or one == other:
        return
    elif not tolerances.agree(one, other, **tolerances.stated(ours)):
        lines = [line for line in difflib.ndiff(one.splitlines(), other.splitlines())]
        changes = [line for line in lines if line.startswith(("- ", "+ "))]
        found.beyond.append("\n".join([place, *changes]))
    elif "clock" not in tolerances.stated(ours):
        found.within.append(place)


def _texts(cell):
    return [text for output in cell.outputs for text in rules.texts(output)]


def report(result: dict[str, Found]) -> str:
    """Return the page that tells what moved, and on which machine that was found."""
    here = machine.describe()
    lines = [HEADING.format(date=datetime.date.today().isoformat(), **here)]
    for name, found in result.items():
        within, beyond = len(found.within), len(found.beyond)
        lines.append(f"| {name} | {WHAT[name]} | {found.compared} | {within} | {beyond} |")
    beyond = [f"{name}: {line}" for name, found in result.items() for line in found.beyond]
    lines += ["", *(f"```\n{line}\n```" for line in beyond)]
    places = sorted({place for found in result.values() for place in found.within})
    lines += [f"Cells whose figures moved within their tolerance: {', '.join(places)}.", ""]
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    """Run, or report; return 1 where a figure moved by more than its tolerance."""
    verb, *wanted = arguments
    if verb == "run":
        for variation, _, names in (entry.partition(":") for entry in wanted or VARIATIONS):
            with both_cores_busy() if variation.startswith("busy") else nullcontext():
                run(variation, names.split(",") if names else [])
        return 0
    result = {name: found for name in VARIATIONS if (found := compare(name)).compared}
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text(report(result), encoding="utf-8")
    print(REPORT.read_text(encoding="utf-8"))
    return int(any(found.beyond for found in result.values()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
