"""Build the notebooks: ``python -m tools.notebooks [NAME …]``, as ``make notebooks`` does.

Each folder ``sources/NN_topic`` is a chapter's room. Its ``chapter.py`` and ``exercises.py``, in
py:percent, become notebooks (jupytext); a solution also becomes a blank exercise (nbgrader), and
each one is executed (nbclient). Its ``quiz.yaml`` becomes a cell at the chapter's end. The same
sources give the same bytes. What is told below a figure becomes its alternative text, which is
where nbconvert and screen readers look for it.

What follows from the list of rooms is written here and nowhere by hand: README's table, with
what a chapter cost in time and memory, and the line at a chapter's end that names the next one.
That line is renewed in notebooks that are not built anew, for prose need not be executed.
"""

import base64
import hashlib
import os
import re
import sys
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import jupytext
import nbformat
from nbconvert import NotebookExporter
from nbconvert.preprocessors import CoalesceStreamsPreprocessor
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from traitlets.config import Config

from lightcourse import classroom, quizzes
from lightcourse.classroom.begun import STUB
from tools import graded, rules, tolerances

ROOT = Path(__file__).resolve().parents[1]
TIME_LIMIT = float(os.environ.get("LIGHTCOURSE_TIME_LIMIT", 90))
SHOWCASE = Path("chapters", "00_start.ipynb")  # README shows its last figure, which is kept in
PICTURE = Path("docs", "ledger.png")
KEPT_METADATA = ("tags", *tolerances.KEYS, "nbgrader", "deletable", "editable")
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"file_extension": ".py", "name": "python"},
}
# As nbgrader does with instructors/nbgrader_config.py to release an assignment.
BLANK = Config(
    NotebookExporter={
        "preprocessors": [
            "nbconvert.preprocessors.TagRemovePreprocessor",
            "nbgrader.preprocessors.LockCells",
            "nbgrader.preprocessors.ClearSolutions",
            "nbgrader.preprocessors.ClearHiddenTests",
            "nbgrader.preprocessors.ClearOutput",
            "nbgrader.preprocessors.ComputeChecksums",
            "nbgrader.preprocessors.CheckCellMetadata",
        ]
    },
    TagRemovePreprocessor={"enabled": True, "remove_cell_tags": {"solution"}},
    ClearSolutions={"code_stub": {"python": STUB}},
)
TABLE = re.compile(r"(?<=<!-- chapters -->\n).*?(?=<!-- /chapters -->)", re.DOTALL)
HEADING = re.compile(r"# (?P<number>\d\d) · (?P<topic>.+?) — (?P<promise>.+)")
NEXT, THEN = "**Next:** {steps}.", ", then "
TO_EXERCISES = "[the exercises of this chapter]({file})"
TO_CHAPTER = "chapter {number}, [*{topic}*]({file}): {promise}"
HEAD = "| chapter | promise | practice | run time | peak memory |\n|---|---|---|---|---|\n"


def from_source(path: Path):
    """Return the unexecuted notebook that a py:percent file stands for."""
    return tidy(jupytext.reads(path.read_text(encoding="utf-8"), fmt="py:percent"))


def blank(solution):
    """Return the exercise that a solution notebook becomes without its solutions."""
    text, _ = NotebookExporter(config=BLANK).from_notebook_node(solution)
    return tidy(nbformat.reads(text, as_version=4))


def unexecuted(root: Path) -> dict:
    """Return every notebook that the rooms under ``root`` stand for, by its path."""
    notebooks = {}
    rooms = sorted(root.glob("sources/[0-9][0-9]_*"))
    for room, after in zip(rooms, [*rooms[1:], None], strict=True):
        name = f"{room.name}.ipynb"
        notebooks[root / "chapters" / name] = closed(from_source(room / "chapter.py"), room, after)
        if (room / "exercises.py").exists():
            solution = graded.with_points(from_source(room / "exercises.py"))
            notebooks[root / "solutions" / name] = solution
            notebooks[root / "exercises" / name] = blank(solution)
    return notebooks


def heading(chapter) -> dict:
    """Return the number, topic and promise that a chapter's first line states.

    Raises
    ------
    RuntimeError
        When that line has another form.
    """
    line = chapter.cells[0].source.partition("\n")[0]
    found = HEADING.fullmatch(line)
    if not found:
        raise RuntimeError(f"a chapter opens with {line!r}; '# NN · Topic — promise' is wanted")
    return found.groupdict()


def closed(chapter, room: Path, after: Path | None):
    """Return the chapter of a room with its quiz and, as its last cell, what comes next.

    A cell of its own, so that nothing else changes in a chapter when another one follows it.
    """
    quiz = quizzes.read_quiz(room) if (room / "quiz.yaml").exists() else None
    words = (
        heading(from_source(after / "chapter.py")) | {"file": f"{after.name}.ipynb"}
        if after
        else None
    )
    return tidy(new_notebook(cells=[*chapter.cells, *ending(room, quiz, words)]))


def ending(room: Path, quiz, after: dict | None, say: Callable[[str], str] = str) -> list:
    """Return the cells that the build adds to a chapter: its quiz, and what comes next.

    Parameters
    ----------
    room : path
    quiz : Quiz or None
    after : dict, optional
        The next chapter's heading, and its ``file``.
    say : callable
        From what the build says in English to what it says in another language.
    """
    cells, steps = [], []
    if quiz:
        cells.append(new_markdown_cell(quizzes.as_markdown(quiz, say)))
    if (room / "exercises.py").exists():
        steps.append(say(TO_EXERCISES).format(file=f"../exercises/{room.name}.ipynb"))
    if after:
        steps.append(say(TO_CHAPTER).format(**after))
    if steps:
        cells.append(new_markdown_cell(say(NEXT).format(steps=say(THEN).join(steps))))
    return cells


def tidy(notebook):
    """Return a copy with nothing in it that differs between two runs of the same source."""
    notebook, _ = CoalesceStreamsPreprocessor(enabled=True)(notebook, {})
    seen, cells = Counter(), []
    for cell in notebook.cells:
        digest = hashlib.sha256(f"{cell.cell_type} {cell.source}".encode()).hexdigest()[:12]
        seen[digest] += 1
        cells.append(_tidy_cell(cell, f"{digest}-{seen[digest]}"))
    for cell, after in pairwise(cells):
        for picture in rules.pictures(cell):
            picture.metadata[rules.PICTURE] = {"alt": rules.description(after.source)}
    return new_notebook(cells=cells, metadata=METADATA)


def _tidy_cell(cell, identity):
    metadata = {key: cell.metadata[key] for key in KEPT_METADATA if key in cell.metadata}
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


def renew(notebook, path: Path) -> bool:
    """Bring the prose of a built notebook up to date and tell whether that changed anything.

    It keeps its outputs, so where its code is no longer what was executed it stays as it is.
    """
    if not path.exists():
        return False
    old = path.read_text(encoding="utf-8")
    ours, theirs = map(rules.code_cells, (notebook, nbformat.reads(old, as_version=4)))
    if [cell.source for cell in ours] != [cell.source for cell in theirs]:
        return False
    for cell, executed in zip(ours, theirs, strict=True):
        cell.update(outputs=executed.outputs, execution_count=executed.execution_count)
    nbformat.write(tidy(notebook), path)
    return path.read_text(encoding="utf-8") != old


def row(path: Path, notebook, cost) -> str:
    """Return a chapter's line of README's table: its heading, its exercises, its cost."""
    title = "{number} · {topic}".format(**heading(notebook))
    practice = f"[exercises](exercises/{path.name}), [solutions](solutions/{path.name})"
    size = f"{cost.peak_bytes / 1e9:.1f} GB"
    return (
        f"| [{title}](chapters/{path.name}) | {heading(notebook)['promise']} | {practice} "
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
    pictures = [picture for cell in notebook.cells for picture in rules.pictures(cell)]
    return base64.b64decode(pictures[-1].data[rules.PICTURE])


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
        if not names or path.stem in names:
            _build_and_enter(notebook, path, root)
        elif renew(notebook, path):
            print(f"{path.relative_to(root)}: new prose, as executed before")
    if (root / "sources" / "zh.po").exists():
        from tools.translations import __main__ as translations  # which imports this module

        translations.update(root)


def _build_and_enter(notebook, path, root):
    cost = build(notebook, path)
    print(f"{path.relative_to(root)}: {cost.seconds:.1f} s, {cost.peak_bytes / 1e9:.2f} GB")
    if path.parent.name == "chapters":
        enter(row(path, notebook, cost), root / "README.md")
    if path == root / SHOWCASE:
        (root / PICTURE).write_bytes(last_picture(notebook))


if __name__ == "__main__":
    os.environ |= {"TQDM_DISABLE": "1", "HF_HUB_OFFLINE": "1"}
    try:
        main(sys.argv[1:])
    except RuntimeError as error:
        sys.exit(str(error))
