"""A quantized layer in ONNX's own operators: what ``torch.onnx.export`` writes for it.

No other program has our kernels. The integers stay integers in the file, two 4-bit values
a byte, and a runtime brings them out of the order of panels once, when it loads the file.
"""

import torch
from torch.onnx.ops import symbolic

from lightcourse.integers import unpacking
from lightcourse.quantization.affine import fake_quantize


def linear(x: torch.Tensor, layer) -> torch.Tensor:
    """Return what the layer returns, but for the roundings of float32.

    Parameters
    ----------
    x : Tensor of floats, shape (..., in_features)
    layer : QuantizedLinear
        Above 4 bits with ``activations=8``, no groups and no fixed range it becomes a
        MatMulInteger; else a DequantizeLinear and a Gemm, with the inputs rounded as the layer
        rounds them.

    Returns
    -------
    Tensor of shape (..., out_features), in ``x``'s dtype
        A row of NaN for a row of inputs that is not finite.
    """
    rows = x.reshape(-1, layer.in_features).float()
    if layer.multiplies_integers:
        y = _multiply_integers(rows, layer)
    else:
        if layer.static:
            rows = fake_quantize(rows, layer.input_scale, layer.input_zero_point)
        y = _multiply_floats(rows, layer)
    y = y if layer.bias is None else y + layer.bias.float()
    return y.view(*x.shape[:-1], layer.out_features).to(x.dtype)


def _multiply_integers(rows, layer):
    if layer.bits > 4 and layer.scale.ndim == 3:  # no operator multiplies integers in groups
        q, scale = _quantize_rows(rows.unflatten(1, (-1, layer.group_size)))
        return _multiply_floats((q.float() * scale).flatten(1), layer)
    q, scale = _quantize_rows(rows)
    if layer.bits <= 4:
        return _multiply_floats(q.float(), layer) * scale
    weight = unpacking.stored(layer.qweight, layer.shape, layer.bits).T
    inputs = q, weight, None, torch.tensor(unpacking.offset(layer.bits), dtype=torch.uint8)
    shape = rows.shape[0], layer.out_features
    sums = symbolic("MatMulInteger", inputs, dtype=torch.int32, shape=shape)
    return sums.float() * layer.scale[:, 0] * scale


def _quantize_rows(rows):
    """Quantize as :func:`lightcourse.reference.quantize_rows` does."""
    scale = rows.abs().amax(-1, keepdim=True) / 127
    scale = torch.where(scale < torch.finfo(torch.float32).tiny, 1.0, scale)
    q = (rows * (1 / scale)).round().to(torch.int8)
    # Infinity and NaN times 0 are NaN: the row's scale, and so its outputs, become NaN.
    return q, scale + (rows * 0).sum(-1, keepdim=True)


def _multiply_floats(rows, layer):
    # ONNX Runtime would fuse a MatMul with the DequantizeLinear, and round the inputs too.
    inputs, shape = (rows, _dequantize(layer)), (rows.shape[0], layer.out_features)
    return symbolic("Gemm", inputs, {"transB": 1}, dtype=torch.float32, shape=shape)


def _dequantize(layer):
    """Name the operator: plain arithmetic would be folded into floats, in the file."""
    scale = layer.scales()
    zero_point = unpacking.stored_zeros(layer.zero_point, scale, layer.bits)
    q = unpacking.stored(layer.qweight, layer.shape, layer.bits)
    groups = q.reshape(scale.numel(), -1)
    inputs = groups, scale.flatten(), zero_point.flatten()
    shape, axis = groups.shape, {"axis": 0}
    matrix = symbolic("DequantizeLinear", inputs, axis, dtype=torch.float32, shape=shape)
    return matrix.view(layer.shape)
