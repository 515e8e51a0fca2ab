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


def test_stages_name_both_kinds_of_training():
    texts = " ".join(text.get_text() for text in plots.stages().texts)
    assert all(word in texts for word in ("PRETRAINING", "FINE-TUNING", "[MASK]", "labelled"))


def test_curves_draw_every_point_and_name_each_line():
    ax = plots.curves({"a": {4: 60.0, 16: 40.0}, "b": {16: 70.0, 64: 65.0}}, "window", "perplexity")
    assert [list(line.get_ydata()) for line in ax.lines] == [[60, 40], [70, 65]]
    assert [text.get_text().strip() for text in ax.texts] == ["a", "b"]
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["4", "16", "64"]


def test_a_roof_is_bandwidth_times_intensity_and_then_the_peak():
    ax = plots.roofline({"machine": (10e9, 80e9)}, {"write": 0.5, "read": 64.0})
    x, y = ax.lines[0].get_data()
    slope = x < 8
    assert y[slope] == pytest.approx(10 * x[slope]) and y[~slope] == pytest.approx(80)
    assert slope.any() and not slope.all()
    assert [line.get_xdata()[0] for line in ax.lines[1:]] == [0.5, 64.0]
    assert [text.get_text().strip() for text in ax.texts] == ["write", "read"]


def test_calls_show_each_call_and_their_median():
    ax = plots.calls([0.001, 0.002, 0.009])
    assert list(ax.lines[0].get_ydata()) == pytest.approx([1, 2, 9])
    assert ax.lines[1].get_ydata()[0] == pytest.approx(2)
    assert ax.get_legend().get_texts()[0].get_text() == "median 2.0 ms"
