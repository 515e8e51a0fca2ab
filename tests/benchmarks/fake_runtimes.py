"""Runtimes that behave as badly as real ones have."""

from pathlib import Path

import numpy as np


def write(path):
    Path(path).write_bytes(b"12345")


def missing(path):
    import no_such_library  # noqa: F401


def broken(path):
    Path(path).write_bytes(b"half of it")
    raise RuntimeError("0 in strides is not supported")


def right(path):
    """Answer that every sentence points the same way."""
    return lambda ids, mask: np.array([[1.0, 0.0]], np.float32)


def crooked(path):
    """Answer something else."""
    return lambda ids, mask: np.array([[0.6, 0.8]], np.float32)
