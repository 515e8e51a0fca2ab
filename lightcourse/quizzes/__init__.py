"""The chapters' quizzes: read them, show them in a notebook, write them for Moodle, QTI, print."""

from lightcourse.quizzes.cell import HEADING, as_markdown
from lightcourse.quizzes.moodle import moodle_xml
from lightcourse.quizzes.page import printed_page
from lightcourse.quizzes.qti import qti_package
from lightcourse.quizzes.read import Choice, Question, Quiz, read_quiz, read_quizzes
from lightcourse.quizzes.write import FORMATS, write_quiz

__all__ = [
    "FORMATS",
    "HEADING",
    "Choice",
    "Question",
    "Quiz",
    "as_markdown",
    "moodle_xml",
    "printed_page",
    "qti_package",
    "read_quiz",
    "read_quizzes",
    "write_quiz",
]
