"""A small chapter: two sections, each kind of cell, a figure."""

from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADU"
PIXEL += "lEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


def code(source, printed="", picture=False):
    """Return a code cell with what it put out."""
    outputs = [new_output("stream", name="stdout", text=printed)] if printed else []
    if picture:
        outputs.append(new_output("display_data", {"image/png": PIXEL, "text/plain": "<Figure>"}))
    return new_code_cell(source, outputs=outputs, execution_count=1)


def chapter(*cells):
    """Return a notebook; a string is a cell of prose."""
    return new_notebook(cells=[new_markdown_cell(c) if isinstance(c, str) else c for c in cells])


CHAPTER = chapter(
    "# 99 · Small — a promise\n\n**You will be able to**\n\n- count; it is easy. Really.\n- stop.",
    code("import math"),
    "## ★ 1 · First\n\nOne is a number. Nobody doubts it.\n\n**Predict:** what is $1 + 1$?",
    code("guess = ...\nprint(1 + 1)", "2\n"),
    "So it is two. The proof is long.\n\n"
    "<details><summary>Why</summary>\n\nA secret.\n\n</details>",
    code("ax = plot()", picture=True),
    "*Figure: a dot.*\n\n<details><summary>The figure in words</summary>\n\nOne dot.\n\n</details>",
    "## 2 · Second\n\n### A part\n\nText follows here.\n\n$$x = \\frac{1}{2}$$",
    code("print('much')", "much\n" * 20),
    "A line that would stand alone. It has more to say.",
    "## Summary\n\n- **One.** It is first. It stays.\n- Two is second. It goes.",
)
