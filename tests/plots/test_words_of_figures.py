"""Figures in the notebook's language: only with a font that has the glyphs, and never a warning."""

import re
import tomllib

import matplotlib as mpl
import matplotlib.pyplot as plt
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib.font_manager import fontManager
from matplotlib.text import Text

from lightcourse import plots
from lightcourse.plots import words
from tools import notebooks
from tools.translations import labels

MADE = {"accuracy", "seed {}"}  # by an argument: a measure, and what each dot stands for
FILES = sorted((words.FOLDER / "zh").glob("*.toml"))


def table(file):
    return tomllib.loads(file.read_text(encoding="utf-8"))


@pytest.fixture
def undone(monkeypatch):
    """Give set_text, the fonts and the list of fonts back after the test."""
    monkeypatch.setattr(Text, "set_text", Text.set_text)
    monkeypatch.setattr(fontManager, "ttflist", list(fontManager.ttflist))
    words._font.cache_clear()
    with mpl.rc_context():
        yield
    words._font.cache_clear()
    plt.close("all")


def font(letters, path):
    """Write a font in which each letter is a square, under a name that is looked for."""
    builder = FontBuilder(1000, isTTF=True)
    names = {ord(letter): f"u{ord(letter):04X}" for letter in letters}
    builder.setupGlyphOrder([".notdef", *names.values()])
    builder.setupCharacterMap(names)
    pen = TTGlyphPen(None)
    for step, place in enumerate([(100, 0), (900, 0), (900, 800), (100, 800)]):
        (pen.lineTo if step else pen.moveTo)(place)
    pen.closePath()
    square = pen.glyph()
    builder.setupGlyf(dict.fromkeys([".notdef", *names.values()], square))
    builder.setupHorizontalMetrics(dict.fromkeys([".notdef", *names.values()], (1000, 0)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": words.FONTS[0], "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(path)
    fontManager.addfont(path)


def drawn():
    ax = plots.lora_layer(inputs=384, outputs=384, rank=8)
    ax.figure.canvas.draw()  # a missing glyph would warn here, and a warning is an error
    return [text.get_text() for text in ax.texts]


def test_without_a_font_the_labels_stay_english(undone):
    fontManager.ttflist = [f for f in fontManager.ttflist if f.name not in words.FONTS]
    assert not words.speak("zh")
    assert "A, trained\n8 × 384" in drawn()


def test_a_font_that_lacks_a_glyph_is_not_taken(undone, tmp_path):
    fontManager.ttflist = [f for f in fontManager.ttflist if f.name not in words.FONTS]
    font("训练", tmp_path / "few.ttf")
    assert not words.speak("zh")


def test_with_a_font_the_labels_are_chinese_and_keep_their_numbers(undone, tmp_path):
    letters = {c for file in FILES for text in table(file).values() for c in text if c > "\u2e80"}
    font(sorted(letters), tmp_path / "all.ttf")
    assert words.speak("zh")
    assert "A，训练\n8 × 384" in drawn()
    assert words.translated("no such label", "zh") == "no such label"


def filled(english, known):
    """Tell whether a label is one of the known texts, or one with a name in place of a field."""
    fields = (re.escape(text).replace(r"\{\}", "(?:.+)") for text in known if "{}" in text)
    return english in known or any(re.fullmatch(text, english, re.DOTALL) for text in fields)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_label_keeps_its_numbers_and_stands_in_the_code(file):
    code = [path.read_text(encoding="utf-8") for path in words.FOLDER.parent.glob("*.py")]
    known = {text for source in code for text in labels.in_code(source)}
    if file.stem != "general":
        known |= labels.texts_of_room(notebooks.ROOT / "sources" / file.stem).keys()
    for english, chinese in table(file).items():
        assert english.count("{}") == chinese.count("{}") and chinese
        assert english in MADE or filled(english, known), english
