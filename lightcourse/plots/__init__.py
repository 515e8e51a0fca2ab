"""The figures that several chapters use: one function each, draws into ``Axes``, returns them."""

from lightcourse.plots.distillation import class_bars, densities
from lightcourse.plots.ledger import ledger
from lightcourse.plots.lines import bits_curves, curves, seed_dots, sparsity_curves, trade_off
from lightcourse.plots.pictures import byte_grid, stacked_bars, training_stages, weight_maps
from lightcourse.plots.quantization import clipping, error_parts, number_line, staircase
from lightcourse.plots.speed import call_times, roofline

__all__ = [
    "bits_curves",
    "byte_grid",
    "call_times",
    "class_bars",
    "clipping",
    "curves",
    "densities",
    "error_parts",
    "ledger",
    "number_line",
    "roofline",
    "seed_dots",
    "sparsity_curves",
    "stacked_bars",
    "staircase",
    "trade_off",
    "training_stages",
    "weight_maps",
]
