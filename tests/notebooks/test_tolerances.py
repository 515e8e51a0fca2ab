"""The layer on nbval: a last digit passes, whatever a reader would notice does not."""

import jupytext
import nbformat
import pytest

from tests.notebooks.strict import nbval
from tools import notebooks, tolerances
from tools.tolerances import agree

LEARNED = "seed 0: accuracy 0.713 ± 0.003, [26.1, 0.3]; 7.1% of 1,000 flipped\nloss 2.5e-05\n"


def test_without_a_tolerance_texts_must_be_equal():
    assert agree(LEARNED, LEARNED)
    assert not agree(LEARNED, LEARNED.replace("0.713", "0.714"))
    assert not agree("a  1", "a 1")


@pytest.mark.parametrize(
    ("old", "new"),
    [("0.713", "0.714"), ("0.003", "0.004"), ("26.1", "26.2"), ("7.1%", "7.0%"), ("2.5e", "2.4e")],
)
def test_a_last_digit_passes_however_small_the_tolerance(old, new):
    assert agree(LEARNED, LEARNED.replace(old, new), rtol=1e-9)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("0.713", "0.735"),
        ("26.1", "26.5"),
        ("7.1%", "9.3%"),
        ("0.713", "-0.713"),
        ("0.713", "nan"),
        ("0.713", "0.71"),
        ("0.713", "713"),
        ("7.1%", "7.1 points"),
        ("1,000", "1,001"),
        ("seed 0", "seed 1"),
        ("accuracy", "accuracies"),
        ("flipped", ""),
        ("\nloss", " loss"),
        ("loss 2.5e-05\n", ""),
        ("loss", "more\nloss"),
        ("26.1, 0.3", "0.3, 26.1"),
        ("26.1, 0.3", "26.1"),
        ("26.1, 0.3", "26.1, 0.3, 0.3"),
        ("2.5e-05\n", "2.5e-05 0.1\n"),
    ],
)
def test_what_a_reader_would_notice_does_not_pass(old, new):
    changed = LEARNED.replace(old, new, 1)
    assert changed != LEARNED
    assert not agree(LEARNED, changed, atol=0.02)


def test_atol_is_in_the_number_s_own_unit_and_rtol_is_a_share():
    assert agree("0.70 and 70.0%", "0.72 and 72.0%", atol=0.02)
    assert not agree("70.0%", "72.2%", atol=0.02)
    assert agree("perplexity 200.0", "perplexity 203.9", rtol=0.02)
    assert not agree("perplexity 200.0", "perplexity 204.2", rtol=0.02)
    assert not agree("loss 2.5e-05", "loss 2.5e-04", rtol=0.02)


def test_columns_may_be_filled_up_with_blanks():
    assert agree("[ 9.9, 10.1] |", "[10.0,  9.9] |", rtol=0.05)
    assert not agree("9.9\n10.1", "9.9 10.1", rtol=0.05)


CLOCK = "stored 90,264 bytes: 14.02 ms ± 1.75 (median of 20, 2 threads), 18 times, 3.1 tokens/s"


def test_a_clock_may_say_anything_that_is_a_number():
    other = "stored 90,264 bytes: 3 ms ± 22.5 (median of 20, 2 threads), 1.2 times, 199 tokens/s"
    assert agree(CLOCK, other, clock=True)
    assert not agree(CLOCK, other, rtol=0.1)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("90,264", "90,265"),
        ("2 threads", "1 thread"),
        ("14.02 ms", "14.02 s of"),
        ("14.02 ms", "nan ms"),
        ("of 20", "of 21"),
        ("3.1 tokens/s", "3.1 tokens"),
        (", 18 times", ""),
    ],
)
def test_beside_a_clock_all_else_is_compared(old, new):
    assert not agree(CLOCK, CLOCK.replace(old, new), clock=True)


def test_beside_a_clock_learned_numbers_have_their_own_tolerance():
    assert agree("accuracy 0.71 in 3.1 s", "accuracy 0.72 in 8.5 s", clock=True, atol=0.01)
    assert not agree("accuracy 0.71 in 3.1 s", "accuracy 0.72 in 8.5 s", clock=True)


SOURCE = """# %% atol=0.02
print(f"accuracy {x}")

# %% clock=true
print(f"{y} in 12.5 ms")

# %%
print(f"exactly {z}")
"""


def test_py_percent_carries_tolerances_into_the_notebook_and_back(tmp_path):
    source = tmp_path / "00_start.py"
    source.write_text(SOURCE)
    cells = notebooks.from_source(source).cells
    assert [tolerances.stated(cell) for cell in cells] == [{"atol": 0.02}, {"clock": True}, {}]
    assert "# %% atol=0.02\n" in jupytext.writes(notebooks.from_source(source), fmt="py:percent")


def nbval_fails(tmp_path, x, y, z):
    """Return for each of the three cells whether nbval fails it, with these values to print."""
    source = tmp_path / "00_start.py"
    source.write_text(SOURCE)
    notebook = notebooks.from_source(source)
    texts = ("accuracy 0.713\n", "k=3 in 8.1 ms\n", "exactly 0.713\n")
    for cell, text in zip(notebook.cells, texts, strict=True):
        cell.outputs, cell.execution_count = [nbformat.v4.new_output("stream", text=text)], 1
    notebook.cells.insert(0, nbformat.v4.new_code_cell(f"x, y, z = {x!r}, {y!r}, {z!r}"))
    path = tmp_path / "00_start.ipynb"
    nbformat.write(notebook, path)
    _, said = nbval(path)
    assert "4 passed" in said or "3 failed, 1 passed" in said, said
    return [f"Cell {number}" in said for number in (1, 2, 3)]


def test_nbval_lets_a_last_digit_pass_where_the_cell_says_so_and_nowhere_else(tmp_path):
    assert nbval_fails(tmp_path, 0.715, "k=3", 0.713) == [False, False, False]
    assert nbval_fails(tmp_path, 0.755, "k=4", 0.714) == [True, True, True]


def test_the_project_s_own_runs_look_through_the_layer(pytestconfig):
    found = pytestconfig.pluginmanager.hook.pytest_itemcollected.get_hookimpls()
    assert tolerances.pytest_itemcollected in [hook.function for hook in found]
