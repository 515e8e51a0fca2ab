"""Which cell begins a slide, what a slide shows, and what only its speaker reads."""

import re

import nbformat
import pytest

from tests.instructors.small import CHAPTER, chapter, code
from tools.instructors import deck, prose
from tools.instructors.__main__ import ROOT

TITLES = [
    ("slide", "99 · Small — a promise"),
    ("slide", "★ 1 · First"),
    ("subslide", "★ 1 · First"),  # the figure, since a result stands above it
    ("slide", "2 · Second"),
    ("subslide", "2 · Second"),  # 20 printed lines
    ("slide", "Summary"),
]


def shown(slide):
    return "\n".join(cell.source for cell in slide.cells)


def test_headings_figures_and_what_does_not_fit_begin_a_slide():
    assert [(slide.kind, slide.title) for slide in deck.slides(CHAPTER)] == TITLES


def test_of_prose_a_line_stays_and_the_speaker_reads_the_rest():
    _, first, figure, second, *_, summary = deck.slides(CHAPTER)
    assert "One is a number." in shown(first)
    assert "Nobody doubts it." not in shown(first)
    assert "**Predict:** what is $1 + 1$?" in shown(first)
    assert "So it is two." in shown(first)
    assert "secret" not in shown(first)
    said = "\n".join(first.said)
    assert "Nobody doubts it." in said
    assert "The proof is long." in said
    assert "**Why**\n\nA secret." in said
    assert "<details>" not in said
    assert "*Figure: a dot.*" in shown(figure)
    assert "One dot." in "\n".join(figure.said)
    assert r"$$x = \frac{1}{2}$$" in shown(second)
    assert shown(summary).endswith("- **One.** It is first.\n- Two is second.")


def test_code_is_shown_with_what_it_printed_but_not_the_code_of_a_figure():
    title, first, figure, second, printed, _ = deck.slides(CHAPTER)
    assert "import math" not in shown(title)
    assert "import math" in "\n".join(title.said)
    assert first.cells[-2].outputs[0].text == "2\n"
    picture = next(cell for cell in figure.cells if cell.cell_type == "code")
    assert picture.source == ""
    assert "large" in picture.metadata.tags
    assert "ax = plot()" in "\n".join(figure.said)
    assert second.cells[-1].outputs == []
    assert printed.cells[1].outputs[0].text.count("much") == 20


def test_no_slide_holds_a_lonely_line_and_none_is_lost():
    printed = deck.slides(CHAPTER)[4]
    assert "A line that would stand alone" not in shown(printed)
    assert "A line that would stand alone. It has more to say." in "\n".join(printed.said)


def test_code_after_a_result_begins_a_slide():
    two = chapter("# 99 · T — p", code("print(1)", "1\n"), code("print(2)", "2\n"))
    assert len(deck.slides(two)) == 2


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("One. Two.", "One."),
        ("Why? Because. Two.", "Why? Because."),
        ("**First surprise: it is slow.** It is.", "**First surprise: it is slow.**"),
        ("At 0.5 it ends. Two.", "At 0.5 it ends."),
        ("Wang et al. 2020 said it. Two.", "Wang et al. 2020 said it."),
        ("- **Name.** It is one. Two.", "- **Name.** It is one."),
        ("without an end", "without an end"),
    ],
)
def test_the_first_sentence(text, first):
    assert prose.first_sentence(text) == first


@pytest.mark.parametrize("path", sorted((ROOT / "chapters").glob("*.ipynb")), ids=lambda p: p.stem)
def test_every_chapter_has_its_sections_its_figures_and_all_of_its_words(path):
    notebook = nbformat.read(path, as_version=4)
    slides = deck.slides(notebook)
    prose_cells = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    headings = re.findall(r"(?m)^##? (.+)$", "\n".join(prose_cells))
    assert [s.title for s in slides if s.kind == "slide"] == [h.replace("**", "") for h in headings]
    figures = sum("*Figure: " in source for source in prose_cells)
    assert sum(slide.figure for slide in slides) == figures
    said = " ".join("\n".join(line for slide in slides for line in slide.said).split())
    for source in prose_cells:
        words = re.sub(r"</?(details|summary)>|\*\*", "", source).split()
        assert " ".join(words[-8:]).rstrip() in re.sub(r"\*\*", "", said)
