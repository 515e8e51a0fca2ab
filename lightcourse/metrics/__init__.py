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
from lightcourse.metrics.divergences import divergence, kl_divergence
from lightcourse.metrics.groups import (
    GroupGap,
    accuracy_by_group,
    accuracy_gap,
    flips_by_group,
    loss_gap,
)
from lightcourse.metrics.intervals import Share, wilson_interval
from lightcourse.metrics.sizes import size_in_bytes, sparsity
from lightcourse.metrics.text import bits_per_byte, cross_entropy, perplexity
from lightcourse.metrics.times import Latency, latencies, latency
from lightcourse.metrics.training import TrainingBytes, kept_bytes, optimizer_bytes, training_bytes

__all__ = [
    "GroupGap",
    "Latency",
    "Ledger",
    "PairedGap",
    "Share",
    "TrainingBytes",
    "accuracy",
    "accuracy_by_group",
    "accuracy_gap",
    "bits_per_byte",
    "cross_entropy",
    "divergence",
    "flips",
    "flips_by_group",
    "kept_bytes",
    "kl_divergence",
    "latencies",
    "latency",
    "loss_gap",
    "macro_f1",
    "optimizer_bytes",
    "paired_gap",
    "perplexity",
    "predict",
    "size_in_bytes",
    "sparsity",
    "training_bytes",
    "wilson_interval",
]
