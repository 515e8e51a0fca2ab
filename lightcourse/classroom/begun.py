"""Which exercises somebody has begun, told without running anything."""

import ast
import re

from lightcourse.classroom.read import code_sources

# What building the exercises puts in place of a solution.
STUB = "...  # your code here"
SOLUTION = re.compile(
    r"^(?P<indent>[ \t]*)### BEGIN SOLUTION\n.*?### END SOLUTION$", re.MULTILINE | re.DOTALL
)


def not_begun(notebook, solution, checks: list[str]) -> list[str]:
    """Return the checks whose function is still the blank one.

    Parameters
    ----------
    notebook, solution : nbformat nodes
        The learner's exercises, and the course's solution, from which the blank ones were made.
    checks : list of str
        As :func:`lightcourse.classroom.expected_checks` returns them.
    """
    blank = _functions(SOLUTION.sub(rf"\g<indent>{STUB}", s) for s in code_sources(solution))
    own = _functions(code_sources(notebook))
    names = {check: _argument(check) for check in checks}
    return [check for check, name in names.items() if name in own and own[name] == blank.get(name)]


def _functions(sources):
    """Return each function by its name, in a form that comments and blanks do not change."""
    found = {}
    for source in sources:
        for statement in _statements(source):
            if isinstance(statement, ast.FunctionDef):
                found[statement.name] = ast.dump(statement)
    return found


def _statements(source):
    """Return what stands at the top of a cell; nothing where it is no Python, magics included."""
    try:
        return ast.parse(source).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []


def _argument(check):
    """Return what a check is given: ``f`` for ``checks.check_x(f)``."""
    arguments = ast.parse(check, mode="eval").body.args
    return ast.unparse(arguments[0]) if arguments else ""
