"""The one training loop: fine-tuning, recovery after pruning and distillation all use it."""

from lightcourse.training.accountant import epsilon, noise_for
from lightcourse.training.loop import train
from lightcourse.training.losses import balanced_weights, model_loss, weighted_loss
from lightcourse.training.parallel import Traffic, reduce_by_ring_, ring_all_reduce_, shared_loss
from lightcourse.training.private import private_loss
from lightcourse.training.recipe import Group, History, Recipe
from lightcourse.training.updates import trainable_parameters

__all__ = [
    "Group",
    "History",
    "Recipe",
    "Traffic",
    "balanced_weights",
    "epsilon",
    "model_loss",
    "noise_for",
    "private_loss",
    "reduce_by_ring_",
    "ring_all_reduce_",
    "shared_loss",
    "train",
    "trainable_parameters",
    "weighted_loss",
]
