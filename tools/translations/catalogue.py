"""The catalogue of a room, ``zh.po``: its English paragraphs and what they are in Chinese.

Babel reads and writes it, and finds out what has become of a paragraph that was changed. What
stands in many rooms, or is said by the build itself, is in one for all, ``sources/zh.po``.
"""

import io
from pathlib import Path

from babel.messages.catalog import Catalog
from babel.messages.pofile import denormalize, read_po, write_po

from lightcourse import quizzes
from lightcourse.quizzes import cell as quiz_cell
from tools import notebooks
from tools.translations import paragraphs

LOCALE = "zh_Hans_CN"
FILE = "zh.po"
QUIZ = "quiz"  # the context of what a quiz says: short answers may need other words there
HEAD = """\
# {name}: 简体中文, python -m tools.translations
msgid ""
msgstr ""
"Language: zh_CN\\n"
"Content-Type: text/plain; charset=utf-8\\n"
"Content-Transfer-Encoding: 8bit\\n"

"""
COMMON = (
    *paragraphs.in_cell(quiz_cell.INTRODUCTION),
    quiz_cell.RIGHT,
    notebooks.NEXT,
    notebooks.THEN,
    notebooks.TO_EXERCISES,
    notebooks.TO_CHAPTER,
    "<details><summary>The figure in words</summary>",
    "<details><summary>Answer</summary>",
    "**You will be able to**",
    "## Summary",
    "## Further reading",
    "## **Spot the bug**",
    "## Wrap-up",
    "## What papers say, and what we measured",
    "Below each **Predict**, write your guess into the next cell, in place of the dots.",
    "Find it before you read on.",
)


def rooms(root: Path) -> list[Path]:
    """Return the chapters' rooms, in their order."""
    return sorted(root.glob("sources/[0-9][0-9]_*"))


def common(root: Path) -> Catalog:
    """Return what all rooms share, as ``sources/zh.po`` should hold it."""
    return _updated(root / "sources" / FILE, [(None, text, ()) for text in COMMON])


def of_room(room: Path) -> Catalog:
    """Return a room's catalogue as it should be: no message more or less than its paragraphs.

    What was translated stays so. A paragraph that was changed has its old translation, marked
    fuzzy, with the English that it was made from; one that is new has none.
    """
    return _updated(room / FILE, _messages(room))


def translations(catalogue: Catalog) -> dict:
    """Return what is translated, and fits: from (context, English) to Chinese."""
    return {
        (message.context, message.id): message.string
        for message in catalogue
        if message.id and message.string and not message.fuzzy
    }


def waiting(catalogue: Catalog) -> list:
    """Return the messages that lack a translation, or whose English has changed since."""
    return [m for m in catalogue if m.id and (m.fuzzy or not m.string)]


def written(catalogue: Catalog, folder: Path) -> str:
    """Return a catalogue as the text of a folder's file; the same messages give the same bytes."""
    for message in catalogue:  # Babel takes the sign in "8 % of" for a field of Python's
        message.flags -= {"python-format", "python-brace-format"}
    file = io.BytesIO()
    options = {"width": 0, "omit_header": True, "ignore_obsolete": True, "include_previous": True}
    write_po(file, catalogue, **options)
    return HEAD.format(name=folder.name) + file.getvalue().decode()


def save(catalogue: Catalog, folder: Path) -> None:
    """Write a catalogue into a room, or into ``sources``."""
    (folder / FILE).write_text(written(catalogue, folder), encoding="utf-8")


def read(file: Path) -> Catalog:
    """Return a catalogue as it is on disk."""
    with file.open("rb") as stream:
        catalogue = read_po(stream, locale=LOCALE)
    for message in catalogue:  # Babel writes the former English, and reads it as a comment
        former = [line[2:] for line in message.user_comments if line.startswith("| ")]
        message.user_comments = [c for c in message.user_comments if not c.startswith("| ")]
        if former:
            message.previous_id = [denormalize("\n".join(former).removeprefix("msgid "))]
    return catalogue


def _updated(file, messages):
    catalogue = read(file) if file.exists() else Catalog(locale=LOCALE)
    catalogue.update(_template(messages))
    catalogue.obsolete.clear()
    return catalogue


def _template(messages):
    template = Catalog()
    for context, text, places in messages:
        template.add(text, context=context, locations=places)
    return template


def _messages(room):
    """Yield (context, paragraph, where it stands) of all that a room says."""
    for name in ("chapter.py", "exercises.py"):
        if (room / name).exists():
            for number, cell in enumerate(notebooks.from_source(room / name).cells, 1):
                for text in paragraphs.in_cell(cell.source if cell.cell_type != "code" else ""):
                    if text not in COMMON:
                        yield None, text, [(name, number)]
    if (room / "quiz.yaml").exists():
        for number, question in enumerate(quizzes.read_quiz(room).questions, 1):
            for text in filter(paragraphs.has_words, quiz_texts(question)):
                yield QUIZ, text, [("quiz.yaml", number)]


def quiz_texts(question) -> list[str]:
    """Return what a question of a quiz says: itself, then each choice and what it shows."""
    return [
        question.text,
        *(t for choice in question.choices for t in (choice.text, choice.explain)),
    ]
