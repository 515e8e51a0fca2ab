"""A linear layer that stores integers, and multiplies by them."""

import torch
from torch import nn
from torch.nn import functional as F

from lightcourse import kernels, panels
from lightcourse.quantization.affine import (
    choose_qparams_affine,
    quantize_affine,
    search_scale,
)


class QuantizedLinear(nn.Module):
    """A linear layer that stores integers: int8, or two 4-bit values a byte.

    Gradients flow to the input, never to the integers: LoRA can train beside the layer.

    Parameters
    ----------
    weight : Tensor of shape (out_features, in_features)
    bias : Tensor of shape (out_features,), optional
        Kept in floating point.
    bits : int
        2 to 8; up to 4 bits share a byte by twos, 5 to 8 take one each.
    group_size : int, optional
        Inputs that share a scale; one scale a row without it.
    activations : {None, 8}
        None: the matrix is turned back into floats, and multiplied as floats: smaller in
        memory, not faster. 8: the inputs are quantized to int8 too, row by row, and
        integers multiply integers (:func:`lightcourse.kernels.linear_w8a8` above 4 bits,
        :func:`lightcourse.kernels.linear_w4a8` up to 4), on the CPU.

    Attributes
    ----------
    qweight : Tensor of uint8
        In the order of :mod:`lightcourse.panels`, filled up to whole panels.
    scale : Tensor
        Above 4 bits float32 of shape (out_features, groups), each the largest size in its
        group divided by quant_max. Up to 4 bits float16, in the order of panels, each
        chosen by :func:`lightcourse.quantization.search_scale`.

    Raises
    ------
    ValueError
        When ``bits`` is out of range, ``group_size`` does not divide the inputs or is not
        one that integer kernels know, ``activations`` is neither None nor 8, or the weight
        is not finite.
    """

    def __init__(self, weight, bias=None, bits=8, group_size=None, activations=None):
        super().__init__()
        self.bits, self.group_size, self.activations = bits, group_size, activations
        self.out_features, self.in_features = weight.shape
        _check_kernel(bits, group_size, activations)
        scale, q = _quantize_groups(weight, bits, group_size)
        pack = panels.pack_w4 if bits <= 4 else panels.pack_w8
        if bits <= 4:
            scale = torch.from_numpy(panels.pack_groups(scale.half().numpy(), fill=1))
        self.register_buffer("qweight", torch.from_numpy(pack(q.numpy())))
        self.register_buffer("scale", scale)
        self.register_buffer("bias", None if bias is None else bias.detach().clone())

    def integers(self) -> torch.Tensor:
        """Return the stored integers, unpacked: int8 of shape (out_features, in_features)."""
        unpack = panels.unpack_w4 if self.bits <= 4 else panels.unpack_w8
        q = unpack(self.qweight.numpy(force=True), self.out_features, self.in_features)
        return torch.from_numpy(q).to(self.qweight.device)

    def scales(self) -> torch.Tensor:
        """Return the scales as float32 of shape (out_features, groups)."""
        if self.bits > 4:
            return self.scale.float()
        scale = panels.unpack_groups(self.scale.numpy(force=True), self.out_features)
        return torch.from_numpy(scale).float().to(self.scale.device)

    def dequantize(self) -> torch.Tensor:
        """Return the float32 matrix of shape (out_features, in_features) that is stored."""
        scales = self.scales()
        groups = self.integers().view(self.out_features, scales.shape[1], -1)
        return (groups * scales[..., None]).view(self.out_features, self.in_features)

    def forward(self, x):
        """Return ``x @ weight.T + bias`` in ``x``'s dtype, for ``x`` of (..., in_features)."""
        if self.activations is None:
            bias = None if self.bias is None else self.bias.to(x.dtype)
            return F.linear(x, self.dequantize().to(x.dtype), bias)
        return _MultiplyIntegers.apply(x, self)

    def multiply(self, x):
        """Multiply int8 by integers; ``x`` is two-dimensional, on the CPU, without gradient."""
        bias = None if self.bias is None else self.bias.float().numpy()
        x, qweight, scale = x.float().numpy(), self.qweight.numpy(), self.scale.numpy()
        if self.bits <= 4:
            y = kernels.linear_w4a8(x, qweight, scale, None, bias, self.out_features)
        else:
            y = kernels.linear_w8a8(x, qweight, scale[:, 0], bias)
        return torch.from_numpy(y)

    def extra_repr(self):
        """Describe the layer the way torch prints it."""
        shape = f"{self.in_features}, {self.out_features}"
        how = f"bits={self.bits}, group_size={self.group_size}, activations={self.activations}"
        return f"{shape}, {how}"

    def __getattr__(self, name):
        if name == "weight":
            raise AttributeError(
                "a QuantizedLinear has no weight, hence no gradient for one: it stores integers, "
                "which cannot move by small steps. Train a LoRA beside it (lora.add_lora_), or "
                "read the matrix with dequantize()"
            )
        return super().__getattr__(name)


class _MultiplyIntegers(torch.autograd.Function):
    """The integer product forward; backward, as if rounding the inputs had changed nothing.

    This is the straight-through estimator (Bengio et al. 2013, arXiv 1308.3432).
    """

    @staticmethod
    def forward(ctx, x, layer):
        ctx.layer = layer
        y = layer.multiply(x.detach().reshape(-1, layer.in_features))
        return y.view(*x.shape[:-1], layer.out_features).to(x.dtype)

    @staticmethod
    def backward(ctx, gradient):
        return gradient @ ctx.layer.dequantize().to(gradient.dtype), None


def _check_kernel(bits, group_size, activations):
    """Raise where no integer kernel computes what is asked for."""
    if activations not in (None, 8):
        raise ValueError(f"activations is {activations}; None or 8 is wanted")
    if activations is None or group_size is None:
        return
    if bits > 4:
        raise ValueError(f"group_size is {group_size}; above 4 bits, int8 activations want None")
    if group_size % panels.BLOCK_W4:
        raise ValueError(f"group_size is {group_size}; int8 activations want a multiple of 32")


def _quantize_groups(weight, bits, group_size):
    """Return the scales of shape (rows, groups) and the integers of the weight's shape."""
    rows, inputs = weight.shape
    size = inputs if group_size is None else group_size
    if size < 1 or inputs % size:
        raise ValueError(f"group_size is {group_size}; a divisor of the {inputs} inputs is wanted")
    groups = weight.detach().float().cpu().reshape(rows, -1, size)
    if bits <= 4:
        scale = search_scale(groups, bits)
    else:
        scale, _ = choose_qparams_affine(groups, bits, symmetric=True, dim=-1)
    q = quantize_affine(groups, scale, torch.zeros_like(scale, dtype=torch.int32), bits)
    return scale.squeeze(-1), q.view(rows, inputs)
