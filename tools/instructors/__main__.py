"""Build what instructors print and project: ``python -m tools.instructors [NAME …]``.

From the committed notebooks come slides and keys, and from sources the quizzes, as HTML and, where
a browser is on the machine, as PDF, below build/instructors, which is not committed.
"""

import shutil
import sys
from pathlib import Path

import nbformat

from lightcourse import quizzes
from tools import browser
from tools.instructors import pages, paper

ROOT = Path(__file__).resolve().parents[2]
TARGET = ROOT / "build" / "instructors"
NO_BROWSER = "no Chromium, Chrome or Edge found: the PDFs are missing, the HTML is there"


def build(folder: str, kind: str, write, names: list[str], target: Path) -> list[Path]:
    """Write each named notebook of a folder, or all, as HTML below ``target/kind``."""
    written = []
    (target / kind).mkdir(parents=True, exist_ok=True)
    for path in sorted((ROOT / folder).glob("*.ipynb")):
        if not names or path.stem in names:
            notebook = nbformat.read(path, as_version=4)
            written.append(target / kind / f"{path.stem}.html")
            written[-1].write_text(write(notebook, path.stem), encoding="utf-8")
    return written


def quizzes_of(names: list[str], target: Path) -> list[Path]:
    """Write each named quiz, or all, for Moodle, as QTI and to print; return the pages to print."""
    found = [quiz for quiz in quizzes.read_quizzes(ROOT) if not names or quiz.name in names]
    for quiz in found:
        for kind in ("moodle", "qti"):
            quizzes.write_quiz(quiz, kind, target / kind)
    return [quizzes.write_quiz(quiz, "print", target) for quiz in found]


def main(names: list[str], target: Path = TARGET) -> None:
    """Build slides, keys and quizzes of the chapters ``names``, or of all; print them as PDF."""
    pages.copy_assets(target)
    shutil.copytree(ROOT / "chapters" / "images", target / "slides" / "images", dirs_exist_ok=True)
    written = build("chapters", "slides", pages.slides, names, target)
    written += build("solutions", "keys", pages.page, names, target)
    written += quizzes_of(names, target / "quizzes")
    if browser.path() is None:
        print(NO_BROWSER)
    else:
        with browser.launched() as chromium:
            for html in written:
                print(paper.print_page(chromium, html).relative_to(target))
    print(f"{len(written)} pages below {target}")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except FileNotFoundError as error:
        sys.exit(str(error))
