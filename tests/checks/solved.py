"""The functions of the committed solutions, taken out of the sources of their notebooks."""

import ast
from functools import cache
from pathlib import Path

from lightcourse import checks

ROOT = Path(__file__).parents[2]
# Nothing else in the tests of the checks knows where the solutions are written.
SOURCES = sorted(ROOT.glob("sources/*/exercises.py"))
EXERCISES = {exercise.name: exercise for exercise in checks.EXERCISES.values()}


def _imports(tree):
    """Return what a notebook imports before it defines anything."""
    first = next(i for i, node in enumerate(tree.body) if isinstance(node, ast.FunctionDef))
    return [node for node in tree.body[:first] if isinstance(node, (ast.Import, ast.ImportFrom))]


def _read():
    """Return the solutions' source trees by name, and all that belongs to each one's notebook."""
    functions, notebooks = {}, {}
    for path in SOURCES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        found = {n.name: n for n in tree.body if getattr(n, "name", None) in EXERCISES}
        functions |= found
        notebooks |= dict.fromkeys(found, [*_imports(tree), *found.values()])
    return functions, notebooks


FUNCTIONS, _notebooks = _read()


@cache
def _code(*trees):
    return compile(ast.fix_missing_locations(ast.Module(list(trees), [])), "solution", "exec")


def function(name, tree=None, **names):
    """Return a solution as its notebook would have it; with ``tree``, that one in its place."""
    exec(_code(*_notebooks[name]), names)
    if tree is not None:
        exec(_code(tree), names)
    return names[name]
