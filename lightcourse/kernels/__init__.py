"""Numba twins of :mod:`lightcourse.reference`: same names, same arguments, same results.

Arguments may be NumPy arrays or torch tensors on the CPU, contiguous or not; contiguous
float32 is not copied. Each function runs on the path that :func:`path` names, and on as many
threads as :func:`set_threads` allows.
"""

from lightcourse.kernels.codebook import linear_codebook
from lightcourse.kernels.linear import (
    linear_sparse,
    linear_w4a8,
    linear_w8a8,
    linear_w8a8_grouped,
    quantize_groups,
    quantize_rows,
)
from lightcourse.kernels.paths import available, max_threads, path, set_threads, threads

__all__ = [
    "available",
    "linear_codebook",
    "linear_sparse",
    "linear_w4a8",
    "linear_w8a8",
    "linear_w8a8_grouped",
    "max_threads",
    "path",
    "quantize_groups",
    "quantize_rows",
    "set_threads",
    "threads",
]
