"""What a check grades by is not what the solution holds: one error must not pass both."""

import ast
import copy
import inspect
import sys
import textwrap

import pytest

from tests.checks import solved


class Substitute(ast.NodeTransformer):
    """Put expressions in the place of names."""

    def __init__(self, values):
        self.values = values

    def visit_Name(self, node):
        return copy.deepcopy(self.values.get(node.id, node))


def pairs(statement):
    """Return (name, value) of all that an assignment to plain names assigns, or None."""
    if not isinstance(statement, ast.Assign) or len(statement.targets) != 1:
        return None
    target, value = statement.targets[0], statement.value
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
        targets, values = target.elts, value.elts
    else:
        targets, values = [target], [value]
    names = [getattr(each, "id", None) for each in targets]
    return list(zip(names, values, strict=True)) if all(names) else None


def inlined(body):
    """Return a body with each name replaced by what it stands for, up to the first branch."""
    values, rest = {}, []
    for statement in copy.deepcopy(body):
        found = None if rest else pairs(statement)
        if found is None:
            rest.append(Substitute(values).visit(statement))
        else:
            values |= {name: Substitute(values).visit(value) for name, value in found}
    return rest


def form(function):
    """Return what a function does, with neither its docstring nor the names of its values."""
    body = function.body[1:] if ast.get_docstring(function) else function.body
    tree = ast.Module(inlined(body), [])
    own = [argument.arg for argument in function.args.args]
    own += [
        n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
    ]
    numbers = {name: f"v{place}" for place, name in enumerate(dict.fromkeys(own))}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            node.id = numbers.get(node.id, node.id)
    return ast.unparse(tree)


def parsed(text):
    return ast.parse(textwrap.dedent(text)).body[0]


def definitions(exercise):
    """Yield the reference, and all functions beside the cases, which it may call."""
    yield parsed(inspect.getsource(exercise.reference))
    module = sys.modules[exercise.cases.__module__]
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        if isinstance(node, ast.FunctionDef):
            yield node


@pytest.mark.parametrize("name", solved.EXERCISES)
def test_no_reference_is_the_solution_in_other_words(name):
    solution = form(solved.FUNCTIONS[name])
    assert all(form(other) != solution for other in definitions(solved.EXERCISES[name]))


@pytest.mark.parametrize(
    "text",
    [
        "def f(a, b):\n    return a + b * a",
        "def g(x, y):\n    '''Say what.'''\n    z = y * x\n    return x + z",
        "def h(one, two):\n    a, b = one, two\n    c = b * a\n    d = a + c\n    return d",
    ],
)
def test_other_names_and_steps_make_no_other_form(text):
    assert form(parsed(text)) == "return v0 + v1 * v0"


def test_another_loop_is_another_form():
    first, second = "for i in x:\n        return i", "for j in x:\n        return j + 1"
    forms = {form(parsed(f"def f(x):\n    {loop}")) for loop in (first, second)}
    assert len(forms) == 2
