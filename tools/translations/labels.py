"""The words of figures, as they stand in the code of a room and in the library's plots."""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

from lightcourse.plots.words import pattern
from tools import notebooks


def of_room(room: Path) -> list[str]:
    """Return a room's texts that may stand in a figure, as lines of its file of labels."""
    return [f'{json.dumps(text, ensure_ascii=False)} = ""' for text in texts_of_room(room)]


def texts_of_room(room: Path) -> dict:
    """Return the texts in a room's code, each once and in order, as the keys of a dict."""
    cells = [
        cell
        for name in ("chapter.py", "exercises.py")
        if (room / name).exists()
        for cell in notebooks.from_source(room / name).cells
    ]
    code = [cell.source for cell in cells if cell.cell_type == "code"]
    return dict.fromkeys(text for source in code for text in in_code(source))


def in_code(source: str) -> Iterator[str]:
    """Yield the texts of code that hold a word, a field of an f-string being ``{}``."""
    for node in ast.walk(ast.parse(source)):
        text = _text(node)
        if text and re.search(r"[A-Za-z]{3}", text) and not re.fullmatch(r"[\w.#/-]+", text):
            yield pattern(text)
        elif text and re.fullmatch(r"[A-Za-z]{3,}(-[a-z]+)?", text):
            yield text


def _text(node):
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(p.value if isinstance(p, ast.Constant) else "0" for p in node.values)
    return ""
