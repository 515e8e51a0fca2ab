"""What programs are written with: room for numbers, and products that share quantized rows."""

import numpy as np
import torch

from lightcourse.kernels import linear, steps
from lightcourse.panels import aligned


def zeros(*shape: int) -> np.ndarray:
    """Return float32 zeros that start where a line of the cache starts."""
    array = aligned(shape, np.float32)
    array[...] = 0  # what is not written yet is read, and left out: it must not be slow
    return array


def operands(layer) -> tuple[str, int, tuple]:
    """Return a layer's kind of weights, its groups, and its arrays as the cores read them."""
    held = layer._buffers
    qweight, scale, points = (held[name] for name in ("qweight", "scale", "zero_point"))
    bias = np.zeros(layer.out_features, np.float32)
    if held["bias"] is not None:
        bias = held["bias"].float().numpy()
    bias = linear.filled(bias)
    if layer.bits > 4 and scale.ndim == 3:
        return "g8", scale.shape[1], (qweight.numpy(), scale.numpy().view(np.uint16)), bias
    if scale.dtype == torch.float16:
        arrays = qweight.numpy(), scale.numpy().view(np.uint16)
        arrays += () if points is None else (points.numpy(),)
        return "w4" if points is None else "z4", scale.shape[1], arrays, bias
    return "w8", 1, (qweight.numpy(), linear.filled(scale[:, 0].numpy())), bias


class Products:
    """Writes products of rows of x, which are quantized once for all that read them alike."""

    def __init__(self, room):
        self.room = room

    def write(self, x, layers, outputs):
        """Return the steps that multiply x by each layer into its output."""
        steps_, done = [], set()
        for layer, y in zip(layers, outputs, strict=True):
            kind, groups, weights, bias = operands(layer)
            columns = weights[0].shape[1] * (4 if kind in ("w8", "g8") else 8)
            form = columns, groups, groups if kind == "g8" else 1
            quantized = self.room.quantized(*form)
            if form not in done:
                steps_.append(steps.quantize(x, layer.in_features, quantized, columns))
                done.add(form)
            steps_ += steps.product(self.room, kind, weights, bias, quantized, y)
        return steps_
