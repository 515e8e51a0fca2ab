"""The measuring tape: quality, size and time, and the ledger that sets them side by side."""

from lightcourse.ledger import Ledger
from lightcourse.metrics.answers import (
    PairedGap,
    accuracy,
    flips,
    macro_f1,
    paired_gap,
    predict,
)
from lightcourse.metrics.calibration_error import Reliability, reliability
from lightcourse.metrics.canaries import Exposure, exposure, exposures
from lightcourse.metrics.divergences import divergence, kl_divergence
from lightcourse.metrics.groups import (
    GroupGap,
    accuracy_by_group,
    accuracy_gap,
    flips_by_group,
    loss_gap,
)
from lightcourse.metrics.intervals import Share, wilson_interval
from lightcourse.metrics.joules import Energy, energy
from lightcourse.metrics.membership import Separation, caught_at, membership_auc
from lightcourse.metrics.memory import Memory, watch_memory
from lightcourse.metrics.overlap import rouge, rouge_l
from lightcourse.metrics.ranking import ndcg_at, recall_at, reciprocal_ranks
from lightcourse.metrics.row_losses import losses
from lightcourse.metrics.sizes import size_in_bytes, sparsity
from lightcourse.metrics.text import bits_per_byte, cross_entropy, perplexity
from lightcourse.metrics.times import Latency, latencies, latency
from lightcourse.metrics.training import TrainingBytes, kept_bytes, optimizer_bytes, training_bytes

__all__ = [
    "Energy",
    "Exposure",
    "GroupGap",
    "Latency",
    "Ledger",
    "Memory",
    "PairedGap",
    "Reliability",
    "Separation",
    "Share",
    "TrainingBytes",
    "accuracy",
    "accuracy_by_group",
    "accuracy_gap",
    "bits_per_byte",
    "caught_at",
    "cross_entropy",
    "divergence",
    "energy",
    "exposure",
    "exposures",
    "flips",
    "flips_by_group",
    "kept_bytes",
    "kl_divergence",
    "latencies",
    "latency",
    "loss_gap",
    "losses",
    "macro_f1",
    "membership_auc",
    "ndcg_at",
    "optimizer_bytes",
    "paired_gap",
    "perplexity",
    "predict",
    "recall_at",
    "reciprocal_ranks",
    "reliability",
    "rouge",
    "rouge_l",
    "size_in_bytes",
    "sparsity",
    "training_bytes",
    "watch_memory",
    "wilson_interval",
]
