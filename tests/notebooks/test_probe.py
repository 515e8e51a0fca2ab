"""The probe: its noise is small and repeats, and what moved is told from what may move."""

import os
import subprocess
import sys

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from tools import probe

SHAKEN = f"""
import torch
from lightcourse import models
from lightcourse.training import Recipe, train
plain = models.load_tiny_lm("student").state_dict()
{probe.SHAKE}
once, again = (models.load_tiny_lm("student").state_dict() for _ in range(2))
assert all(torch.equal(once[name], again[name]) for name in once)
moved = torch.cat([((once[n] - plain[n]) / plain[n])[plain[n] != 0].flatten() for n in plain])
assert 1e-7 < moved.abs().mean() < moved.abs().max() < 1e-5, moved.abs().max()
torch.manual_seed(0)
layer, x = torch.nn.Linear(3, 3), torch.ones(2, 3)
start = layer.weight.detach().clone()
optimizer = torch.optim.SGD(layer.parameters(), lr=0.0)
for _ in range(2):
    layer(x).sum().backward()
    optimizer.step()
assert 0 < (layer.weight - start).abs().max() < 1e-5
"""


def test_noise_is_small_the_same_each_time_and_reaches_what_is_trained():
    environment = os.environ | {"LIGHTCOURSE_NOISE": "1"}
    subprocess.run([sys.executable, "-c", SHAKEN], check=True, cwd=probe.ROOT, env=environment)


def cell(text, **metadata):
    return new_code_cell("x", outputs=[new_output("stream", text=text)], metadata=metadata)


RAISED = new_code_cell("x", outputs=[new_output("error", ename="E", evalue="v", traceback=[])])


@pytest.mark.parametrize(
    ("ours", "theirs", "within", "beyond"),
    [
        (cell("0.71"), cell("0.71"), 0, 0),
        (cell("0.71"), cell("0.72"), 0, 1),
        (cell("0.71", atol=0.01), cell("0.72"), 1, 0),
        (cell("0.71", atol=0.01), cell("0.81"), 0, 1),
        (cell("3 ms", clock=True), cell("4 ms"), 0, 0),
        (cell("0.71", tags=["nbval-ignore-output"]), cell("0.81"), 0, 0),
        (cell("0.71", tags=["nbval-ignore-output"]), RAISED, 0, 1),
        (cell("0.71"), RAISED, 0, 1),
    ],
)
def test_what_moved_is_told_from_what_may_move(ours, theirs, within, beyond):
    found = probe.Found()
    probe._enter(found, "here", ours, theirs)
    assert (found.compared, len(found.within), len(found.beyond)) == (1, within, beyond)


def test_the_report_shows_a_figure_that_moved():
    found = probe.Found(3, ["a [cell 1]"], ["b [cell 2]\n- 0.71\n+ 0.81"])
    page = probe.report({"noise-1": found})
    assert "| noise-1 |" in page and "| 3 | 1 | 1 |" in page and "+ 0.81" in page


def test_a_variation_reaches_the_kernel(tmp_path):
    path = tmp_path / "00_start.ipynb"
    asking = "import os\nprint(os.environ['LIGHTCOURSE_KERNELS'])\nassert False"
    nbformat.write(new_notebook(cells=[new_code_cell(asking)]), path)
    settings = {"LIGHTCOURSE_KERNELS": "avx2", "LIGHTCOURSE_NOISE": "1"}
    noise, asked = probe.executed(path, settings).cells
    assert not noise.outputs
    assert [output.output_type for output in asked.outputs] == ["stream", "error"]
    assert asked.outputs[0].text == "avx2\n"
