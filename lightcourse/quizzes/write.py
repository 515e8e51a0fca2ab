"""Quizzes as files for other programs."""

from pathlib import Path

from lightcourse import files
from lightcourse.quizzes.moodle import moodle_xml
from lightcourse.quizzes.page import printed_page
from lightcourse.quizzes.qti import qti_package
from lightcourse.quizzes.read import Quiz

FORMATS = {
    "moodle": (".moodle.xml", moodle_xml),
    "qti": (".qti.zip", qti_package),
    "print": (".html", printed_page),
}


def write_quiz(quiz: Quiz, form: str, folder: str | Path) -> Path:
    """Write a quiz into a folder, atomically, and return the file.

    Parameters
    ----------
    form : str
        ``"moodle"``, ``"qti"`` or ``"print"``.
    folder : path
        Made where it is missing.

    Raises
    ------
    ValueError
        When there is no such form, or ``folder`` is a file.
    """
    if form not in FORMATS:
        raise ValueError(f"form is {form!r}; one of {', '.join(FORMATS)} is wanted")
    ending, content = FORMATS[form]
    path = files.checked_folder(folder, "folder") / f"{quiz.name}{ending}"
    made = content(quiz)
    return files.write_atomically(path, lambda temporary: temporary.write_bytes(made))
