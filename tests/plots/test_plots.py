"""Figures: the right number of panels and bars, and zeros that look like zeros."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from lightcourse import metrics, plots
from lightcourse.plots import sliders


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def test_weights_share_one_scale_and_hide_exact_zeros():
    matrix = torch.tensor([[1.0, 0.0], [-4.0, 2.0]])
    axes = plots.weight_maps({"one": matrix, "two": matrix / 2})
    assert [ax.get_title() for ax in axes] == ["one", "two"]
    images = [ax.images[0] for ax in axes]
    assert {image.get_clim() for image in images} == {(-4.0, 4.0)}
    assert images[0].get_array().mask.tolist() == [[False, True], [False, False]]


def test_shares_stack_up_to_each_total():
    ax = plots.stacked_bars({"a": {"x": 1.0, "y": 2.0}, "b": {"y": 3.0}}, "MB")
    ends = {round(bar.get_y(), 2): 0.0 for bar in ax.patches}
    for bar in ax.patches:
        end = bar.get_x() + bar.get_width()
        ends[round(bar.get_y(), 2)] = max(ends[round(bar.get_y(), 2)], end)
    assert sorted(ends.values()) == [3.0, 3.0]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["x", "y"]
    assert ax.get_xlabel() == "MB"


def test_stages_name_both_kinds_of_training():
    texts = " ".join(text.get_text() for text in plots.training_stages().texts)
    assert all(word in texts for word in ("PRETRAINING", "FINE-TUNING", "[MASK]", "labelled"))


def test_diagrams_name_what_they_show():
    for draw, words in [
        (plots.integer_product, ("round", "32 bits", "times s · t")),
        (plots.teacher_and_student, ("TEACHER", "student", "one text")),
        (lambda: plots.lora_layer(384, 384, 8), ("147,456", "6,144 numbers, 4.2% of W")),
        (lambda: plots.transformer_block({"attention": 1234}), ("attention", "1,234")),
    ]:
        texts = " ".join(text.get_text() for text in draw().texts)
        assert all(word in texts for word in words)


@pytest.mark.parametrize(
    ("scale", "shown"),
    [
        (torch.tensor(0.5), ["× 0.5"]),
        (torch.tensor([0.5, 0.25]), ["× 0.5", "× 0.25"]),
        (torch.tensor([[0.5, 2.0], [0.25, 3.0]]), ["× 0.5", "× 2", "× 0.25", "× 3"]),
    ],
)
def test_integers_that_share_a_scale_share_its_colour(scale, shown):
    q = torch.arange(8).reshape(2, 4)
    ax = plots.integer_grid(q, scale)
    texts = [text.get_text() for text in ax.texts]
    assert texts == [str(i) for i in range(8)] + shown
    assert len({patch.get_facecolor() for patch in ax.patches}) == len(shown)


def test_eight_scales_have_eight_colours_and_stand_in_them():
    ax = plots.integer_grid(torch.zeros(4, 8, dtype=torch.int), torch.ones(4, 2))
    cells = [patch.get_facecolor() for patch in ax.patches]
    assert len(set(cells)) == 8
    beside = [text.get_bbox_patch().get_facecolor() for text in ax.texts if text.get_bbox_patch()]
    assert beside == cells[::4]


def test_scales_that_do_not_divide_the_integers_are_refused():
    for scale in (torch.ones(3), torch.ones(2, 3)):
        with pytest.raises(ValueError, match="scale has shape"):
            plots.integer_grid(torch.zeros(2, 4, dtype=torch.int), scale)


def test_bytes_moved_are_summed_up_in_megabytes():
    ax = plots.bytes_moved({"floats": {"weights": 4e6, "x": 1e6}, "8 bits": {"weights": 1e6}})
    assert [text.get_text().strip() for text in ax.texts] == ["5.0", "1.0"]


def test_a_slider_falls_back_to_a_still(monkeypatch):
    asked = []
    monkeypatch.setattr("ipywidgets.interact", lambda draw, **sliders: asked.append(sliders))
    plots.number_line_slider([0.2, -1.0])
    title = plt.gcf().axes[0].get_title()
    assert title == "3 bits, 100% of the range: squared error 1.7%" and not asked
    monkeypatch.setenv("LIGHTCOURSE_WIDGETS", "1")
    plots.number_line_slider([0.2, -1.0], bits=4)
    assert asked[0]["bits"].value == 4 and asked[0]["share"].value == 1.0


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("share", [0.4, 0.7, 1.0])
def test_a_slider_tells_the_error_of_the_grid_that_it_draws(bits, share):
    x = [0.2, -1.0, 0.9]
    sliders._draw(x, bits, share)
    most = 2 ** (bits - 1) - 1
    levels = share * np.arange(-most, most + 1) / most
    error = (np.subtract.outer(x, levels) ** 2).min(axis=1).sum() / np.square(x).sum()
    assert plt.gcf().axes[0].get_title().endswith(f"squared error {error:.1%}")


@pytest.mark.parametrize(("x", "bits"), [([0.0, 0.0], 3), ([1.0], 8)])
def test_a_slider_refuses_what_it_cannot_draw(x, bits):
    with pytest.raises(ValueError, match="is wanted"):
        plots.number_line_slider(x, bits)


def test_curves_draw_every_point_and_name_each_line():
    ax = plots.curves({"a": {4: 60.0, 16: 40.0}, "b": {16: 70.0, 64: 65.0}}, "window", "perplexity")
    assert [list(line.get_ydata()) for line in ax.lines] == [[60, 40], [70, 65]]
    assert [text.get_text().strip() for text in ax.texts] == ["a", "b"]
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["4", "16", "64"]


def test_names_of_lines_that_end_together_do_not_cover_each_other():
    ax = plots.curves({"a": {4: 9.0, 16: 1.0}, "b": {4: 5.0, 16: 1.0}}, "window", "perplexity")
    low, high = ax.get_ylim()
    heights = [text.get_position()[1] for text in ax.texts]
    assert heights[1] - heights[0] > 0.05 * (high - low) and sum(heights) == pytest.approx(2)


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
    ax = plots.call_times([0.001, 0.002, 0.009])
    assert list(ax.lines[0].get_ydata()) == pytest.approx([1, 2, 9])
    assert ax.lines[1].get_ydata()[0] == pytest.approx(2)
    assert ax.get_legend().get_texts()[0].get_text() == "median 2.0 ms"


def test_sparsity_curves_go_through_the_means_and_show_the_seeds():
    ax = plots.sparsity_curves({"chance": {0.5: [2.0, 4.0], 0.7: [8.0, 8.0]}}, "perplexity")
    assert ax.lines[0].get_xydata().tolist() == [[50.0, 3.0], [70.0, 8.0]]
    band = ax.collections[0].get_paths()[0].get_extents()
    assert (band.y0, band.y1) == (2.0, 8.0) and ax.get_yscale() == "log"


def test_seeds_put_one_dot_for_each_seed_into_each_row():
    ax = plots.seed_dots({"first": [1.0, 2.0], "second": [3.0, 4.0]}, "perplexity")
    dots = [line.get_xydata().tolist()[0] for line in ax.lines]
    assert dots == [[1.0, 0], [2.0, 0], [3.0, 1], [4.0, 1]]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["first", "second"]
    assert ax.get_ylim() == (1.5, -0.5)
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["seed 0", "seed 1"]
    ax = plots.seed_dots({"first": [1.0, 2.0]}, "perplexity", each="text")
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["text 0", "text 1"]


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
    ax = plots.byte_grid([["a", "b"], ["c", 4]], [[0, 1], [1, 0]], "bytes")
    assert {t.get_position(): t.get_text() for t in ax.texts} == {
        (0.5, 0.5): "a",
        (1.5, 0.5): "b",
        (0.5, 1.5): "c",
        (1.5, 1.5): "4",
    }
    colours = [patch.get_facecolor() for patch in ax.patches]
    assert colours[0] == colours[3] != colours[1] == colours[2]
    assert ax.get_title() == "bytes" and ax.yaxis_inverted()


def test_answers_are_one_bar_for_each_class_and_label():
    said = {"T = 1": [0.7, 0.2, 0.1], "T = 4": [0.4, 0.3, 0.3]}
    ax = plots.class_bars(said, ["x", "y", "z"], title="a text")
    assert [round(bar.get_width(), 2) for bar in ax.patches] == [0.7, 0.2, 0.1, 0.4, 0.3, 0.3]
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["x", "y", "z"]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == list(said)
    assert {round(bar.get_y() + 0.5) for bar in ax.patches} == {0, 1, 2}


def test_channels_are_drawn_in_panels_over_one_axis():
    axes = plots.channel_bars({"quiet": [1.0, 2.0], "loud": torch.tensor([1.0, 200.0])}, "size")
    assert [ax.get_title() for ax in axes] == ["quiet", "loud"]
    assert [bar.get_height() for bar in axes[1].patches] == [1.0, 200.0]
    assert axes[0].get_ylim() == axes[1].get_ylim() and axes[0].get_yscale() == "log"


def test_a_number_line_marks_its_levels_and_what_it_clamps():
    ax = plots.number_line([0.2, 1.5], scale=0.3, zero_point=-1, quant_min=-4, quant_max=3)
    texts = [text.get_text() for text in ax.texts]
    assert all(str(q) in texts for q in range(-4, 4)) and "1.2" in texts and "1.5" in texts
    markers = [line.get_marker() for line in ax.lines if line.get_marker() in "os"]
    assert markers == ["o", "s"]


def test_bits_panels_share_an_axis_and_a_legend():
    lines = {"row": {3.1: [1.1, 1.3], 4.1: [1.0, 1.0]}}
    axes = plots.bits_panels({"full range": lines, "least squares": lines}, "perplexity")
    assert [ax.get_title() for ax in axes] == ["full range", "least squares"]
    assert axes[0].get_ylim() == axes[1].get_ylim()
    assert [ax.get_legend() is None for ax in axes] == [True, False]
    assert [ax.get_ylabel() for ax in axes] == ["perplexity", ""]


def test_bits_curves_go_through_the_means_and_show_the_seeds():
    ax = plots.bits_curves({"row": {3.1: [30.0, 40.0], 4.1: [28.0, 28.0]}}, "perplexity")
    assert ax.lines[0].get_xydata().tolist() == [[3.1, 35.0], [4.1, 28.0]]
    band = ax.collections[0].get_paths()[0].get_extents()
    assert (band.y0, band.y1) == (28.0, 40.0) and ax.get_yscale() == "log"


def test_a_ledger_has_one_point_and_one_name_for_each_row():
    ledger = metrics.Ledger("accuracy")
    ledger.add("as it came", 90_000_000, 0.75)
    ledger.add("pruned <50%>", 90_000_000, 0.74)
    ledger.add("8 bits", 60_000_000, 0.751)
    ledger.add("random", 90_000_000, 0.5, control_of="pruned <50%>")
    ax = plots.ledger(ledger)
    points = [line for line in ax.lines if line.get_marker() == "o"]
    assert len(points) == 4
    assert {text.get_text() for text in ax.texts} == {row.name for row in ledger.rows}
    low, high = ax.get_ylim()
    for side in ("left", "right"):
        heights = sorted(text.xyann[1] for text in ax.texts if text.get_ha() == side)
        gaps = [b - a for a, b in zip(heights, heights[1:], strict=False)]
        assert all(gap > 0.05 * (high - low) for gap in gaps)


def test_a_ledger_names_a_middle_column_beside_it_on_its_wider_side():
    ledger = metrics.Ledger("accuracy")
    for name, stored in {"small": 1e6, "middle": 6e6, "near it": 6.4e6, "large": 10e6}.items():
        ledger.add(name, int(stored), 0.7)
    places = {text.get_text(): text for text in plots.ledger(ledger).texts}
    sides = {name: text.get_ha() for name, text in places.items()}
    assert sides == {"small": "right", "middle": "right", "near it": "right", "large": "left"}
    assert 4.5 < places["middle"].xyann[0] == places["near it"].xyann[0] < 6


def test_two_columns_of_a_ledger_do_not_write_into_the_same_gap():
    ledger = metrics.Ledger("accuracy")
    for stored in (1, 3, 8, 10):
        ledger.add(f"{stored}", stored * 10**6, 0.7)
    sides = [text.get_ha() for text in plots.ledger(ledger).texts]
    assert sides == ["right", "left", "left", "left"]


def test_a_ledger_without_rows_is_refused():
    with pytest.raises(ValueError, match="variants is a ledger without rows"):
        plots.ledger(metrics.Ledger("accuracy"))
