"""Teaching a small model with what a large one thinks: losses, students, and teachers on disk."""

from lightcourse.distillation.cache import cache_logits, cached_batches, taught_by_cache
from lightcourse.distillation.features import attention_loss, hidden_loss
from lightcourse.distillation.generated import generate_targets
from lightcourse.distillation.losses import (
    causal_distillation_loss,
    distillation_loss,
    forward_kl,
    logit_mse,
    reverse_kl,
)
from lightcourse.distillation.students import student_from
from lightcourse.distillation.teaching import taught_by

__all__ = [
    "attention_loss",
    "cache_logits",
    "cached_batches",
    "causal_distillation_loss",
    "distillation_loss",
    "forward_kl",
    "generate_targets",
    "hidden_loss",
    "logit_mse",
    "reverse_kl",
    "student_from",
    "taught_by",
    "taught_by_cache",
]
