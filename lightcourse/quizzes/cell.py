"""A quiz inside of a notebook: choices to unfold, without a widget, a server or a script."""

from collections.abc import Callable

from lightcourse.quizzes.read import Quiz, lettered
from lightcourse.quizzes.words import dollars, one_line

HEADING = "## Quiz"
INTRODUCTION = (
    f"{HEADING}: five questions\n\n"
    "Decide before you unfold a choice. Right or wrong, it says what it shows. "
    "(The quiz is not part of the reading time above; it takes about ten minutes.)"
)
RIGHT = "✓ **Right.**"


def as_markdown(quiz: Quiz, say: Callable[[str], str] = str) -> str:
    """Return a quiz as the Markdown of one cell: under each choice, folded, what it shows.

    ``say`` turns what stands around the questions, paragraph by paragraph, into the quiz's
    language.
    """
    introduction = "\n\n".join(map(say, INTRODUCTION.split("\n\n")))
    questions = [_question(*each, say) for each in enumerate(quiz.questions, 1)]
    return "\n\n---\n\n".join([introduction, *questions])


def _question(number, question, say):
    choices = [_choice(*each, say) for each in lettered(question.choices)]
    return "\n\n".join([f"**{number}.** {question.text}", *choices])


def _choice(letter, choice, say):
    """Return a choice; its words stand inside of a tag, where Markdown is not read."""
    words = one_line(choice.text, dollars)
    verdict = say(RIGHT) if choice.right else "✗"
    summary = f"<summary>{letter} · {words}</summary>"
    return f"<details>{summary}\n\n{verdict} {choice.explain}\n\n</details>"
