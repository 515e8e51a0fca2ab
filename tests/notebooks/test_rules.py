"""The rules themselves, on made-up notebooks: each accepts a good one and rejects a bad one."""

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from tools import rules


def stream(text, name="stdout"):
    return new_output("stream", name=name, text=text)


def shown(metadata=None, **data):
    kinds = {kind.replace("_", "/"): value for kind, value in data.items()}
    return new_output("display_data", data=kinds, metadata=metadata or {})


def code(source="1 + 1", *outputs, count=1, tags=(), **metadata):
    metadata |= {"tags": list(tags)} if tags else {}
    return new_code_cell(source, outputs=list(outputs), execution_count=count, metadata=metadata)


def book(*cells):
    return new_notebook(cells=list(cells))


GOOD = book(
    new_markdown_cell(r"# A title, $\theta$ and ![a curve](curve.png)"),
    code("x = 1\nprint('3/4 of /dev')", stream("3/4 of /dev\n")),
    code("draw()", shown({"image/png": {"alt": "a curve"}}, image_png="aGk="), count=2),
    new_markdown_cell("*Figure: a curve that falls.*"),
    code("assert fast < slow", stream("fast\n"), count=3, tags=["nbval-ignore-output"]),
    new_markdown_cell("Learned, and timed:"),
    code("print(x)", stream("0.71 in 12 ms\n"), count=4, atol=0.02, rtol=0.01, clock=True),
)
FIGURE = shown(image_png="aGk=")
BAD = [
    (rules.executed_in_order, book(code(count=None))),
    (rules.executed_in_order, book(code(count=2), new_markdown_cell("."), code(count=1))),
    (rules.executed_in_order, book(code(count=1), code(count=3))),
    (rules.executed_in_order, book(code(" \n"))),
    (rules.executed_in_order, book(new_markdown_cell("no code"))),
    (
        rules.nothing_raised,
        book(code("1 / 0", new_output("error", ename="E", evalue="v", traceback=[]))),
    ),
    (rules.short_cells, book(code("x = 1\n" * 16))),
    (rules.prose_between, book(code(), code(count=2), code(count=3))),
    (rules.nothing_on_stderr, book(code("1", stream("a warning", "stderr")))),
    (rules.no_widgets, book(code("1", new_output("display_data", data={rules.WIDGET: {}})))),
    (rules.no_widgets, new_notebook(metadata={"widgets": {"state": {}}})),
    (rules.nothing_of_this_machine, book(code("1", stream("saved to /home/ada/model\n")))),
    (rules.nothing_of_this_machine, book(code("1", stream(r"saved to C:\Users\ada")))),
    (rules.nothing_of_this_machine, book(code("1", shown(text_plain="<f at 0x7f12ab34cd56>")))),
    (rules.nothing_of_this_machine, book(code("1", shown(text_html="<p>/tmp/x</p>")))),
    (rules.no_control_characters, book(new_markdown_cell("$\theta$"))),
    (rules.no_control_characters, book(new_markdown_cell("$\rho$"))),
    (rules.no_control_characters, book(new_markdown_cell("$\frac12$"))),
    (rules.no_control_characters, book(new_markdown_cell("$\beta$"))),
    (rules.no_control_characters, book(code("1", shown(text_latex="$\alpha$")))),
    (rules.no_control_characters, book(code("1", stream("\x1b[31mred")))),
    (rules.figures_have_alt_text, book(code("1", FIGURE))),
    (rules.figures_have_alt_text, book(code("1", FIGURE), new_markdown_cell("A curve."))),
    (rules.figures_have_alt_text, book(code("1", FIGURE), code("2", FIGURE, count=2))),
    (rules.figures_have_alt_text, book(code("1", FIGURE), new_markdown_cell("*Figure: a curve*"))),
    (rules.figures_have_alt_text, book(new_markdown_cell("![](curve.png)"))),
    (rules.figures_have_alt_text, book(new_markdown_cell('<img src="curve.png">'))),
    (rules.nothing_skipped, book(code(tags=["nbval-skip"]))),
    (rules.nothing_skipped, book(code(tags=["raises-exception"]))),
    (rules.nothing_skipped, book(code("# NBVAL_IGNORE_OUTPUT\n1"))),
    (rules.tolerances_are_needed_and_small, book(code("x", stream("12\n"), clock=True))),
    (rules.tolerances_are_needed_and_small, book(code("x", stream("3 of 4\n"), rtol=0.01))),
    (rules.tolerances_are_needed_and_small, book(code("x", stream("0.5\n"), atol=0.5))),
    (rules.tolerances_are_needed_and_small, book(code("x", stream("0.5\n"), rtol="0.01"))),
    (rules.tolerances_are_needed_and_small, book(code("x", stream("0.5\n"), atol=-0.01))),
    (
        rules.tolerances_are_needed_and_small,
        book(code("x", stream("0.5"), atol=0.01, tags=["nbval-ignore-output"])),
    ),
    (rules.ignored_outputs_are_asserted, book(code("print(t)", tags=["nbval-ignore-output"]))),
]


@pytest.mark.parametrize("rule", rules.RULES, ids=lambda rule: rule.__name__)
def test_a_good_notebook_breaks_no_rule(rule):
    assert list(rule(GOOD)) == []


@pytest.mark.parametrize(
    ("rule", "notebook"), BAD, ids=lambda value: getattr(value, "__name__", "")
)
def test_a_bad_notebook_is_caught(rule, notebook):
    assert list(rule(notebook))


def test_every_rule_is_shown_to_catch_something():
    assert {rule for rule, _ in BAD} == set(rules.RULES)


def test_a_figure_is_described_by_its_caption_or_in_words():
    caption = "*Figure: pruning `w` is\ncheap; $a \\cdot b$.*"
    words = "<details><summary>The figure in words</summary>\n\nA *long*\nline.\n\n</details>"
    assert rules.description(caption) == "pruning w is cheap; a cdot b."
    assert rules.description(f"{caption}\n\n{words}") == "A long line."


@pytest.mark.parametrize(
    "other",
    [
        book(new_markdown_cell("b", id="one")),
        book(code("a", count=None)),
        book(),
        book(new_markdown_cell("a", id="one", metadata={"tags": ["x"]})),
        book(new_markdown_cell("a", id="two")),
        book(new_markdown_cell("a", id="one"), new_markdown_cell("more")),
    ],
    ids=["source", "kind", "missing", "tags", "id", "more"],
)
def test_drift_is_caught(other):
    source = book(new_markdown_cell("a", id="one"))
    assert list(rules.drift(source, source)) == []
    assert list(rules.drift(source, other))


SOLUTION = book(
    code("def f(x):\n    ### BEGIN SOLUTION\n    return x.abs().max()\n    ### END SOLUTION"),
    code("done = f(x)\n### BEGIN HIDDEN TESTS\nassert done is True\n### END HIDDEN TESTS"),
    new_markdown_cell(
        "Because the largest\nabsolute value decides.", metadata={"tags": ["solution"]}
    ),
)
STUB = code("def f(x):\n    ...  # your code here")


def test_an_exercise_without_the_solution_leaks_nothing():
    assert list(rules.leaks(SOLUTION, book(STUB, new_markdown_cell("Mind the sign.")))) == []


@pytest.mark.parametrize(
    "leak",
    [
        code("return  x.abs().max()"),
        code("assert done is True"),
        new_markdown_cell("Hint: `return x.abs().max()`"),
        new_markdown_cell("And why? Because the\nlargest, so\nabsolute value decides."),
    ],
    ids=["code", "hidden test", "hint", "explanation"],
)
def test_a_leaked_solution_is_caught(leak):
    assert list(rules.leaks(SOLUTION, book(STUB, leak)))
