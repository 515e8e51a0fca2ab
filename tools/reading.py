"""How long a chapter takes to read, the whole of it and its fast path.

A slow reader is meant, one who thinks in another language and runs each cell: 130 words of
prose or 8 lines of code a minute. Sections with ★ in their heading are the fast path, which
three hours suffice for, over all chapters; what stands before the first section belongs to it.
"""

import re

from lightcourse.quizzes import HEADING

WORDS, LINES = 130, 8  # a minute
SECTION = re.compile(r"(?m)^(?=## )")
HEADER = re.compile(
    r"\*\*Time:\*\* (?P<whole>\d+) minutes of reading, (?P<fast>\d+) for the parts marked ★"
)
FOLDED = re.compile(r"<details><summary>The figure in words</summary>.*?</details>", re.DOTALL)


def sections(notebook) -> list[tuple[str, str, bool]]:
    """Return the notebook in parts: prose or code, its text, whether the fast path has it."""
    parts, fast = [], True
    for cell in notebook.cells:
        if cell.cell_type == "code":
            parts.append(("code", cell.source, fast))
            continue
        for text in SECTION.split(cell.source):
            if text.startswith("## "):
                fast = "★" in text.partition("\n")[0]
            parts.append(("prose", text, fast))
    return parts


def minutes(notebook, fast: bool = False) -> float:
    """Return the minutes that a chapter takes, or its fast path alone.

    What a picture shows, folded for those who cannot see it, is not counted, nor is the quiz.
    """
    total = 0.0
    for kind, text, marked in sections(notebook):
        if (fast and not marked) or text.startswith(HEADING):
            continue
        if kind == "code":
            total += sum(bool(line.strip()) for line in text.splitlines()) / LINES
        else:
            total += len(FOLDED.sub("", text).split()) / WORDS
    return total


def fast_code(notebook) -> str:
    """Return the code of the fast path, which must run by itself."""
    return "\n\n".join(text for kind, text, fast in sections(notebook) if kind == "code" and fast)
