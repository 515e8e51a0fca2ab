"""torchao's dynamic int8 and 8da4w linear layers, eagerly."""

import copy
import logging

import torch
from torch import nn


def int8(weight, threads, copies):
    """Quantize weights a channel and activations a row to int8."""
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig

    return _quantized(weight, threads, copies, Int8DynamicActivationInt8WeightConfig())


def int4(weight, threads, copies):
    """Quantize weights to 4 bits in groups of 32, activations a row to int8 (8da4w)."""
    from torchao.quantization import Int8DynamicActivationIntxWeightConfig
    from torchao.quantization.granularity import PerGroup

    config = Int8DynamicActivationIntxWeightConfig(
        weight_dtype=torch.int4, weight_granularity=PerGroup(32)
    )
    return _quantized(weight, threads, copies, config)


def _quantized(weight, threads, copies, config):
    from torchao.quantization import quantize_

    torch.set_num_threads(threads)
    logging.getLogger("torchao").setLevel(logging.ERROR)
    model = nn.Sequential(nn.Linear(weight.shape[1], weight.shape[0], bias=False))
    model.requires_grad_(False)[0].weight.copy_(torch.tensor(weight))
    quantize_(model, config)
    layers = [copy.deepcopy(model[0]) for _ in range(copies)]

    def bind(x):
        x = torch.tensor(x)
        return [lambda layer=layer: layer(x) for layer in layers]

    return bind
