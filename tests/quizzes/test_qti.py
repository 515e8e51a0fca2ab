"""QTI packages, read again: whole, in the standard's order, one choice right."""

import io
import zipfile
from xml.etree import ElementTree

import pytest

from lightcourse import quizzes
from lightcourse.quizzes import qti
from lightcourse.quizzes.words import one_line, paragraphs, tex
from tests.quizzes.toys import COURSE, TOY, name

# What an element may hold, in this order, by the binding of the standard; * is any number.
ORDER = {
    "questestinterop": ["assessment"],
    "assessment": ["section"],
    "section": ["item*"],
    "item": ["itemmetadata", "presentation", "resprocessing", "itemfeedback*"],
    "itemmetadata": ["qtimetadata"],
    "qtimetadata": ["qtimetadatafield*"],
    "qtimetadatafield": ["fieldlabel", "fieldentry"],
    "presentation": ["material", "response_lid"],
    "response_lid": ["render_choice"],
    "render_choice": ["response_label*"],
    "response_label": ["material"],
    "material": ["mattext"],
    "resprocessing": ["outcomes", "respcondition*"],
    "outcomes": ["decvar"],
    "respcondition": ["conditionvar", "setvar*", "displayfeedback*"],
    "conditionvar": ["varequal"],
    "itemfeedback": ["flow_mat"],
    "flow_mat": ["material"],
}


def unpacked(quiz):
    """Return the manifest and the assessment that it names."""
    with zipfile.ZipFile(io.BytesIO(quizzes.qti_package(quiz))) as package:
        assert package.testzip() is None
        trees = {each: ElementTree.fromstring(package.read(each)) for each in package.namelist()}
    manifest = trees.pop(qti.MANIFEST)
    resource = manifest.find(f".//{{{qti.PACKAGE}}}resource")
    assert resource.get("href") == resource[0].get("href")
    assert [*trees] == [resource.get("href")]
    return manifest, trees[resource.get("href")]


def local(element):
    namespace, _, tag = element.tag[1:].partition("}")
    assert namespace == qti.QTI
    return tag


def in_order(element):
    """Assert that an element holds what it may, in order, and so do those inside of it."""
    tags, wanted = [local(child) for child in element], ORDER.get(local(element), [])
    places = [each.rstrip("*") for each in wanted]
    assert set(tags) <= set(places), tags
    assert tags == sorted(tags, key=places.index)
    for each in wanted:
        assert each.endswith("*") or tags.count(each) == 1, (local(element), each)
    for child in element:
        in_order(child)


def find(element, path):
    return element.findall(path, {"": qti.QTI})


@pytest.mark.parametrize("quiz", [*COURSE, TOY], ids=name)
def test_a_package_is_whole_and_in_the_order_of_the_standard(quiz):
    manifest, assessment = unpacked(quiz)
    in_order(assessment)
    identifiers = [e.get("ident") for e in assessment.iter() if e.get("ident") != "response1"]
    identifiers = [each for each in identifiers if each]
    assert len(set(identifiers)) == len(identifiers)
    tags = [element.tag.partition("}")[2] for element in manifest]
    assert tags == ["metadata", "organizations", "resources"]


@pytest.mark.parametrize("quiz", [*COURSE, TOY], ids=name)
def test_the_quiz_comes_back(quiz):
    items = find(unpacked(quiz)[1], ".//item")
    for item, question in zip(items, quiz.questions, strict=True):
        [shown] = find(item, "presentation/material/mattext")
        assert shown.text == paragraphs(question.text, tex)
        assert shown.get("texttype") == "text/html"
        found = [
            quizzes.Choice(text, feedback_of(item, label), is_right(item, label))
            for label, text in choices_of(item)
        ]
        assert found == [
            quizzes.Choice(one_line(c.text, tex), paragraphs(c.explain, tex), c.right)
            for c in question.choices
        ]
        assert [choice.right for choice in found].count(True) == 1


def choices_of(item):
    labels = find(item, ".//response_label")
    return [(label.get("ident"), find(label, "material/mattext")[0].text) for label in labels]


def condition_of(item, label):
    """Return the one condition that a choice meets."""
    met = [c for c in find(item, ".//respcondition") if find(c, ".//varequal")[0].text == label]
    assert len(met) == 1
    return met[0]


def is_right(item, label):
    score = find(condition_of(item, label), "setvar")
    assert [(each.text, each.get("varname")) for each in score] in ([], [("100", "SCORE")])
    return bool(score)


def feedback_of(item, label):
    [shown] = find(condition_of(item, label), "displayfeedback")
    return find(item, f"itemfeedback[@ident='{shown.get('linkrefid')}']//mattext")[0].text


def test_the_same_quiz_gives_the_same_bytes():
    assert quizzes.qti_package(TOY) == quizzes.qti_package(TOY)
