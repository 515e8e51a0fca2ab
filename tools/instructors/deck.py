"""From a chapter's notebook to the notebook of its slides: which cell begins a slide, what shows.

A heading begins a slide, sections beside each other and what stands in them below each other. So
do a figure, what follows after a result (but for one line below it), and what no longer fits. A
figure's code and all prose go into the speaker's notes.
"""

from dataclasses import dataclass, field

from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from tools import rules
from tools.instructors import prose

ROOM = 21  # lines of code and results that a slide holds below its heading
NO_CODE = "no-code"  # a cell of which nbconvert shows the outputs alone
WIDTH = 100  # letters of a printed line
BESIDE_FIGURE = 8  # lines above a figure that is still large enough


@dataclass
class Slide:
    """One slide: its title and cells, what the speaker says, how full it is, what it has shown."""

    kind: str
    title: str
    cells: list = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    lines: int = 0
    done: bool = False
    figure: bool = False


def slides(notebook) -> list[Slide]:
    """Return the slides of a chapter, in order."""
    deck = []
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            for part in prose.parts(cell.source):
                _tell(deck, part)
        elif rules.pictures(cell):
            _picture(deck, cell)
        else:
            _code(deck, cell)
    return _without_lonely_lines(deck)


def notebook_of(deck: list[Slide]):
    """Return the notebook that nbconvert turns into these slides."""
    cells = []
    for slide in deck:
        for number, cell in enumerate(slide.cells):
            cell.metadata["slideshow"] = {"slide_type": "-" if number else slide.kind}
            cells.append(cell)
        said = new_markdown_cell("\n\n".join(slide.said))
        said.metadata["slideshow"] = {"slide_type": "notes"}
        cells.append(said)
    return new_notebook(cells=cells)


def _tell(deck, part):
    """Put a part of the prose on a slide, and all of it into the notes."""
    if part.startswith(("# ", "## ")):
        deck.append(Slide("slide", title=part.partition("\n")[0].replace("**", "").lstrip("# ")))
    elif part.startswith("### ") and len(deck[-1].cells) > 1:
        _next(deck)
    for number, (shown, said) in enumerate(prose.told(part)):
        if shown and not _stays(deck[-1], shown, number):
            _next(deck)
        if shown:
            deck[-1].cells.append(new_markdown_cell(shown))
            deck[-1].lines += prose.lines(shown)
        deck[-1].said.append(said)


def _without_lonely_lines(deck):
    """Return the slides but for those that hold nothing but a line: it is in the notes."""
    kept = []
    for slide in deck:
        told = [cell for cell in slide.cells if not cell.source.startswith("<div")]
        plain = all(cell.cell_type == "markdown" and prose.is_line(cell.source) for cell in told)
        if slide.kind == "subslide" and plain:
            kept[-1].said += slide.said
        else:
            kept.append(slide)
    return kept


def _stays(slide, block, number):
    """Tell whether a block goes on the slide before: a caption, or one line below a result."""
    if block.startswith("*Figure:"):
        return True
    if slide.done and (number or slide.figure or block[-1] == ":" or not prose.is_line(block)):
        return False
    return slide.lines + prose.lines(block) <= ROOM


def _next(deck):
    """Begin a slide below the last one, under the same title."""
    head = f'<div class="running">{deck[-1].title}</div>'
    deck.append(Slide("subslide", deck[-1].title, [new_markdown_cell(head)], lines=1))


def _code(deck, cell):
    """Put code and what it printed on a slide; on two, where one has no room for both."""
    height, printed = len(cell.source.splitlines()), _printed(cell)
    if cell.source.startswith(("import ", "from ")) and not printed:
        deck[-1].said.append(_as_code(cell.source))
        return
    if deck[-1].done or deck[-1].lines + height + min(printed, 3) > ROOM:
        _next(deck)
    fits = deck[-1].lines + height + printed <= ROOM
    deck[-1].cells.append(_shown(cell, cell.outputs if fits else []))
    deck[-1].lines += height + 1
    if printed and not fits:
        _next(deck)
        deck[-1].cells.append(_shown(cell, cell.outputs, "text"))
    deck[-1].done = bool(printed)
    deck[-1].lines += printed


def _picture(deck, cell):
    """Put a figure on a slide, with little above it; its code and what it printed stand before."""
    printed = [output for output in cell.outputs if output not in rules.pictures(cell)]
    if printed:
        _code(deck, new_code_cell(cell.source, outputs=printed))
    if printed or deck[-1].done or deck[-1].lines > BESIDE_FIGURE:
        _next(deck)
    size = "large" if deck[-1].lines <= 1 else "small"
    deck[-1].cells.append(_shown(cell, rules.pictures(cell), size))
    deck[-1].said.append("The code of this figure:\n\n" + _as_code(cell.source))
    deck[-1].done = deck[-1].figure = True


def _printed(cell):
    """Return how many lines of a slide a cell printed."""
    texts = (text for output in cell.outputs for text in rules.texts(output))
    return sum(1 + len(line) // WIDTH for text in texts for line in text.splitlines())


def _shown(cell, outputs, alone=""):
    """Return a copy of a code cell with some of its outputs, and perhaps these alone."""
    copy = new_code_cell("" if alone else cell.source, outputs=outputs)
    if alone:
        copy.metadata["tags"] = [NO_CODE, alone]
    return copy


def _as_code(source):
    return f"```python\n{source}\n```"
