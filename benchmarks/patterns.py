"""Three ways to remove weights: one by one, two of four, and blocks of 16 outputs by 4 inputs."""

import numpy as np


def dense(weight):
    """Keep everything."""
    return weight


def unstructured(weight, sparsity):
    """Zero the smallest weights, wherever they stand."""
    size = np.abs(weight)
    return np.where(size >= np.quantile(size, sparsity), weight, np.float32(0))


def two_of_four(weight):
    """Zero the two smallest of every four weights of a row."""
    groups = np.abs(weight).reshape(-1, 4)
    ranks = groups.argsort(axis=1).argsort(axis=1)
    return np.where((ranks >= 2).reshape(weight.shape), weight, np.float32(0))


def blocks(weight, sparsity):
    """Zero the blocks of 16 outputs by 4 inputs that have the smallest norm."""
    outputs, inputs = weight.shape
    grid = weight.reshape(outputs // 16, 16, inputs // 4, 4)
    norms = np.square(grid).sum(axis=(1, 3), keepdims=True)
    return np.where(norms >= np.quantile(norms, sparsity), grid, np.float32(0)).reshape(
        weight.shape
    )
