"""A quantized layer in ONNX's operators: what ``torch.onnx.export`` writes for it.

No other program has our kernels. The integers stay integers in the file, two 4-bit values
a byte, and a runtime brings them out of the order of panels once, when it loads the file.
"""

import torch
from torch.onnx.ops import symbolic

from lightcourse.integers import unpacking
from lightcourse.quantization.affine import fake_quantize

# ONNX Runtime's MatMulNBits wants blocks of a power of two; beyond 128 nothing is gained.
SMALLEST_BLOCK, LARGEST_BLOCK = 16, 128
# Before the names of buffers that hold operands.
HELD = "onnx_operand_"
# What MatMulNBits multiplies in, by its own numbers: floats, or integers where it has them.
IN_FLOATS, IN_INTEGERS = 1, 4


def linear(x: torch.Tensor, layer) -> torch.Tensor:
    """Return what the layer returns, but for roundings.

    Parameters
    ----------
    x : Tensor of floats, shape (..., in_features)
    layer : QuantizedLinear
        With ``activations=8``, above 4 bits and without groups, it becomes a MatMulInteger. What
        has up to 4 bits, and what has groups and ``activations=8``, becomes a MatMulNBits, an
        operator of ONNX Runtime's own, where a block of 16 or more fits its groups; all else a
        DequantizeLinear and a Gemm. Results differ by the roundings of float32, but for one
        case: up to 4 bits with ``activations=8``, MatMulNBits quantizes inputs by blocks, where
        the layer has one scale a row. That is a little more exact.

    Returns
    -------
    Tensor of shape (..., out_features), in ``x``'s dtype
        A row of NaN for a row of inputs that is not finite.
    """
    rows = x.reshape(-1, layer.in_features).float()
    if layer.static:
        rows = fake_quantize(rows, layer.input_scale, layer.input_zero_point)
    _, multiply = _form(layer)
    y = multiply(rows, layer, *_operands(layer))
    y = y if layer.bias is None else y + layer.bias.float()
    return y.view(*x.shape[:-1], layer.out_features).to(x.dtype)


def prepare_(layer) -> None:
    """Let a layer hold what its operator multiplies by, and its panels no more.

    Then a graph need not make it of the panels: there is less to export, and to do for a
    runtime that loads the file. The layer is good for an export alone from now on.
    """
    if layer.bits <= 4 and _form(layer)[0] is _rows:
        return  # there two values a byte are parted: the file would grow
    for i, operand in enumerate(_operands(layer)):
        layer.register_buffer(f"{HELD}{i}", operand.contiguous())
    for name in layer.BUFFERS[:3]:
        setattr(layer, name, None)


def _operands(layer):
    held = [buffer for name, buffer in layer.named_buffers() if name.startswith(HELD)]
    return held or _form(layer)[0](layer)


def _form(layer):
    """Return two functions: what makes a layer's operands, and what multiplies by them."""
    grouped = layer.group_size is not None
    if layer.multiplies_integers and layer.bits > 4 and not grouped:
        return _columns, _multiply_integers
    blocks = layer.bits <= 4 or (layer.multiplies_integers and grouped)
    if blocks and _block(layer) >= SMALLEST_BLOCK:
        return _blocks, _multiply_blocks
    return _rows, _multiply_rounded if layer.multiplies_integers else _multiply_floats


def _block(layer):
    """Return the largest block that divides a group."""
    group = layer.group_size or layer.in_features
    return min(group & -group, LARGEST_BLOCK)


def _columns(layer):
    weight = unpacking.stored(layer.qweight, layer.shape, layer.bits).T
    # On x86 ONNX Runtime 1.32 is quick where uint8 multiplies int8: 20 times as with int8 twice,
    # four times as with uint8 twice (a Xeon with VNNI, 512 rows). Without VNNI it lets sums
    # overflow then, unless its option session.x64quantprecision is 1.
    return (weight.to(torch.int16) - unpacking.offset(layer.bits)).to(torch.int8), layer.scale[:, 0]


def _multiply_integers(rows, layer, weight, weight_scale):
    scaled, scale = _scale_rows(rows)
    offset = torch.tensor(128, dtype=torch.uint8)
    # Rounds, adds and converts in one go.
    inputs = scaled, torch.tensor(1.0), offset
    q = symbolic("QuantizeLinear", inputs, dtype=torch.uint8, shape=rows.shape)
    inputs, shape = (q, weight, offset), (rows.shape[0], layer.out_features)
    sums = symbolic("MatMulInteger", inputs, dtype=torch.int32, shape=shape)
    return sums.float() * weight_scale * scale


def _scale_rows(rows):
    """Return what :func:`lightcourse.reference.quantize_rows` rounds, and the scales."""
    scale = (rows.abs().amax(-1, keepdim=True) / 127).clamp(min=torch.finfo(torch.float32).tiny)
    scaled = rows * (1 / scale)
    # No sum of these is too large: only what is not finite makes it NaN.
    return scaled, scale + scaled.sum(-1, keepdim=True) * 0


def _spoilt(rows):
    """Return 0 for each row, or NaN where it is not finite: infinity and NaN times 0 are NaN."""
    return (rows * 0).sum(-1, keepdim=True)


def _blocks(layer):
    block, (outputs, inputs) = _block(layer), layer.shape
    q = unpacking.stored(layer.qweight, layer.shape, layer.bits).reshape(outputs, -1, block)
    scale = layer.scales()
    times = inputs // block // scale.shape[1]
    operands = [_by_twos(q, layer.bits), scale.repeat_interleave(times, 1).flatten()]
    if layer.zero_point is not None:
        zeros = unpacking.by_row(layer.zero_point, outputs).repeat_interleave(times, 1)
        operands.append(_by_twos(zeros, layer.bits))
    return operands


def _by_twos(values, bits):
    """Store two 4-bit neighbours a byte, the first one low; a last one alone."""
    if bits > 4:
        return values
    if values.shape[-1] % 2:
        values = torch.nn.functional.pad(values, (0, 1))
    return values[..., 0::2] + values[..., 1::2] * 16


def _multiply_blocks(rows, layer, *operands):
    how = {"K": layer.in_features, "N": layer.out_features, "block_size": _block(layer)}
    how["bits"] = 4 if layer.bits <= 4 else 8
    how["accuracy_level"] = IN_INTEGERS if layer.multiplies_integers else IN_FLOATS
    name, shape = "com.microsoft::MatMulNBits", (rows.shape[0], layer.out_features)
    y = symbolic(name, (rows, *operands), how, dtype=torch.float32, shape=shape, version=1)
    return y + _spoilt(rows) if layer.multiplies_integers else y


def _rows(layer):
    scale = layer.scales()
    zero_point = unpacking.stored_zeros(layer.zero_point, scale, layer.bits)
    q = unpacking.stored(layer.qweight, layer.shape, layer.bits)
    return q.reshape(scale.numel(), -1), scale.flatten(), zero_point.flatten()


def _multiply_rounded(rows, layer, *operands):
    """Multiply floats where no operator multiplies integers of 4 bits in such blocks."""
    scaled, scale = _scale_rows(rows)
    return _multiply_floats(scaled.round() * scale, layer, *operands)


def _multiply_floats(rows, layer, *operands):
    """Name the operator: plain arithmetic would be folded into floats, in the file."""
    shape, axis = operands[0].shape, {"axis": 0}
    matrix = symbolic("DequantizeLinear", operands, axis, dtype=torch.float32, shape=shape)
    # ONNX Runtime would fuse a MatMul with the DequantizeLinear, and round the inputs too.
    inputs, shape = (rows, matrix.view(layer.shape)), (rows.shape[0], layer.out_features)
    return symbolic("Gemm", inputs, {"transB": 1}, dtype=torch.float32, shape=shape)
