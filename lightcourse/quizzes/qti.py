"""Quizzes as QTI 1.2 packages, for Canvas, Blackboard, Brightspace, ILIAS and others.

Version 1.2, because more of them import it than any later one. What each element may hold, and
in which order, is fixed by the standard: *IMS Question & Test Interoperability: ASI XML Binding
Specification*, version 1.2, and *IMS Content Packaging* 1.1 for the manifest.
"""

import io
import zipfile
from xml.etree import ElementTree

from lightcourse.quizzes.read import Quiz, lettered
from lightcourse.quizzes.words import one_line, paragraphs, tex

QTI = "http://www.imsglobal.org/xsd/ims_qtiasiv1p2"
PACKAGE = "http://www.imsglobal.org/xsd/imscp_v1p1"
MANIFEST = "imsmanifest.xml"
BEGINNING_OF_TIME = (1980, 1, 1, 0, 0, 0)  # for zip files; so the same quiz gives the same bytes


def qti_package(quiz: Quiz) -> bytes:
    r"""Return a quiz as a zip file: a manifest, and the assessment that it names.

    Texts are HTML, formulas stand in ``\(…\)``, which these platforms leave to MathJax.
    """
    identifier, file = f"lightcourse_{quiz.name}", f"{quiz.name}.xml"
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as package:
        for name, tree in [
            (MANIFEST, _manifest(identifier, file)),
            (file, _assessment(quiz, identifier)),
        ]:
            ElementTree.indent(tree)
            content = ElementTree.tostring(tree, encoding="utf-8", xml_declaration=True)
            entry = zipfile.ZipInfo(name, BEGINNING_OF_TIME)
            package.writestr(entry, content, zipfile.ZIP_DEFLATED)
    return packed.getvalue()


def _manifest(identifier, file):
    top = ElementTree.Element("manifest", identifier=f"{identifier}_manifest", xmlns=PACKAGE)
    metadata = _add(top, "metadata")
    _add(metadata, "schema", "IMS Content")
    _add(metadata, "schemaversion", "1.1.3")
    _add(top, "organizations")
    resource = _add(
        _add(top, "resources"),
        "resource",
        identifier=identifier,
        type="imsqti_xmlv1p2",
        href=file,
    )
    _add(resource, "file", href=file)
    return top


def _assessment(quiz, identifier):
    top = ElementTree.Element("questestinterop", xmlns=QTI)
    assessment = _add(top, "assessment", ident=identifier, title=quiz.title)
    section = _add(assessment, "section", ident="root_section")
    for number, question in enumerate(quiz.questions, 1):
        _add_item(section, question, f"{identifier}_{number}", f"Question {number}")
    return top


def _add_item(section, question, identifier, title):
    """Add one question: what is shown, what counts, and what is said to each choice."""
    item = _add(section, "item", ident=identifier, title=title)
    _add_metadata(item)
    labels = {f"{identifier}_{letter}": choice for letter, choice in lettered(question.choices)}
    _add_presentation(item, question, labels)
    _add_processing(item, labels)
    for label, choice in labels.items():
        feedback = _add(item, "itemfeedback", ident=f"{label}_fb")
        _add_html(_add(feedback, "flow_mat"), paragraphs(choice.explain, tex))


def _add_metadata(item):
    """Say what kind of question it is, in the words that Canvas looks for, and its points."""
    fields = _add(_add(item, "itemmetadata"), "qtimetadata")
    for label, entry in {
        "cc_profile": "cc.multiple_choice.v0p1",
        "question_type": "multiple_choice_question",
        "points_possible": "1",
    }.items():
        field = _add(fields, "qtimetadatafield")
        _add(field, "fieldlabel", label)
        _add(field, "fieldentry", entry)


def _add_presentation(item, question, labels):
    shown = _add(item, "presentation")
    _add_html(shown, paragraphs(question.text, tex))
    response = _add(shown, "response_lid", ident="response1", rcardinality="Single")
    choices = _add(response, "render_choice", shuffle="Yes")
    for label, choice in labels.items():
        _add_html(_add(choices, "response_label", ident=label), one_line(choice.text, tex))


def _add_processing(item, labels):
    processing = _add(item, "resprocessing")
    score = {"varname": "SCORE", "vartype": "Decimal", "minvalue": "0", "maxvalue": "100"}
    _add(_add(processing, "outcomes"), "decvar", **score)
    for label, choice in labels.items():
        condition = _add(processing, "respcondition", **{"continue": "Yes"})
        _add(_add(condition, "conditionvar"), "varequal", label, respident="response1")
        if choice.right:
            _add(condition, "setvar", "100", action="Set", varname="SCORE")
        _add(condition, "displayfeedback", feedbacktype="Response", linkrefid=f"{label}_fb")


def _add_html(parent, html):
    _add(_add(parent, "material"), "mattext", html, texttype="text/html")


def _add(parent, tag, text=None, **attributes):
    element = ElementTree.SubElement(parent, tag, attributes)
    element.text = text
    return element
