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
from lightcourse.metrics.memory import Memory, watch_memory
from lightcourse.metrics.sizes import size_in_bytes, sparsity
from lightcourse.metrics.text import bits_per_byte, cross_entropy, perplexity
from lightcourse.metrics.times import Latency, latencies, latency
from lightcourse.metrics.training import TrainingBytes, kept_bytes, optimizer_bytes, training_bytes

__all__ = [
    "Latency",
    "Ledger",
    "Memory",
    "PairedGap",
    "TrainingBytes",
    "accuracy",
    "bits_per_byte",
    "cross_entropy",
    "divergence",
    "flips",
    "kept_bytes",
    "kl_divergence",
    "latencies",
    "latency",
    "macro_f1",
    "optimizer_bytes",
    "paired_gap",
    "perplexity",
    "predict",
    "size_in_bytes",
    "sparsity",
    "training_bytes",
    "watch_memory",
]
