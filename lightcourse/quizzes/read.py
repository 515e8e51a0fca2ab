"""What stands in a chapter's quiz.yaml: questions, choices, and what each choice shows."""

import re
import string
from dataclasses import dataclass
from pathlib import Path

TITLE = re.compile(r"^# # (?P<title>.+?)(?: — .*)?$", re.MULTILINE)


@dataclass(frozen=True)
class Choice:
    """A choice, whether it is the right one, and what it shows; in Markdown, as written."""

    text: str
    explain: str
    right: bool = False


@dataclass(frozen=True)
class Question:
    """A question in Markdown, and its choices in their order."""

    text: str
    choices: list[Choice]


@dataclass(frozen=True)
class Quiz:
    """A chapter's questions; ``name`` is that of its room, ``title`` that of the chapter."""

    name: str
    title: str
    questions: list[Question]


def lettered(choices: list[Choice]) -> list[tuple[str, Choice]]:
    """Return choices with their letters, from A on."""
    return list(zip(string.ascii_uppercase, choices, strict=False))


def read_quizzes(course: str | Path) -> list[Quiz]:
    """Return the quizzes of all chapters of a course, in their order."""
    rooms = sorted(Path(course).glob("sources/[0-9][0-9]_*/quiz.yaml"))
    return [read_quiz(file.parent) for file in rooms]


def read_quiz(room: str | Path) -> Quiz:
    """Return the quiz of a chapter's room, such as ``sources/03_pruning``.

    Raises
    ------
    FileNotFoundError
        When the room has no ``quiz.yaml``.
    ValueError
        When it is no list of questions, or one of them has not exactly one right choice.
    """
    import yaml

    file = Path(room, "quiz.yaml")
    if not file.is_file():
        raise FileNotFoundError(f"there is no quiz {file}")
    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8"))
        questions = [_question(each) for each in found]
    except (yaml.YAMLError, TypeError, KeyError, AttributeError) as error:
        said = " ".join(str(error).split())
        raise ValueError(f"{file} cannot be read as a list of questions: {said}") from error
    _check_one_is_right(questions, file)
    return Quiz(file.parent.name, _title(file.parent), questions)


def _question(given):
    choices = [
        Choice(each["text"].strip(), each["explain"].strip(), each.get("right", False))
        for each in given["choices"]
    ]
    return Question(given["question"].strip(), choices)


def _check_one_is_right(questions, file):
    for number, question in enumerate(questions, 1):
        right = [choice.right for choice in question.choices].count(True)
        if right != 1:
            raise ValueError(
                f"question {number} of {file} has {right} right choices; exactly one is wanted"
            )


def _title(room):
    """Return what the chapter calls itself, without its promise; else the room's name."""
    chapter = room / "chapter.py"
    text = chapter.read_text(encoding="utf-8") if chapter.is_file() else ""
    found = TITLE.search(text)
    return found["title"] if found else room.name
