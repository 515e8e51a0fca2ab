"""A class's submissions on disk: who handed in which notebook, in the layouts that are common.

``FOLDER/alice/03_pruning.ipynb``; nbgrader's ``FOLDER/submitted/alice/03_pruning/
03_pruning.ipynb``, from either folder; Moodle's download, ``FOLDER/Name
Surname_12345_assignsubmission_file_/03_pruning.ipynb``.
"""

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

MOST_BYTES = 20 * 2**20
MOODLE = re.compile(r"_assignsubmission_file_?$")
NO_LEARNERS = re.compile(r"^\.|^__MACOSX$|_assignsubmission_(?!file)\w+$")


@dataclass(frozen=True)
class Submission:
    """What a learner handed in: its notebook's path, or why there is none; a remark on it."""

    learner: str
    path: Path | None
    remark: str = ""


def find(folder: Path, notebook: str) -> list[Submission]:
    """Return one submission for each folder of a learner, sorted by their names.

    Parameters
    ----------
    folder : path
        That of the class.
    notebook : str
        The wanted file's name, such as ``"03_pruning.ipynb"``. Where a learner's folder has
        no such file but one other notebook, that one is taken, and the remark says so.

    Raises
    ------
    ValueError
        When there is no folder of a learner.
    """
    return [_submission(home, learner, notebook) for learner, home in homes(folder)]


def homes(folder: Path) -> list[tuple[str, Path]]:
    """Return (learner, their folder) for each folder of a learner, sorted by names.

    Raises
    ------
    ValueError
        When there is none.
    """
    submitted = folder / "submitted"
    root = submitted if submitted.is_dir() and not submitted.is_symlink() else folder
    names = sorted(name for name in os.listdir(root) if not NO_LEARNERS.search(name))
    found = [name for name in names if os.path.isdir(root / name)]
    if not found:
        raise ValueError(f"no folder of a learner in {root}; one folder a learner is wanted")
    short = [MOODLE.sub("", home) for home in found]
    learners = [s if short.count(s) == 1 else h for s, h in zip(short, found, strict=True)]
    return [(shown(x), root / h) for h, x in zip(found, learners, strict=True)]


def _submission(home, learner, notebook):
    places = [home, home / Path(notebook).stem]
    for place in places:
        if place.is_symlink():
            return Submission(learner, None, "the folder is a symbolic link, which is not followed")
    for place in places:
        if os.path.lexists(place / notebook):
            return Submission(learner, place / notebook)
    others = [path for place in places if place.is_dir() for path in sorted(place.glob("*.ipynb"))]
    if len(others) == 1:
        return Submission(learner, others[0], f"graded {shown(others[0].name)}")
    many = f"; there are {len(others)} others" if others else ""
    return Submission(learner, None, f"no notebook {notebook}{many}")


def shown(name: str) -> str:
    """Return a file's name as text that can be written everywhere, different for each name."""
    return "".join(c if c.isprintable() and c != "\\" else ascii(c)[1:-1] for c in name)


def content(path: Path) -> bytes:
    """Return what is in a plain file of a learner's; nothing else is opened, nor followed.

    Raises
    ------
    ValueError
        With a sentence for its author, when it is a link, no plain file, or too large.
    """
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    flags |= getattr(os, "O_BINARY", 0)
    if path.is_symlink():
        raise ValueError("the notebook is a symbolic link, which is not followed")
    try:
        file = os.open(path, flags)
    except OSError as error:
        raise ValueError(f"the notebook cannot be opened: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise ValueError("the notebook is no plain file")
    with open(file, "rb") as opened:
        found = opened.read(MOST_BYTES + 1)
    if len(found) > MOST_BYTES:
        raise ValueError(f"the notebook has more than {MOST_BYTES >> 20} MiB; it is not read")
    return found
