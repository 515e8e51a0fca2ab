"""Build the notebooks: ``python -m tools.notebooks [NAME …]``, as ``make notebooks`` does.

A py:percent source becomes a notebook (jupytext), a solution also becomes a blank exercise
(nbgrader), and each one is executed (nbclient). The same sources give the same bytes.
What a chapter cost in time and memory goes into README's table, never into the notebook.
"""

import base64
import hashlib
import os
import re
import sys
from collections import Counter
from pathlib import Path

import jupytext
import nbformat
from nbconvert import NotebookExporter
from nbconvert.preprocessors import CoalesceStreamsPreprocessor
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from traitlets.config import Config

from lightcourse import classroom
from tools import tolerances

ROOT = Path(__file__).resolve().parents[1]
TIME_LIMIT = float(os.environ.get("LIGHTCOURSE_TIME_LIMIT", 90))
SHOWCASE = Path("chapters", "00_start.ipynb")  # README shows its last figure
STUB = "...  # your code here"
KEPT_METADATA = ("tags", *tolerances.KEYS)
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"file_extension": ".py", "name": "python"},
}
BLANK = Config(
    NotebookExporter={
        "preprocessors": [
            "nbconvert.preprocessors.TagRemovePreprocessor",
            "nbgrader.preprocessors.ClearSolutions",
            "nbgrader.preprocessors.ClearHiddenTests",
            "nbgrader.preprocessors.ClearOutput",
        ]
    },
    TagRemovePreprocessor={"enabled": True, "remove_cell_tags": {"solution"}},
    ClearSolutions={
        "enforce_metadata": False,
        "code_stub": {"python": STUB},
        "text_stub": "*Your answer here.*",
    },
    ClearHiddenTests={"enforce_metadata": False},
)
TABLE = re.compile(r"(?<=<!-- chapters -->\n).*?(?=<!-- /chapters -->)", re.DOTALL)
HEAD = "| chapter | promise | practice | run time | peak memory |\n|---|---|---|---|---|\n"


def from_source(path: Path):
    """Return the unexecuted notebook that a py:percent file stands for."""
    return tidy(jupytext.reads(path.read_text(encoding="utf-8"), fmt="py:percent"))


def blank(solution):
    """Return the exercise that a solution notebook becomes without its solutions."""
    text, _ = NotebookExporter(config=BLANK).from_notebook_node(solution)
    return tidy(nbformat.reads(text, as_version=4))


def unexecuted(root: Path) -> dict:
    """Return every notebook that the sources under ``root`` stand for, by its path."""
    notebooks = {}
    for source in sorted(root.glob("chapters/src/*.py")):
        notebooks[root / "chapters" / f"{source.stem}.ipynb"] = from_source(source)
    for source in sorted(root.glob("solutions/src/*.py")):
        solution = from_source(source)
        notebooks[root / "solutions" / f"{source.stem}.ipynb"] = solution
        notebooks[root / "exercises" / f"{source.stem}.ipynb"] = blank(solution)
    return notebooks


def tidy(notebook):
    """Return a copy with nothing in it that differs between two runs of the same source."""
    notebook, _ = CoalesceStreamsPreprocessor(enabled=True)(notebook, {})
    seen, cells = Counter(), []
    for cell in notebook.cells:
        digest = hashlib.sha256(f"{cell.cell_type} {cell.source}".encode()).hexdigest()[:12]
        seen[digest] += 1
        cells.append(_tidy_cell(cell, f"{digest}-{seen[digest]}"))
    return new_notebook(cells=cells, metadata=METADATA)


def _tidy_cell(cell, identity):
    metadata = {key: cell.metadata[key] for key in KEPT_METADATA if cell.metadata.get(key)}
    common = {"id": identity, "source": cell.source, "metadata": metadata}
    if cell.cell_type != "code":
        return new_markdown_cell(**common)
    return new_code_cell(**common, outputs=cell.outputs, execution_count=cell.execution_count)


def build(notebook, path: Path):
    """Execute a notebook and write it to ``path``; return what it cost.

    Raises
    ------
    RuntimeError
        When a cell raised, or everything together took more than 90 s (or the seconds in
        the environment variable LIGHTCOURSE_TIME_LIMIT). Nothing is written then.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    cost = classroom.execute(notebook, path.parent)
    if cost.failure:
        cell = cost.failure
        raise RuntimeError(f"{path.name}, code cell {cell.number}: {cell.error}\n{cell.source}")
    if cost.seconds > TIME_LIMIT:
        raise RuntimeError(f"{path.name} took {cost.seconds:.0f} s; {TIME_LIMIT:.0f} s is allowed")
    nbformat.write(tidy(notebook), path)
    return cost


def row(path: Path, notebook, cost) -> str:
    """Return a chapter's line of README's table: its heading, its exercises, its cost."""
    heading = notebook.cells[0].source.splitlines()[0].removeprefix("# ")
    title, _, promise = heading.partition(" — ")
    practice = f"[exercises](exercises/{path.name}), [solutions](solutions/{path.name})"
    size = f"{cost.peak_bytes / 1e9:.1f} GB"
    return (
        f"| [{title}](chapters/{path.name}) | {promise} | {practice} "
        f"| {cost.seconds:.0f} s | {size} |\n"
    )


def enter(row: str, readme: Path) -> None:
    """Put a chapter's line into README's table, in place of its former one."""
    text = readme.read_text(encoding="utf-8")
    table = TABLE.search(text)
    if not table:
        raise RuntimeError(f"{readme} lacks the lines <!-- chapters --> and <!-- /chapters -->")
    rows = {_link(line): line for line in table[0].splitlines(keepends=True) if _link(line)}
    rows[_link(row)] = row
    lines = HEAD + "".join(rows[link] for link in sorted(rows))
    readme.write_text(text[: table.start()] + lines + text[table.end() :], encoding="utf-8")


def last_picture(notebook) -> bytes:
    """Return the PNG of the notebook's last figure, byte for byte as readers see it."""
    pictures = [
        output.data["image/png"]
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
    ]
    return base64.b64decode(pictures[-1])


def _link(line):
    found = re.search(r"\(chapters/(\w+)\.ipynb\)", line)
    return found and found[1]


def main(names: list[str], root: Path = ROOT) -> None:
    """Build the notebooks called ``names``, or all; at the first failure raise."""
    notebooks = unexecuted(root)
    known = sorted({path.stem for path in notebooks})
    if unknown := set(names) - set(known):
        raise RuntimeError(f"no source is called {', '.join(sorted(unknown))}; there are {known}")
    for path, notebook in notebooks.items():
        if names and path.stem not in names:
            continue
        cost = build(notebook, path)
        print(f"{path.relative_to(root)}: {cost.seconds:.1f} s, {cost.peak_bytes / 1e9:.2f} GB")
        if path.parent.name == "chapters":
            enter(row(path, notebook, cost), root / "README.md")
        if path == root / SHOWCASE:
            (root / "chapters" / "ledger.png").write_bytes(last_picture(notebook))


if __name__ == "__main__":
    os.environ |= {"TQDM_DISABLE": "1", "HF_HUB_OFFLINE": "1"}
    try:
        main(sys.argv[1:])
    except RuntimeError as error:
        sys.exit(str(error))
