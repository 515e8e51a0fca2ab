"""Torch's dynamic int8 linear layer, with either of its engines.

The operators are called directly and without ``reduce_range``, which is both faster and
more accurate than ``torch.ao.quantization.quantize_dynamic`` with its defaults.
"""

import torch


def x86(weight, threads, copies):
    """Multiply with the engine of x86 servers (FBGEMM)."""
    return _dynamic(weight, threads, copies, "x86")


def onednn(weight, threads, copies):
    """Multiply with oneDNN."""
    return _dynamic(weight, threads, copies, "onednn")


def _dynamic(weight, threads, copies, engine):
    torch.set_num_threads(threads)
    torch.backends.quantized.engine = engine
    weight = torch.tensor(weight)
    scale = weight.abs().amax(1) / 127
    zero_point = torch.zeros(len(weight), dtype=torch.int64)
    quantized = torch.quantize_per_channel(weight, scale, zero_point, 0, torch.qint8)
    packed = [torch.ops.quantized.linear_prepack(quantized.clone(), None) for _ in range(copies)]
    multiply = torch.ops.quantized.linear_dynamic

    def bind(x):
        x = torch.tensor(x)
        return [lambda w=w: multiply(x, w, False) for w in packed]

    return bind
