"""Weights that serve more: shared layers, thin factors, one encoder for many tasks."""

from lightcourse.sharing.conflict import gradient_cosines
from lightcourse.sharing.factoring import factor_
from lightcourse.sharing.freezing import freeze_layers_
from lightcourse.sharing.heads import MultiTaskClassifier
from lightcourse.sharing.layer import FactoredLinear
from lightcourse.sharing.low_rank import low_rank, rank_within
from lightcourse.sharing.saved import load_factored_, save_factored
from lightcourse.sharing.share import share_layers_
from lightcourse.sharing.tasks import mixed_batches, task_probabilities

__all__ = [
    "FactoredLinear",
    "MultiTaskClassifier",
    "factor_",
    "freeze_layers_",
    "gradient_cosines",
    "load_factored_",
    "low_rank",
    "mixed_batches",
    "rank_within",
    "save_factored",
    "share_layers_",
    "task_probabilities",
]
