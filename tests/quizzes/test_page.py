"""The printed page: whole, without anything to fetch, answers apart from the questions."""

import base64
import re
from xml.etree import ElementTree

import pytest

from lightcourse import quizzes
from lightcourse.quizzes import page
from tests.quizzes.toys import COURSE, TOY, name


def parsed(quiz):
    """Return the two sections of a page; it is well-formed XML, too, but for its first line."""
    text = quizzes.printed_page(quiz).decode()
    doctype, _, rest = text.partition("\n")
    assert doctype == "<!DOCTYPE html>"
    return ElementTree.fromstring(rest).findall("body/section")


@pytest.mark.parametrize("quiz", [*COURSE, TOY], ids=name)
def test_questions_and_answers_stand_on_two_sheets(quiz):
    asked, answered = parsed(quiz)
    assert answered.get("class") == "answers"
    assert "section.answers { break-before: page; }" in page.STYLE
    for sheet in (asked, answered):
        for item, question in zip(sheet.findall("ol/li"), quiz.questions, strict=True):
            assert len(item.findall("ol/li")) == len(question.choices)
    assert not {"✓", "✗"} & set("".join(asked.itertext()).replace("é ✗ 汉", ""))
    right = [
        [c.get("class") == "right" for c in li.iter("li") if c is not li] for li in answered[1]
    ]
    assert right == [[choice.right for choice in each.choices] for each in quiz.questions]


@pytest.mark.parametrize("quiz", [*COURSE, TOY], ids=name)
def test_nothing_is_fetched(quiz):
    text = quizzes.printed_page(quiz).decode()
    assert re.findall(r'(?:src|href)="(?!data:)[^"]*"', text) == []
    assert "<script" not in text and "url(" not in text


def test_a_formula_is_a_picture_with_its_words():
    formula = r"a < \frac{1}{2}"
    [image] = ElementTree.fromstring(f"<p>{page.picture(formula)}</p>")
    assert image.get("alt") == formula
    kind, _, data = image.get("src").partition(",")
    assert kind == "data:image/svg+xml;base64"
    assert ElementTree.fromstring(base64.b64decode(data)).tag.endswith("svg")
    assert page.picture("T^2") == page.picture("T^2")


def test_a_formula_below_the_line_is_moved_down():
    low, flat = (page.picture(formula) for formula in (r"x_{y_z}", "x"))
    down = [float(re.search(r"vertical-align: (-?[\d.]+)pt", text)[1]) for text in (low, flat)]
    assert down[0] < down[1] - 1


def test_a_formula_that_cannot_be_drawn_is_named():
    with pytest.raises(ValueError, match=r"cannot draw the formula '\\\\nonsense"):
        page.picture(r"\nonsense{")
