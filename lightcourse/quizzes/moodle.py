"""Quizzes as Moodle XML, for *Question bank → Import* in a Moodle course."""

from xml.etree import ElementTree

from lightcourse.quizzes.read import Quiz
from lightcourse.quizzes.words import one_line, paragraphs, tex


def moodle_xml(quiz: Quiz) -> bytes:
    r"""Return a quiz as the XML that Moodle imports, in a category of its chapter's name.

    Texts are HTML, formulas stand in ``\(…\)``, which Moodle's MathJax filter draws.
    The right choice earns 100 % and the others nothing; each has its own feedback.
    Source: docs.moodle.org, "Moodle XML format".
    """
    top = ElementTree.Element("quiz")
    category = ElementTree.SubElement(top, "question", type="category")
    # A slash would begin a category inside of another one; doubled, it is a slash.
    path = f"$course$/top/lightcourse/{quiz.title.replace('/', '//')}"
    _text(ElementTree.SubElement(category, "category"), path)
    for number, question in enumerate(quiz.questions, 1):
        _add_question(top, question, quiz.name, number)
    ElementTree.indent(top)
    return ElementTree.tostring(top, encoding="utf-8", xml_declaration=True)


def _add_question(top, question, name, number):
    item = ElementTree.SubElement(top, "question", type="multichoice")
    _text(ElementTree.SubElement(item, "name"), f"{name} · {number}")
    _html(item, "questiontext", paragraphs(question.text, tex))
    settings = {
        "defaultgrade": "1",
        "hidden": "0",
        "idnumber": f"lightcourse-{name}-{number}",
        "single": "true",
        "shuffleanswers": "true",
        "answernumbering": "ABCD",
    }
    for tag, value in settings.items():
        ElementTree.SubElement(item, tag).text = value
    for choice in question.choices:
        answer = _html(item, "answer", one_line(choice.text, tex))
        answer.set("fraction", "100" if choice.right else "0")
        _html(answer, "feedback", paragraphs(choice.explain, tex))


def _html(parent, tag, html):
    element = ElementTree.SubElement(parent, tag, format="html")
    _text(element, html)
    return element


def _text(parent, text):
    ElementTree.SubElement(parent, "text").text = text
