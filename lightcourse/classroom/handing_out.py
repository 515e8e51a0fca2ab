"""Variants for a class on disk: a notebook for each learner, and a folder of keys beside them."""

import csv
from dataclasses import dataclass
from pathlib import Path

from lightcourse import files
from lightcourse.classroom import keys, variants

MOST = 2000
HEADS = ("name", "learner", "username", "user", "student", "id")


@dataclass(frozen=True)
class Written:
    """What was written: the folders, how many variants, and what is not each one's own."""

    notebooks: Path
    keys: Path
    count: int
    shared: dict[str, int]


def read_names(path: str | Path) -> list[str]:
    """Return the names in the first column of a CSV file, without its head.

    Raises
    ------
    ValueError
        When there is none, one comes twice, or one cannot be a folder's name.
    """
    with open(path, newline="", encoding="utf-8-sig") as file:
        column = [row[0].strip() for row in csv.reader(file) if row and row[0].strip()]
    names = column[1:] if column and column[0].lower() in HEADS else column
    if not names:
        raise ValueError(f"{path} names nobody; a name in the first column of each line is wanted")
    for name in names:
        if name.startswith(".") or not name.isprintable() or set(name) & set('/\\:*?"<>|'):
            raise ValueError(f"{path} has the name {name!r}, which can be no folder's")
        if [other.casefold() for other in names].count(name.casefold()) > 1:
            raise ValueError(f"{path} has the name {name!r} twice; each name once is wanted")
    return names


def write_variants(exercise, room, out, seed: int, who: int | list[str]) -> Written:
    """Write so many variants of an exercise, or one for each name, and their keys.

    The same arguments write the same bytes.

    Parameters
    ----------
    exercise : nbformat node
        The course's own.
    room : path
        The chapter's folder of sources, such as ``sources/03_pruning``.
    out : path
        A new folder. Its ``notebooks`` are for learners, its ``keys`` for nobody but graders.
    seed : int
        Of the numbers and ids. Who knows it can find out all keys.
    who : int or list of str
        How many, or whose. With names, a variant counts for its own learner only.

    Raises
    ------
    ValueError
        When the chapter asks nothing by hand, ``who`` is out of range, or ``out`` holds keys.
    """
    room, out = Path(room), Path(out)
    names = [""] * who if isinstance(who, int) else who
    if not 1 <= len(names) <= MOST:
        raise ValueError(f"count is {len(names)}; 1 to {MOST} are wanted")
    if out.exists() and any(out.iterdir()):
        raise ValueError(f"out is {out}, which is not empty; a new folder is wanted")
    questions = variants.read_questions(room)
    dealt = {n: variants.deal(question, len(names), seed) for n, question in questions.items()}
    for number, name in enumerate(names):
        numbers = {question: of_each[number] for question, of_each in dealt.items()}
        variant = variants.variant_id(room.name, seed, number)
        notebook = variants.make(exercise, questions, numbers, variant)
        _write_notebook(notebook, out / "notebooks" / (name or variant) / f"{room.name}.ipynb")
        key = keys.new_key(room.name, variant, name, numbers)
        _write(out / "keys" / f"{name or variant}.json", keys.as_text(key))
    shared = {name: _different(name, each) for name, each in dealt.items()}
    shared = {name: count for name, count in shared.items() if count < len(names)}
    return Written(out / "notebooks", out / "keys", len(names), shared)


def _different(question, dealt):
    """Return how many different answers the variants have."""
    from lightcourse.checks import BY_HAND, by_hand

    wanted = [by_hand.find_wanted(BY_HAND[question], n) for n in dealt]
    return len({repr(each) for each in wanted})


def _write_notebook(notebook, path):
    import nbformat

    _write(path, nbformat.writes(notebook) + "\n")


def _write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_atomically(path, lambda new: new.write_bytes(text.encode()))
