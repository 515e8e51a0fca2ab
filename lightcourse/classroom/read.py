"""What stands in a notebook: its code, and the checks that it calls."""

import ast
import json
from pathlib import Path

MOST_CELLS = 2000
LONGEST_ID = 64
BY_HAND = "check_by_hand"


def read_notebook(path: str | Path):
    """Return the notebook in ``path`` as an ``nbformat`` node of version 4.

    Raises
    ------
    FileNotFoundError
        When there is no such file.
    ValueError
        When the file is no notebook.
    """
    import nbformat

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        notebook = nbformat.reads(path.read_text(encoding="utf-8"), as_version=4)
        nbformat.validate(notebook)
    except Exception as error:  # nbformat raises a different type for each kind of damage
        raise ValueError(f"{path} is no Jupyter notebook (.ipynb)") from error
    return notebook


def sources_in(content: bytes) -> list[str]:
    """Return the code cells of a notebook that nobody vouches for, those that hold something.

    Nothing but the cells' text is looked at, so it works on what other programs wrote, and
    little can go wrong: of format 2 and later, with or without what the format wants beside.

    Raises
    ------
    ValueError
        When that is no notebook, with a sentence for its author.
    """
    try:
        found = json.loads(content.decode("utf-8-sig"))
        cells = found["cells"] if "cells" in found else found["worksheets"][0]["cells"]
        code = [cell for cell in cells if cell["cell_type"] == "code"]
        sources = [_text(cell["source"] if "source" in cell else cell["input"]) for cell in code]
    except (RecursionError, TypeError, KeyError, IndexError, ValueError) as error:
        raise ValueError("the file is no Jupyter notebook, or a broken one") from error
    if len(sources) > MOST_CELLS:
        raise ValueError(
            f"the notebook has {len(sources)} code cells; at most {MOST_CELLS} are run"
        )
    return [source for source in sources if source.strip()]


def _text(source):
    """Return a cell's text: a string, or a list of lines."""
    return source if isinstance(source, str) else "".join(source)


def holds_code(cell) -> bool:
    """Tell whether a cell is a code cell with something in it."""
    return cell.cell_type == "code" and bool(cell.source.strip())


def code_sources(notebook) -> list[str]:
    """Return the sources of the code cells that hold something, in order."""
    return [cell.source for cell in notebook.cells if holds_code(cell)]


def first_line(source: str) -> str:
    """Return the first line of a cell that is neither blank nor a comment."""
    lines = [line.strip() for line in source.splitlines() if line.strip()]
    return next((line for line in lines if not line.startswith("#")), lines[0] if lines else "")


def expected_checks(notebook) -> list[str]:
    """Return the checks that a notebook calls, each once: ``["checks.check_x(fn)", …]``.

    Statements ``checks.check_x(…)`` and ``assert checks.check_x(…)`` count; an
    ``assert not`` demonstrates a failure and does not.
    """
    calls = [call for source in code_sources(notebook) for call in _checks_in(source)]
    found = [ast.unparse(call) for call in calls if _attribute(call) != BY_HAND]
    return list(dict.fromkeys(found))


def points_of(notebook) -> dict[str, int]:
    """Return how many points each check gives, as nbgrader counts: its exercise's stars, or one."""
    found = {}
    for cell in filter(holds_code, notebook.cells):
        points = cell.metadata.get("nbgrader", {}).get("points", 1)
        found |= {ast.unparse(call): points for call in _checks_in(cell.source)}
    return found


def by_hand_numbers(sources: list[str]) -> dict[str, dict]:
    """Return the numbers of each question by hand that code cells ask, by its name."""
    calls = [call for source in sources for call in _checks_in(source)]
    found = [_question(call) for call in calls if _attribute(call) == BY_HAND]
    return {name: numbers for name, numbers in found if isinstance(name, str)}


def _attribute(call):
    return getattr(call.func, "attr", "")


def _question(call):
    """Return the name and the numbers in ``checks.check_by_hand("name", answer, a=1)``."""
    try:
        numbers = {word.arg: ast.literal_eval(word.value) for word in call.keywords}
        return ast.literal_eval(call.args[0]), numbers
    except (IndexError, TypeError, ValueError, MemoryError, RecursionError):
        return None, {}


def variant_in(content: bytes) -> str:
    """Return the id that a learner's notebook says it is a variant by; empty if it says none."""
    try:
        found = json.loads(content.decode("utf-8-sig"))["metadata"]["lightcourse"]["variant"]
    except (RecursionError, TypeError, KeyError, IndexError, ValueError):
        return ""
    return found if isinstance(found, str) and len(found) <= LONGEST_ID else ""


def _checks_in(source):
    from IPython.core.inputtransformer2 import TransformerManager

    try:
        statements = ast.parse(TransformerManager().transform_cell(source)).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return
    for statement in statements:
        call = getattr(statement, "test" if isinstance(statement, ast.Assert) else "value", None)
        if isinstance(call, ast.Call) and ast.unparse(call.func).startswith("checks.check_"):
            yield call
