"""Figures: the right number of panels and bars, and zeros that look like zeros."""

import matplotlib.pyplot as plt
import pytest
import torch

from lightcourse import plots


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def test_weights_share_one_scale_and_hide_exact_zeros():
    matrix = torch.tensor([[1.0, 0.0], [-4.0, 2.0]])
    axes = plots.weights({"one": matrix, "two": matrix / 2})
    assert [ax.get_title() for ax in axes] == ["one", "two"]
    images = [ax.images[0] for ax in axes]
    assert {image.get_clim() for image in images} == {(-4.0, 4.0)}
    assert images[0].get_array().mask.tolist() == [[False, True], [False, False]]


def test_shares_stack_up_to_each_total():
    ax = plots.shares({"a": {"x": 1.0, "y": 2.0}, "b": {"y": 3.0}}, "MB")
    ends = {round(bar.get_y(), 2): 0.0 for bar in ax.patches}
    for bar in ax.patches:
        end = bar.get_x() + bar.get_width()
        ends[round(bar.get_y(), 2)] = max(ends[round(bar.get_y(), 2)], end)
    assert sorted(ends.values()) == [3.0, 3.0]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["x", "y"]
    assert ax.get_xlabel() == "MB"
