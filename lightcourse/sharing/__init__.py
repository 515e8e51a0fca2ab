"""Weights that serve more than once: layers that share them, and matrices made of thin ones."""

from lightcourse.sharing.factoring import factor_
from lightcourse.sharing.layer import FactoredLinear
from lightcourse.sharing.low_rank import low_rank, rank_within
from lightcourse.sharing.saved import load_factored_, save_factored
from lightcourse.sharing.share import share_layers_

__all__ = [
    "FactoredLinear",
    "factor_",
    "load_factored_",
    "low_rank",
    "rank_within",
    "save_factored",
    "share_layers_",
]
