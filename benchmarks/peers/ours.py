"""The library's own kernels, called on NumPy arrays; weights are packed before the timing."""

import numpy as np
import torch

from lightcourse import kernels, panels, quantization

GROUP = 32


def w8a8(weight, threads, copies):
    """8-bit weights with a scale a channel."""
    kernels.set_threads(threads)
    q, scale = kernels.quantize_rows(weight)
    packed = [panels.pack_w8(q) for _ in range(copies)]
    return lambda x: [lambda p=p: kernels.linear_w8a8(x, p, scale) for p in packed]


def w4a8(weight, threads, copies):
    """4-bit weights with a float16 scale for every 32."""
    kernels.set_threads(threads)
    q, scale = four_bits(weight)
    packed = [(panels.pack_w4(q), panels.pack_groups(scale)) for _ in range(copies)]
    return lambda x: [lambda p=p: kernels.linear_w4a8(x, *p) for p in packed]


def sparse(weight, threads, copies):
    """8-bit weights of which the zeros are not stored."""
    kernels.set_threads(threads)
    q, scale = kernels.quantize_rows(weight)
    first = panels.pack_sparse(q)
    packed = [panels.SparseWeight(*map(np.copy, first[:5]), first.inputs) for _ in range(copies)]
    return lambda x: [lambda p=p: kernels.linear_sparse(x, p, scale) for p in packed]


def four_bits(weight):
    """Quantize in groups of 32 as the library's layers do; return integers and scales."""
    groups = torch.tensor(weight).reshape(len(weight), -1, GROUP)
    scale = quantization.search_scale(groups, 4)
    q = quantization.quantize_affine(groups, scale, torch.zeros_like(scale, dtype=torch.int32), 4)
    return q.reshape(weight.shape).numpy(), scale[..., 0].half().numpy()
