"""Moodle's XML, read again: each choice is there, one is right, each has its feedback."""

from xml.etree import ElementTree

import pytest

from lightcourse import quizzes
from lightcourse.quizzes.words import one_line, paragraphs, tex
from tests.quizzes.toys import COURSE, TOY, name


@pytest.mark.parametrize("quiz", [*COURSE, TOY], ids=name)
def test_the_quiz_comes_back(quiz):
    top = ElementTree.fromstring(quizzes.moodle_xml(quiz))
    category, *items = top.findall("question")
    assert category.get("type") == "category"
    assert [item.get("type") for item in items] == ["multichoice"] * len(quiz.questions)
    for item, question in zip(items, quiz.questions, strict=True):
        assert item.find("questiontext/text").text == paragraphs(question.text, tex)
        answers = item.findall("answer")
        assert [(a.find("text").text, a.find("feedback/text").text) for a in answers] == [
            (one_line(choice.text, tex), paragraphs(choice.explain, tex))
            for choice in question.choices
        ]
        fractions = ["100" if choice.right else "0" for choice in question.choices]
        assert [answer.get("fraction") for answer in answers] == fractions
        assert fractions.count("100") == 1
        assert item.find("single").text == "true"
        html = [item.find("questiontext"), *answers, *item.findall("answer/feedback")]
        assert {element.get("format") for element in html} == {"html"}


def test_each_question_has_a_name_of_its_own():
    tops = [ElementTree.fromstring(quizzes.moodle_xml(quiz)) for quiz in COURSE]
    numbers = [element.text for top in tops for element in top.findall("question/idnumber")]
    names = [element.text for top in tops for element in top.findall("question/name/text")]
    assert len(set(numbers)) == len(set(names)) == sum(len(quiz.questions) for quiz in COURSE)


def test_a_slash_begins_no_category_and_html_is_escaped_once():
    top = ElementTree.fromstring(quizzes.moodle_xml(TOY))
    assert top.find("question/category/text").text == (
        '$course$/top/lightcourse/Toy: <b> & "quotes" // slashes'
    )
    shown = top.find("question/questiontext/text").text
    assert "<code>a &lt; b &amp;&amp; b &gt; c</code>" in shown
    assert r"\(\frac{\alpha}{r} x_1 &lt; 2\)" in shown
    assert "<script>" not in top.find("question/answer/feedback/text").text
