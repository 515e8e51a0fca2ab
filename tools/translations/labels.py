"""The words of figures, as they stand in the code of a room and in the library's plots."""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

from lightcourse.plots.words import pattern
from tools import notebooks


def of_room(room: Path) -> list[str]:
    """Return a room's texts that may stand in a figure, as keys of its file of labels."""
    texts = {}
    for name in ("chapter.py", "exercises.py"):
        if (room / name).exists():
            for cell in notebooks.from_source(room / name).cells:
                if cell.cell_type == "code":
                    texts |= dict.fromkeys(in_code(cell.source))
    return [f'{json.dumps(text, ensure_ascii=False)} = ""' for text in texts]


def in_code(source: str) -> Iterator[str]:
    """Yield the texts of code that hold a word, a field of an f-string being ``{}``."""
    for node in ast.walk(ast.parse(source)):
        text = _text(node)
        if text and re.search(r"[A-Za-z]{3}", text) and not re.fullmatch(r"[\w.#/-]+", text):
            yield pattern(text)
        elif text and re.fullmatch(r"[A-Za-z]{3,}", text):
            yield text


def _text(node):
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(p.value if isinstance(p, ast.Constant) else "0" for p in node.values)
    return ""
