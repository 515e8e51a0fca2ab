"""Reading quizzes: what is refused, and what a chapter calls itself."""

import pytest

from lightcourse import quizzes
from tests.quizzes.toys import COURSE, ROOT

QUESTION = """- question: What is 1 + 1?
  choices:
    - text: "2"
      right: true
      explain: >-
        One
        more.
    - text: " 11 "
      explain: Digits were joined.
"""


def room(folder, text, chapter=None):
    (folder / "quiz.yaml").write_text(text, encoding="utf-8")
    if chapter:
        (folder / "chapter.py").write_text(chapter, encoding="utf-8")
    return folder


def test_a_quiz_is_read_as_it_was_written(tmp_path):
    chapter = "# %% [markdown]\n# # 03 · Pruning: less — which may go\n#\n# # no title\n"
    quiz = quizzes.read_quiz(room(tmp_path, QUESTION, chapter))
    assert (quiz.name, quiz.title) == (tmp_path.name, "03 · Pruning: less")
    [question] = quiz.questions
    assert question.text == "What is 1 + 1?"
    assert question.choices == [
        quizzes.Choice("2", "One more.", right=True),
        quizzes.Choice("11", "Digits were joined."),
    ]


def test_without_a_chapter_the_room_gives_the_title(tmp_path):
    assert quizzes.read_quiz(room(tmp_path, QUESTION)).title == tmp_path.name


def test_every_chapter_of_the_course_has_a_quiz_with_its_title():
    chapters = sorted(ROOT.glob("sources/[0-9][0-9]_*/chapter.py"))
    assert [quiz.name for quiz in COURSE] == [chapter.parent.name for chapter in chapters]
    assert all(quiz.title.startswith(f"{quiz.name[:2]} · ") for quiz in COURSE)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("- question: [", "cannot be read"),
        ("question: one", "cannot be read"),
        ("3", "cannot be read"),
        ("", "cannot be read"),
        ("- question: Who?", "cannot be read.*choices"),
        (QUESTION.replace('"2"', "2"), "cannot be read.*strip"),
        (QUESTION.replace("      right: true\n", ""), "question 1 of .* has 0 right choices"),
        (QUESTION + "      right: true\n", "question 1 of .* has 2 right choices"),
    ],
)
def test_what_is_no_quiz_is_refused_with_its_file(tmp_path, text, told):
    with pytest.raises(ValueError, match=told) as error:
        quizzes.read_quiz(room(tmp_path, text))
    assert "quiz.yaml" in str(error.value)


def test_a_room_without_a_quiz_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match="no quiz"):
        quizzes.read_quiz(tmp_path)
    assert quizzes.read_quizzes(tmp_path) == []
