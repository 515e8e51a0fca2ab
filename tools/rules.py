"""What every committed notebook must keep to: each rule yields complaints about a notebook."""

import json
import re
from collections.abc import Iterator

from tools import tolerances

LONGEST_CELL = 15
LONGEST_RUN_OF_CODE = 2
IGNORE_OUTPUT = "nbval-ignore-output"
SWITCHES = re.compile(r"nbval.(skip|raises|check|ignore)|raises.exception", re.IGNORECASE)
THIS_MACHINE = re.compile(
    r"(?<![\w.])/(home|root|Users|tmp|work|opt|usr|var)/|[A-Z]:\\\w|site-packages|\.venv|"
    r"\bat 0x[0-9a-f]{8,}"
)
# Wider ones would hide a change that a reader sees.
LARGEST = {"atol": 0.05, "rtol": 0.2, "clock": True}
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f]")
WIDGET = "application/vnd.jupyter.widget-view+json"
TELLING = 12
PICTURE = "image/png"
CAPTION = re.compile(r"\*(?:Figure: |图：)(?P<words>.+?)\*(?=\s|$)", re.DOTALL)
IN_WORDS = re.compile(
    r"<details><summary>(?:The figure in words|图的文字说明)</summary>(?P<words>.+?)</details>",
    re.DOTALL,
)


def code_cells(notebook) -> list:
    """Return the notebook's code cells."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def _outputs(notebook):
    """Yield (number of the code cell, output)."""
    for number, cell in enumerate(code_cells(notebook), 1):
        for output in cell.outputs:
            yield number, output


def texts(output) -> Iterator[str]:
    """Yield every text that an output shows: streams, and all data but pictures."""
    if output.output_type == "stream":
        yield output.text
    for kind, value in output.get("data", {}).items():
        if not kind.startswith("image/"):
            yield value if isinstance(value, str) else json.dumps(value)


def executed_in_order(notebook) -> Iterator[str]:
    """Every code cell was executed, once, from top to bottom; none is empty."""
    counts = [cell.execution_count for cell in code_cells(notebook)]
    if counts != list(range(1, len(counts) + 1)):
        yield f"the code cells were executed in the order {counts}"
    if not counts or not all(cell.source.strip() for cell in code_cells(notebook)):
        yield "there is an empty code cell, or no code cell at all"


def nothing_raised(notebook) -> Iterator[str]:
    """No cell ends in a traceback."""
    for number, output in _outputs(notebook):
        if output.output_type == "error":
            yield f"code cell {number} raised {output.ename}: {output.evalue}"


def short_cells(notebook) -> Iterator[str]:
    """A code cell holds one idea."""
    for number, cell in enumerate(code_cells(notebook), 1):
        lines = len(cell.source.splitlines())
        if lines > LONGEST_CELL:
            yield f"code cell {number} has {lines} lines, {LONGEST_CELL} at most are allowed"


def prose_between(notebook) -> Iterator[str]:
    """Code cells come in twos at most."""
    kinds = "".join("c" if cell.cell_type == "code" else "p" for cell in notebook.cells)
    longest = max(map(len, kinds.split("p")))
    if longest > LONGEST_RUN_OF_CODE:
        yield f"{longest} code cells follow each other, {LONGEST_RUN_OF_CODE} at most are allowed"


def nothing_on_stderr(notebook) -> Iterator[str]:
    """No warning, no log line, no progress bar."""
    for number, output in _outputs(notebook):
        if output.get("name") == "stderr":
            yield f"code cell {number} wrote to stderr: {output.text[:200]}"


def no_widgets(notebook) -> Iterator[str]:
    """A widget shows nothing to who reads the file."""
    if "widgets" in notebook.metadata:
        yield "the notebook stores widget state"
    for number, output in _outputs(notebook):
        if WIDGET in output.get("data", {}):
            yield f"code cell {number} shows a widget"


def nothing_of_this_machine(notebook) -> Iterator[str]:
    """No output names a path or a memory address of the machine it was made on."""
    for number, output in _outputs(notebook):
        for text in texts(output):
            if found := THIS_MACHINE.search(text):
                yield f"code cell {number} shows {text[found.start() :][:60]!r} of this machine"


def no_control_characters(notebook) -> Iterator[str]:
    r"""LaTeX is whole: no ``\t`` of ``\theta`` became a tab, no ``\r`` a carriage return."""
    for cell in notebook.cells:
        shown = [cell.source] if cell.cell_type != "code" else []
        for output in cell.get("outputs", []):
            shown.extend(texts(output))
        for text in shown:
            if found := CONTROL.search(text):
                place = text[max(0, found.start() - 20) :][:40]
                yield f"a control character stands in {place!r}"


def pictures(cell) -> list:
    """Return the outputs of a cell that are pictures."""
    return [output for output in cell.get("outputs", []) if PICTURE in output.get("data", {})]


def description(caption: str) -> str:
    """Return what a picture shows, as plain text, from the cell below it.

    That is what is folded below "The figure in words", else the caption itself.
    """
    found = IN_WORDS.search(caption) or CAPTION.match(caption)
    return re.sub(r"[*`$\\]", "", " ".join(found["words"].split())) if found else ""


def figures_have_alt_text(notebook) -> Iterator[str]:
    """The cell after a figure begins with *Figure: …*, and the picture's own alt says it too."""
    for cell, after in zip(notebook.cells, [*notebook.cells[1:], None], strict=True):
        drawn = pictures(cell)
        if drawn and not (after and CAPTION.match(after.source)):
            yield f"no cell beginning with *Figure: …* follows the figure of {cell.source!r}"
        if any(not output.metadata.get(PICTURE, {}).get("alt") for output in drawn):
            yield f"the figure of {cell.source!r} has no alt attribute: build the notebook"
        if cell.cell_type != "code" and re.search(
            r"!\[\s*\]|<img(?![^>]*alt=\"[^\"]+\")", cell.source
        ):
            yield f"a picture has no alt text in {cell.source[:60]!r}"


def nothing_skipped(notebook) -> Iterator[str]:
    """No cell escapes nbval, but for those openly tagged nbval-ignore-output."""
    for number, cell in enumerate(code_cells(notebook), 1):
        tags = set(cell.metadata.get("tags", [])) - {IGNORE_OUTPUT}
        comments = [line for line in cell.source.splitlines() if line.lstrip().startswith("#")]
        for text in [*tags, *comments]:
            if SWITCHES.search(text):
                yield f"code cell {number} is marked {text!r}"


def ignored_outputs_are_asserted(notebook) -> Iterator[str]:
    """A cell whose output nobody compares asserts a margin instead."""
    for number, cell in enumerate(code_cells(notebook), 1):
        if ignores_output(cell) and not re.search(r"^\s*assert ", cell.source, re.MULTILINE):
            yield f"code cell {number} is tagged {IGNORE_OUTPUT} and asserts nothing"


def tolerances_are_needed_and_small(notebook) -> Iterator[str]:
    """A cell that states a tolerance shows what it is for, and asks for no more than is sane."""
    for number, cell in enumerate(code_cells(notebook), 1):
        stated = tolerances.stated(cell)
        shown = "\n".join(text for output in cell.outputs for text in texts(output))
        for key, value in stated.items():
            most = LARGEST[key]
            if type(value) is not type(most) or not 0 < value <= most:
                yield f"code cell {number} states {key}={value!r}; {most} at most is allowed"
        if ignores_output(cell) and stated:
            yield f"code cell {number} states {stated}, but its output is ignored"
        elif "clock" in stated and not tolerances.CLOCK.search(shown):
            yield f"code cell {number} states a clock and shows no time"
        elif {"atol", "rtol"} & set(stated) and not any(
            map(tolerances.is_measured, tolerances.FIGURE.findall(shown))
        ):
            yield f"code cell {number} states {stated} and shows no measured number"


def ignores_output(cell) -> bool:
    """Tell whether nbval compares nothing for this cell."""
    return IGNORE_OUTPUT in cell.metadata.get("tags", [])


RULES = [
    executed_in_order,
    nothing_raised,
    short_cells,
    prose_between,
    nothing_on_stderr,
    no_widgets,
    nothing_of_this_machine,
    no_control_characters,
    figures_have_alt_text,
    nothing_skipped,
    ignored_outputs_are_asserted,
    tolerances_are_needed_and_small,
]


def drift(expected, committed) -> Iterator[str]:
    """Compare cell by cell, outputs aside, what the sources stand for with what is there."""
    if len(expected.cells) != len(committed.cells):
        yield f"{len(committed.cells)} cells, but its source has {len(expected.cells)}"
    for index, (want, have) in enumerate(zip(expected.cells, committed.cells, strict=False)):
        for key in ("cell_type", "source", "metadata", "id"):
            if want[key] != have[key]:
                yield f"{key} of cell {index} is {have[key]!r}, but its source has {want[key]!r}"


def secrets(solution) -> list[str]:
    """Return the telling lines that only solutions may show.

    They are those between the delimiters BEGIN SOLUTION, or BEGIN HIDDEN TESTS, and END,
    and all lines of a cell tagged ``solution``. Blanks are taken out; what then is
    shorter than twelve characters, or an import, tells nothing.
    """
    found = []
    for cell in solution.cells:
        inside = "solution" in cell.metadata.get("tags", [])
        for line in cell.source.splitlines():
            if re.search(r"BEGIN (SOLUTION|HIDDEN TESTS)", line):
                inside = True
            elif re.search(r"END (SOLUTION|HIDDEN TESTS)", line):
                inside = False
            elif inside and not line.lstrip().startswith(("import ", "from ")):
                found.append("".join(line.split()))
    return [line for line in found if len(line) >= TELLING]


def leaks(solution, exercise) -> Iterator[str]:
    """Yield the secrets of a solution that its exercise shows, in code or in prose."""
    shown = "".join("".join(cell.source.split()) for cell in exercise.cells)
    for line in secrets(solution):
        if line in shown:
            yield f"the exercise shows {line!r}"


def count_marks(notebook, mark: str) -> int:
    """Return how often ✓ or ✗ stands in the notebook's outputs."""
    return sum(text.count(mark) for _, output in _outputs(notebook) for text in texts(output))
