"""The page of questions: each section that it names stands in the notebook that it links to."""

import re
from pathlib import Path

import nbformat

PAGE = Path(__file__).resolve().parents[1] / "docs" / "why-not.md"
TEXT = PAGE.read_text(encoding="utf-8")
LINK = re.compile(r'\[(\d\d), "(.+?)"\]\((.+?)\)')


def headings(notebook):
    """Return the headings of a notebook's markdown, without their marks."""
    cells = nbformat.read(notebook, as_version=4).cells
    prose = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    return [re.sub("[*★]", "", line).strip() for line in re.findall(r"(?m)^#+ (.+)$", prose)]


def faults(text):
    """Return in words what a page links to and what is not there."""
    found = []
    for number, section, link in LINK.findall(text):
        notebook = PAGE.parent / link
        if not notebook.is_file() or not notebook.name.startswith(f"{number}_"):
            found.append(f"{PAGE.name}: chapter {number} is not at {link}")
        elif section not in (there := headings(notebook)):
            found.append(f'{PAGE.name}: {notebook.name} has no section "{section}", only {there}')
    return found


def test_every_section_that_is_named_is_there():
    assert not faults(TEXT), "\n".join(faults(TEXT))


def test_every_answer_names_a_section():
    questions, *answers = TEXT.split("\n### ")
    assert "](" not in questions
    assert len(answers) > 20
    for answer in answers:
        assert 0 < len(LINK.findall(answer)) == answer.count("]("), answer


def test_a_renamed_section_and_a_moved_chapter_are_told():
    (renamed,) = faults('[03, "Octets"](../chapters/03_pruning.ipynb)')
    assert '03_pruning.ipynb has no section "Octets"' in renamed
    assert "'Bytes'" in renamed
    for link in ("../chapters/04_linear_quantization.ipynb", "../chapters/03_gone.ipynb"):
        assert faults(f'[03, "Bytes"]({link})') == [f"why-not.md: chapter 03 is not at {link}"]
