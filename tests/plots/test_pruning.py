"""Pruning's figures: what is removed stands in grey, and bytes are counted as files have them."""

import warnings

import matplotlib.pyplot as plt
import pytest
import torch

from lightcourse import plots

WEIGHT = torch.tensor([[0.25, -0.5], [3.0, 1.0]])


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def test_the_steps_show_size_mask_and_what_is_left():
    axes = plots.pruning_steps(WEIGHT, torch.tensor([[False, False], [True, True]]))
    shown = [[text.get_text() for text in ax.texts] for ax in axes]
    assert shown[0] == ["0.25", "-0.5", "3", "1"] and shown[1] == ["0.25", "0.5", "3", "1"]
    assert shown[2] == ["0", "0", "1", "1"] and shown[3] == ["0", "0", "3", "1"]
    before, *_, after = ([cell.get_facecolor() for cell in ax.patches] for ax in axes)
    assert len(set(before)) == 1 and after[0] == after[1] != after[2] == before[2]


def test_formats_show_their_parts_and_count_their_bytes():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR")
        axes = plots.sparse_formats(WEIGHT.masked_fill(WEIGHT < 1, 0))
    shown = [[text.get_text() for text in ax.texts] for ax in axes]
    assert shown[0] == ["0", "0", "3", "1"]
    assert shown[1] == ["3", "1", "0", "1", "0", "0", "2"]
    assert shown[2] == ["0", "0", "1", "1", "3", "1"]
    assert [ax.get_title() for ax in axes] == [
        "dense: 16 bytes",
        "CSR: 28 bytes",
        "mask and values: 9 bytes",
    ]


def test_layers_that_are_chosen_stand_out():
    ax = plots.layer_bars([1.0, 0.02, 0.1], "influence", chosen=[1])
    assert [bar.get_height() for bar in ax.patches] == [1.0, 0.02, 0.1]
    assert [bool(bar.get_hatch()) for bar in ax.patches] == [False, True, False]
    assert ax.get_yscale() == "log" and ax.get_ylabel() == "influence"
