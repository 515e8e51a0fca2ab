"""The Chinese notebooks, ``zh/``: the English ones, as executed, with their prose replaced.

Code cells and what they printed are copied, so nothing is run again. A chapter joins once its
catalogue is whole. From then on a paragraph whose English has changed stands there in English,
until somebody has looked at its translation: a test names it.
"""

import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import nbformat

from lightcourse import quizzes
from tools import notebooks, rules
from tools.translations import catalogue, paragraphs

LANGUAGE = "zh"
KINDS = ("chapters", "solutions", "exercises")
COMMAND = "`lightcourse check "  # and a notebook's path, from the course's folder
LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)\s#]+)")


def published(root: Path) -> list[Path]:
    """Return the rooms that the edition has: once whole, and those that were."""
    shared = bool(catalogue.waiting(catalogue.common(root)))
    return [
        room for room in catalogue.rooms(root) if _is_there(room, root) or _is_whole(room, shared)
    ]


def _is_there(room, root):
    return (root / LANGUAGE / "chapters" / f"{room.name}.ipynb").exists()


def _is_whole(room, shared):
    if shared or not (room / catalogue.FILE).exists():
        return False
    return not catalogue.waiting(catalogue.of_room(room))


def notebooks_of(root: Path) -> dict:
    """Return every notebook of the edition by its path, made from the English ones on disk."""
    there, found = published(root), {}
    rooms = catalogue.rooms(root)
    for room, after in pairwise([*rooms, None]):
        if room in there:
            for kind in KINDS:
                path = Path(kind, f"{room.name}.ipynb")
                if (root / path).exists():
                    found[root / LANGUAGE / path] = _translated(root / path, room, after, there)
    return found


def write(root: Path) -> list[Path]:
    """Write the edition, and return the notebooks of it that have changed."""
    changed = []
    for path, notebook in notebooks_of(root).items():
        text = nbformat.writes(notebook) + "\n"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            changed.append(path)
    return changed


def words_of(room: Path, root: Path):
    """Return a function from a paragraph of a room, and its context, to Chinese."""
    known = catalogue.translations(catalogue.common(root))
    known |= catalogue.translations(catalogue.of_room(room))
    return lambda text, context=None: known.get((context, text), text)


def _translated(path, room, after, there):
    """Return one notebook with its cells' prose, the build's own cells, and links that lead on."""
    root = path.parents[1]
    say, notebook = words_of(room, root), nbformat.read(path, as_version=4)
    made = _ending(room, after, there, root, say) if path.parent.name == "chapters" else []
    kept = len(notebook.cells) - len(made)
    for cell in notebook.cells[:kept]:
        if cell.cell_type != "code":
            cell.source = paragraphs.replaced(cell.source, say)
    for cell, ours in zip(notebook.cells[kept:], made, strict=True):
        cell.source = ours.source
    for cell, below in pairwise(notebook.cells):
        for picture in rules.pictures(cell):
            picture.metadata[rules.PICTURE] = {"alt": rules.description(below.source)}
    _lead_on(notebook, path, {one.name for one in there})
    notebook.metadata["lightcourse"] = {"language": LANGUAGE}
    return notebook


def _ending(room, after, there, root, say):
    quiz = _quiz(room, say) if (room / "quiz.yaml").exists() else None
    words = _heading(after, there, root) if after else None
    return notebooks.ending(room, quiz, words, say)


def _heading(after, there, root):
    """Return the next chapter's heading, in Chinese where the edition has that chapter."""
    say = words_of(after, root) if after in there else str
    cell = notebooks.from_source(after / "chapter.py").cells[0]
    cell.source = paragraphs.replaced(cell.source, say)
    found = notebooks.heading(notebooks.new_notebook(cells=[cell]))
    return found | {"file": f"{after.name}.ipynb"}


def _quiz(room, say):
    """Return a room's quiz in Chinese."""
    quiz = quizzes.read_quiz(room)
    questions = [
        quizzes.Question(
            say(question.text, catalogue.QUIZ),
            [
                replace(c, **{n: say(getattr(c, n), catalogue.QUIZ) for n in ("text", "explain")})
                for c in question.choices
            ],
        )
        for question in quiz.questions
    ]
    return replace(quiz, questions=questions)


def _lead_on(notebook, path, there):
    """Let links lead out of the edition, to what it does not have."""

    def target(found):
        place = Path(found[1])
        return (
            found[1] if place.suffix == ".ipynb" and place.stem in there else _out(found[1], path)
        )

    for cell in notebook.cells:
        if cell.cell_type != "code":
            cell.source = LINK.sub(target, cell.source)
            cell.source = cell.source.replace(COMMAND, f"{COMMAND}{LANGUAGE}/")


def _out(link, path):
    """Return a link of an English notebook as it is from the same folder of the edition."""
    folder = path.parent.name
    return f"../{link}" if link.startswith("../") else f"../../{folder}/{link}"
