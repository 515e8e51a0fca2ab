"""The figures that come back: one function each, which draws into ``Axes`` and returns them."""

from lightcourse.plots.lines import curves, seeds, sparsity_curves, trade_off
from lightcourse.plots.pictures import cells, shares, stages, weights
from lightcourse.plots.speed import calls, roofline

__all__ = [
    "calls",
    "cells",
    "curves",
    "roofline",
    "seeds",
    "shares",
    "sparsity_curves",
    "stages",
    "trade_off",
    "weights",
]
