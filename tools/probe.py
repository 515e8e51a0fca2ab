"""Find figures that another processor would print differently, without having one.

``python tools/probe.py run [VARIATION …]`` executes every notebook as other machines might, and
keeps what came out in build/probe; ``python tools/probe.py report`` compares that with what is
committed, and writes docs/any-machine.md. A VARIATION may be followed by names of notebooks
(``noise-1:03_pruning``).
"""

import difflib
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
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
    "this-processor": {},
    "noise-1": {"LIGHTCOURSE_NOISE": "1"},
    "noise-2": {"LIGHTCOURSE_NOISE": "2"},
    "avx2": AVX2,
    "sse": SSE,
    "busy-1": {},
    "busy-2": {},
    "busy-3": {},
}


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
    client = NotebookClient(
        notebook, allow_errors=True, resources={"metadata": {"path": path.parent}}
    )
    quiet = {"TQDM_DISABLE": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT), "OMP_WAIT_POLICY": "PASSIVE"}
    client.execute(env={**os.environ, **quiet, **settings})
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


def moved(reference, answer) -> list[str]:
    """Return how two runs of a notebook differ by more than its cells allow, cell by cell."""
    found = []
    cells = [
        rules.code_cells(reference),
        rules.code_cells(answer)[-len(rules.code_cells(reference)) :],
    ]
    for number, (ours, theirs) in enumerate(zip(*cells, strict=True)):
        raised = [o for o in theirs.outputs if o.output_type == "error"]
        found += [f"[cell {number}] raises {o.ename}: {o.evalue}" for o in raised]
        if not raised and not rules.ignores_output(ours):
            found += [f"[cell {number}] {line}" for line in _changes(ours, theirs)]
    return found


def _changes(ours, theirs):
    one, other = ("\n".join(_texts(cell)) for cell in (ours, theirs))
    if tolerances.agree(one, other, **tolerances.stated(ours)):
        return []
    lines = difflib.ndiff(one.splitlines(), other.splitlines())
    return [line for line in lines if line.startswith(("- ", "+ "))]


def _texts(cell):
    return [text for output in cell.outputs for text in rules.texts(output)]


def compared() -> dict[str, dict[str, list[str]]]:
    """Return what moved, by variation and notebook, in all that was kept."""
    result = {}
    for variation in VARIATIONS:
        for path in committed():
            kept = KEPT / variation / path.parent.name / path.name
            if kept.exists():
                pair = (nbformat.read(p, as_version=4) for p in (path, kept))
                name = f"{path.parent.name}/{path.stem}"
                result.setdefault(variation, {})[name] = moved(*pair)
    return result


def main(arguments: list[str]) -> int:
    """Run, or report; return 1 where a figure moved by more than its tolerance."""
    verb, *wanted = arguments
    if verb == "run":
        for variation, _, names in (entry.partition(":") for entry in wanted or VARIATIONS):
            if variation.startswith("busy"):
                with both_cores_busy():
                    run(variation, names.split(",") if names else [])
            else:
                run(variation, names.split(",") if names else [])
        return 0
    result = compared()
    for variation, notebooks in result.items():
        for name, lines in notebooks.items():
            for line in lines:
                print(variation, name, line)
    return int(any(lines for notebooks in result.values() for lines in notebooks.values()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
