"""The figures that come back: one function each, which draws into ``Axes`` and returns them."""

from lightcourse.plots.distillation import answers, densities
from lightcourse.plots.ledger import ledger
from lightcourse.plots.lines import bits_curves, curves, seeds, sparsity_curves, trade_off
from lightcourse.plots.pictures import cells, shares, stages, weights
from lightcourse.plots.quantization import clipping, error_parts, number_line, staircase
from lightcourse.plots.speed import calls, roofline

__all__ = [
    "answers",
    "bits_curves",
    "calls",
    "cells",
    "clipping",
    "curves",
    "densities",
    "error_parts",
    "ledger",
    "number_line",
    "roofline",
    "seeds",
    "shares",
    "sparsity_curves",
    "stages",
    "staircase",
    "trade_off",
    "weights",
]
