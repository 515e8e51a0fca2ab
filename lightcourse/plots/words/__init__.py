"""The words of figures in other languages, whoever writes them: a function here, or a cell.

A folder for each language holds one TOML file for each chapter, in it the English words and what
stands in their place; ``general.toml`` has those of the functions of ``lightcourse.plots``.
Numbers in them are written ``{}``, and what is not there stays English.
"""

import re
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent
NUMBER = re.compile(r"\d+(?:[.,]\d+)*%?")
# The fonts with Chinese glyphs that systems bring along: Linux, macOS, Windows. Of a collection
# (.ttc) matplotlib reads the first font, which may bear the name of another country.
FONTS = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Noto Sans SC",
    "Source Han Sans SC",
    "Source Han Sans CN",
    "WenQuanYi Micro Hei",
    "WenQuanYi Zen Hei",
    "Droid Sans Fallback",
    "PingFang SC",
    "Hiragino Sans GB",
    "Heiti TC",
    "STHeiti",
    "Arial Unicode MS",
    "Microsoft YaHei",
    "SimHei",
    "DengXian",
    "SimSun",
)


def pattern(text: str) -> str:
    """Return a text with ``{}`` in place of each number, as the tables have it.

    Examples
    --------
    >>> pattern("W, frozen: 384 × 384 = 147,456")
    'W, frozen: {} × {} = {}'
    """
    return NUMBER.sub("{}", text)


def translated(text: str, language: str) -> str:
    """Return a text of a figure in a language, with its numbers; as it is where none is known."""
    found = _table(language).get(pattern(text))
    return text if found is None else found.format(*NUMBER.findall(text))


def speak(language: str) -> bool:
    """Let all figures of this process speak a language from now on, and tell whether they do.

    They stay English where no font of this machine has the glyphs. That is no reason for a
    warning: the figure is as readable as the code beside it.
    """
    import matplotlib as mpl
    from matplotlib.text import Text

    font = _font(frozenset("".join(_table(language).values())))
    if font is None:
        return False
    mpl.rcParams["font.family"] = ["sans-serif", font]  # the second where the first lacks a glyph
    if not hasattr(Text.set_text, "english"):
        Text.set_text = _speaking(Text.set_text, language)
    return True


def _speaking(set_text, language):
    def in_other_words(self, text):
        set_text(self, translated(text, language) if isinstance(text, str) else text)

    in_other_words.english = set_text
    return in_other_words


@cache
def _font(letters):
    """Return the name of a font here that has all letters, or None."""
    from matplotlib.font_manager import fontManager
    from matplotlib.ft2font import FT2Font

    wanted = {ord(letter) for letter in letters if letter > "\u2e80"}  # from here on Chinese
    files = {entry.name: entry.fname for entry in fontManager.ttflist}
    for name in FONTS:
        try:
            if name in files and wanted <= FT2Font(files[name]).get_charmap().keys():
                return name
        except (OSError, RuntimeError):  # removed, or no font, since the list was made
            continue
    return None


@cache
def _table(language):
    import tomllib

    files = sorted((FOLDER / language).glob("*.toml"))
    tables = [tomllib.loads(file.read_text(encoding="utf-8")) for file in files]
    return {english: words for table in tables for english, words in table.items()}
