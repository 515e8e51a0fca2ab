"""A markdown cell as paragraphs: what stands between blank lines, and is translated as a whole."""

import re
from collections.abc import Callable, Iterator

FENCE = re.compile(r"(^```.*?^```[ \t]*$)", re.MULTILINE | re.DOTALL)
BLANK = re.compile(r"(\n(?:[ \t]*\n)+)")
SILENT = re.compile(r"\$\$.*?\$\$|</?[a-z]+>|`[^`]*`", re.DOTALL)


def in_cell(source: str) -> Iterator[str]:
    """Yield the paragraphs of a cell that hold words: no lone formula, fence, or closing tag."""
    return (part for part in _parts(source) if has_words(part))


def replaced(source: str, say: Callable[[str], str]) -> str:
    """Return a cell with each paragraph in other words, and all between them as it was."""
    return "".join(say(part) if has_words(part) else part for part in _parts(source))


def _parts(source):
    """Cut a cell into paragraphs, blank lines and fences; joined, they are the cell again."""
    for piece in FENCE.split(source):
        yield from [piece] if FENCE.fullmatch(piece) else BLANK.split(piece)


def has_words(part: str) -> bool:
    """Tell whether there is something to translate in a paragraph."""
    return not FENCE.fullmatch(part) and bool(re.search(r"[A-Za-z]{2}", SILENT.sub("", part)))
