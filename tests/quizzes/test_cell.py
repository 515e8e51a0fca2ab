"""The cell of a notebook: each choice unfolds to what it shows."""

import re

import pytest

from lightcourse import quizzes
from tests.quizzes.toys import COURSE, TOY, name

CHOICE = re.compile(
    r"<details><summary>(?P<letter>[A-E]) · (?P<text>[^\n]+)</summary>\n\n"
    r"(?P<verdict>✓ \*\*Right\.\*\*|✗) (?P<explain>.+?)\n\n</details>",
    re.DOTALL,
)


@pytest.mark.parametrize("quiz", [*COURSE, TOY], ids=name)
def test_every_choice_unfolds_to_what_it_shows(quiz):
    text = quizzes.as_markdown(quiz)
    assert text.startswith(quizzes.HEADING)
    found = [(m["letter"], m["verdict"] != "✗", m["explain"]) for m in CHOICE.finditer(text)]
    assert found == [
        (letter, choice.right, choice.explain)
        for question in quiz.questions
        for letter, choice in zip("ABCDE", question.choices, strict=False)
    ]
    for number, question in enumerate(quiz.questions, 1):
        assert f"\n\n**{number}.** {question.text}\n\n<details>" in text


def test_nothing_of_a_choice_is_taken_for_a_tag():
    summaries = [match["text"] for match in CHOICE.finditer(quizzes.as_markdown(TOY))]
    assert summaries[:3] == [
        "Only if $x_1 &lt; 0$ &amp; <strong>not</strong> else",
        "It costs 5 $ and 7 $",
        "]]&gt; é ✗ 汉",
    ]
