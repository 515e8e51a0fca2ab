"""Linear (affine) quantization: real numbers on an evenly spaced grid of integers.

``x`` is stored as ``q = round(x / scale) + zero_point`` and read back as
``(q - zero_point) * scale`` (Jacob et al. 2017, arXiv 1712.05877).
"""

from collections.abc import Collection

import torch
from torch import nn
from torch.nn import functional as F

from lightcourse import layers


def quant_range(bits: int) -> tuple[int, int]:
    """Return ``quant_min, quant_max``, the signed integers that ``bits`` bits can hold.

    Raises
    ------
    ValueError
        When ``bits`` is not a whole number from 2 to 8.

    Examples
    --------
    >>> quant_range(4)
    (-8, 7)
    """
    if bits not in range(2, 9):
        raise ValueError(f"bits is {bits}; a whole number from 2 to 8 is wanted")
    return -(2 ** (bits - 1)), 2 ** (bits - 1) - 1


def choose_qparams_affine(
    x: torch.Tensor, bits: int = 8, symmetric: bool = False, dim: int | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Choose the scale and the zero point that let ``x`` just fit the integers.

    Parameters
    ----------
    x : Tensor of floats
        Finite.
    bits : int
        2 to 8.
    symmetric : bool
        False: the range from min(x, 0) to max(x, 0) spans all integers. True: the
        zero point is 0 and the scale is ``max|x| / quant_max``.
    dim : int, optional
        One scale for each slice along this dimension: -1 gives one a row. Without it
        one for the whole tensor. Reshape ``x`` to (rows, groups, group_size) for groups.

    Returns
    -------
    scale : Tensor, float32, positive
    zero_point : Tensor, int32, from quant_min to quant_max
        Both keep ``x``'s number of dimensions, so that they broadcast against it; zero is
        always represented exactly. An all-zero slice gets scale 1.

    Raises
    ------
    ValueError
        When ``x`` is empty or not finite, or ``bits`` is out of range.

    Examples
    --------
    >>> scale, zero_point = choose_qparams_affine(torch.tensor([0.0, 2.55]))
    >>> round(scale.item(), 4), zero_point.item()
    (0.01, -128)
    """
    quant_min, quant_max = quant_range(bits)
    x = _checked(x)
    dims = tuple(range(x.ndim)) if dim is None else dim
    low = x.amin(dims, keepdim=True).clamp(max=0)
    high = x.amax(dims, keepdim=True).clamp(min=0)
    if symmetric:
        scale = _nonzero(torch.maximum(-low, high) / quant_max)
        return scale, torch.zeros_like(scale, dtype=torch.int32)
    # Halved first: the width of a range may overflow where its ends do not.
    scale = _nonzero((high / 2 - low / 2) / (quant_max - quant_min) * 2)
    zero_point = (quant_min - (low / scale).round()).clamp(quant_min, quant_max)
    return scale, zero_point.to(torch.int32)


def _checked(x):
    if x.numel() == 0:
        raise ValueError("x is empty; at least one value is wanted")
    if not torch.isfinite(x).all():
        raise ValueError("x holds NaN or infinity; finite values are wanted")
    return x.detach().float()


def _nonzero(scale):
    """Replace scales too small for float32 arithmetic: their values all round to 0."""
    return torch.where(scale < torch.finfo(torch.float32).tiny, torch.ones_like(scale), scale)


def quantize_affine(
    x: torch.Tensor, scale: torch.Tensor, zero_point: torch.Tensor, bits: int = 8
) -> torch.Tensor:
    """Return the integers nearest to ``x / scale + zero_point``, clamped to the range.

    Parameters
    ----------
    x : Tensor of floats
    scale, zero_point : Tensor
        As :func:`choose_qparams_affine` gives them; broadcast against ``x``.
    bits : int
        2 to 8.

    Returns
    -------
    Tensor of int8
        Of ``x``'s shape, between quant_min and quant_max; halves round to even.

    Raises
    ------
    ValueError
        When ``x`` holds NaN, which no integer can stand for, or ``bits`` is out of range.
    """
    quant_min, quant_max = quant_range(bits)
    if torch.isnan(x).any():
        raise ValueError("x holds NaN; numbers are wanted")
    q = (x.float() / scale).round() + zero_point
    return q.clamp(quant_min, quant_max).to(torch.int8)


def dequantize_affine(
    q: torch.Tensor, scale: torch.Tensor, zero_point: torch.Tensor
) -> torch.Tensor:
    """Return the real numbers, float32, that the integers ``q`` stand for.

    Rounding is not undone: the result differs from what was quantized by scale / 2 at
    most, where nothing was clamped.

    Examples
    --------
    >>> x = torch.tensor([-1.0, 0.0, 0.5])
    >>> scale, zero_point = choose_qparams_affine(x)
    >>> back = dequantize_affine(quantize_affine(x, scale, zero_point), scale, zero_point)
    >>> bool(((back - x).abs() <= scale / 2 + 1e-6).all()), back[1].item()
    (True, 0.0)
    """
    return (q.to(torch.int32) - zero_point).float() * scale


def pack_int4(q: torch.Tensor) -> torch.Tensor:
    """Pack two 4-bit integers into each byte along the last dimension.

    Parameters
    ----------
    q : Tensor of integers from -8 to 7, shape (..., K)

    Returns
    -------
    Tensor of uint8, shape (..., ceil(K / 2))
        Even positions in the low half of a byte; an odd K is filled up with a 0.

    Raises
    ------
    ValueError
        When a value does not fit 4 bits.

    Examples
    --------
    >>> pack_int4(torch.tensor([1, -1, 7])).tolist()
    [241, 7]
    """
    if q.numel() and (q.min() < -8 or q.max() > 7):
        raise ValueError(f"q spans {q.min()}..{q.max()}; integers from -8 to 7 are wanted")
    nibbles = F.pad(q.to(torch.int16) & 0xF, (0, q.shape[-1] % 2)).to(torch.uint8)
    return nibbles[..., 0::2] | (nibbles[..., 1::2] << 4)


def unpack_int4(packed: torch.Tensor, length: int) -> torch.Tensor:
    """Undo :func:`pack_int4`: int8 values of shape (..., length)."""
    nibbles = torch.stack([packed & 0xF, packed >> 4], dim=-1).flatten(-2)[..., :length]
    return (nibbles.to(torch.int8) ^ 8) - 8


class QuantizedLinear(nn.Module):
    """A linear layer that stores integers: int8, or two 4-bit values a byte.

    The forward pass dequantizes the matrix and multiplies in floating point: smaller in
    memory, not faster. Gradients flow to the input, never to the integers.

    Parameters
    ----------
    weight : Tensor of shape (out_features, in_features)
    bias : Tensor of shape (out_features,), optional
        Kept in floating point.
    bits : int
        2 to 8; up to 4 bits share a byte by twos, 5 to 8 take one each.
    group_size : int, optional
        Inputs that share a scale; one scale a row without it.

    Attributes
    ----------
    qweight : Tensor
        int8 of shape (out_features, in_features), or packed uint8 of half the width.
    scale : Tensor
        float32 of shape (out_features, groups).

    Raises
    ------
    ValueError
        When ``bits`` is out of range, ``group_size`` does not divide the inputs, or the
        weight is not finite.
    """

    def __init__(self, weight, bias=None, bits=8, group_size=None):
        super().__init__()
        self.bits, self.group_size = bits, group_size
        self.out_features, self.in_features = weight.shape
        scale, q = _quantize_groups(weight, bits, group_size)
        self.register_buffer("qweight", pack_int4(q) if bits <= 4 else q)
        self.register_buffer("scale", scale)
        self.register_buffer("bias", None if bias is None else bias.detach().clone())

    def integers(self) -> torch.Tensor:
        """Return the stored integers, unpacked: int8 of shape (out_features, in_features)."""
        return unpack_int4(self.qweight, self.in_features) if self.bits <= 4 else self.qweight

    def dequantize(self) -> torch.Tensor:
        """Return the float32 matrix of shape (out_features, in_features) that is stored."""
        groups = self.integers().view(self.out_features, self.scale.shape[1], -1)
        return (groups * self.scale[..., None]).view(self.out_features, self.in_features)

    def forward(self, x):
        """Return ``x @ weight.T + bias`` with the dequantized weight, in ``x``'s dtype."""
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return F.linear(x, self.dequantize().to(x.dtype), bias)

    def extra_repr(self):
        """Describe the layer the way torch prints it."""
        shape = f"{self.in_features}, {self.out_features}"
        return f"{shape}, bits={self.bits}, group_size={self.group_size}"


def _quantize_groups(weight, bits, group_size):
    """Return the scales of shape (rows, groups) and the integers of the weight's shape."""
    rows, inputs = weight.shape
    size = inputs if group_size is None else group_size
    if size < 1 or inputs % size:
        raise ValueError(f"group_size is {group_size}; a divisor of the {inputs} inputs is wanted")
    groups = weight.detach().float().reshape(rows, -1, size)
    scale, zero_point = choose_qparams_affine(groups, bits, symmetric=True, dim=-1)
    q = quantize_affine(groups, scale, zero_point, bits)
    return scale.squeeze(-1), q.view(rows, inputs)


def quantize_(
    model: nn.Module, bits: int = 8, group_size: int | None = None, skip: Collection[str] = ()
) -> layers.Report:
    """Replace every linear layer by a :class:`QuantizedLinear`, in place.

    Parameters
    ----------
    model : nn.Module
        Changed in place; ``nn.Linear`` and ``Conv1D`` are converted, embeddings are not,
        nor is an output layer that shares its weight with an embedding.
    bits : int
        2 to 8.
    group_size : int, optional
        Inputs that share a scale; must divide every converted layer's inputs.
    skip : collection of str
        Names of layers to leave as they are.

    Returns
    -------
    Report
        For each layer the bytes saved; what was skipped and why.

    Raises
    ------
    ValueError
        When a layer cannot be converted (the model is unchanged then), ``skip`` names an
        unknown layer, or nothing was converted.
    """
    quant_range(bits)
    report = layers.Report("quantized", "bytes saved")
    tied = layers.tied_layers(model)
    report.skipped = {name: f"shares its weight with {other}" for name, other in tied.items()}
    report.skipped |= {name: "named in skip" for name in skip}
    found = layers.linear_layers(model)
    if unknown := set(skip) - set(found) - set(tied):
        raise ValueError(f"skip names {sorted(unknown)}, which are no linear layers of this model")
    new = {
        name: _convert(name, old, bits, group_size)
        for name, old in found.items()
        if name not in skip
    }
    for name, layer in new.items():
        layers.replace(model, name, layer)
        stored = layer.qweight.nbytes + layer.scale.nbytes
        report.changed[name] = found[name].weight.nbytes - stored
    return report.raise_if_nothing_changed("the model has no linear layer in floating point")


def _convert(name, layer, bits, group_size):
    try:
        return QuantizedLinear(layers.matrix(layer), layer.bias, bits, group_size)
    except ValueError as error:
        raise ValueError(f"layer {name}: {error}") from error
