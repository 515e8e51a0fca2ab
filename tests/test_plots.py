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


def test_what_was_reached_lies_under_the_roof_as_points():
    ax = plots.roofline({"machine": (10e9, 80e9)}, points={"ours": [(2.0, 15e9), (16.0, 60e9)]})
    assert list(ax.lines[1].get_xdata()) == [2, 16] and list(ax.lines[1].get_ydata()) == [15, 60]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["machine", "ours"]


def test_a_roof_over_nothing_is_refused():
    with pytest.raises(ValueError, match="work and points are empty"):
        plots.roofline({"machine": (10e9, 80e9)})


def test_calls_show_each_call_and_their_median():
    ax = plots.calls([0.001, 0.002, 0.009])
    assert list(ax.lines[0].get_ydata()) == pytest.approx([1, 2, 9])
    assert ax.lines[1].get_ydata()[0] == pytest.approx(2)
    assert ax.get_legend().get_texts()[0].get_text() == "median 2.0 ms"


def test_sparsity_curves_go_through_the_means_and_show_the_seeds():
    ax = plots.sparsity_curves({"chance": {0.5: [2.0, 4.0], 0.7: [8.0, 8.0]}}, "perplexity")
    assert ax.lines[0].get_xydata().tolist() == [[50.0, 3.0], [70.0, 8.0]]
    band = ax.collections[0].get_paths()[0].get_extents()
    assert (band.y0, band.y1) == (2.0, 8.0) and ax.get_yscale() == "log"


def test_seeds_put_one_dot_for_each_seed_into_each_row():
    ax = plots.seeds({"first": [1.0, 2.0], "second": [3.0, 4.0]}, "perplexity")
    dots = [line.get_xydata().tolist()[0] for line in ax.lines]
    assert dots == [[1.0, 0], [2.0, 0], [3.0, 1], [4.0, 1]]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["first", "second"]
    assert ax.yaxis_inverted()
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["seed 0", "seed 1"]


def test_curves_with_seeds_go_through_the_means_and_show_the_spread():
    ax = plots.curves({"small": {64: [1.0, 3.0], 128: [0.5, 0.5]}}, "examples", "error")
    assert ax.lines[0].get_xydata().tolist() == [[64.0, 2.0], [128.0, 0.5]]
    band = ax.collections[0].get_paths()[0].get_extents()
    assert (band.y0, band.y1) == (0.5, 3.0)
    assert not plots.curves({"one": {1: 2.0, 2: 1.0}}, "x", "y").collections


def test_trade_off_shows_each_seed_and_the_start():
    ax = plots.trade_off({"a": [(1, 2), (3, 4)], "b": [(5, 6)]}, "new", "old", start=(0, 9))
    assert [line.get_xydata().tolist() for line in ax.lines] == [
        [[1, 2], [3, 4]],
        [[5, 6]],
        [[0, 9]],
    ]
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["a", "b", "before"]


def test_cells_show_each_label_in_its_place_and_colour():
    ax = plots.cells([["a", "b"], ["c", 4]], [[0, 1], [1, 0]], "bytes")
    assert {t.get_position(): t.get_text() for t in ax.texts} == {
        (0.5, 0.5): "a",
        (1.5, 0.5): "b",
        (0.5, 1.5): "c",
        (1.5, 1.5): "4",
    }
    colours = [patch.get_facecolor() for patch in ax.patches]
    assert colours[0] == colours[3] != colours[1] == colours[2]
    assert ax.get_title() == "bytes" and ax.yaxis_inverted()
