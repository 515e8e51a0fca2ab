"""Torch's own linear layer, in float32 and bfloat16."""

import torch
from torch.nn import functional as F


def fp32(weight, threads, copies):
    """Multiply in float32."""
    return _linear(weight, threads, copies, torch.float32)


def bf16(weight, threads, copies):
    """Multiply in bfloat16; the activations are bfloat16 too, converted outside the timing."""
    return _linear(weight, threads, copies, torch.bfloat16)


def _linear(weight, threads, copies, dtype):
    torch.set_num_threads(threads)
    weights = [torch.tensor(weight, dtype=dtype) for _ in range(copies)]

    def bind(x):
        x = torch.tensor(x, dtype=dtype)
        return [lambda w=w: F.linear(x, w) for w in weights]

    return bind
