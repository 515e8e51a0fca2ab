"""Products with a stored matrix as torch wants them: run, differentiated, traced and exported."""

import torch
from torch.nn import functional as F

from lightcourse import kernels
from lightcourse.integers import unpacking


def multiply(x, layer) -> torch.Tensor:
    """Multiply rows of x, quantized to int8, by a layer's integers.

    The gradient passes to ``x`` as if rounding it had changed nothing: the straight-through
    estimator (Bengio et al. 2013, arXiv 1308.3432).

    Parameters
    ----------
    x : Tensor of floats, shape (..., inputs)
        On the CPU; on ``meta`` or traced there is nothing to compute.
    layer : QuantizedLinear

    Returns
    -------
    Tensor of shape (..., outputs), in ``x``'s dtype
    """
    if unpacking.is_traced(x):
        return linear_integers(x, *_buffers(layer))
    # To call the operator takes longer than to multiply by a small layer.
    if torch.is_grad_enabled() and x.requires_grad:
        return _Multiply.apply(x, layer)
    return _compute(x, *_buffers(layer))


def _buffers(layer):
    held = layer._buffers  # to ask a module for an attribute takes a microsecond each time
    matrix = held["qweight"], held["scale"], held["zero_point"]
    return *matrix, held["bias"], layer.out_features, layer.bits


class _Multiply(torch.autograd.Function):
    """What the operator computes, and its gradient, without its overhead."""

    @staticmethod
    def forward(ctx, x, layer):
        ctx.layer = layer
        return _compute(x, *_buffers(layer))

    @staticmethod
    def backward(ctx, gradient):
        return gradient @ ctx.layer.dequantize().to(gradient.dtype), None


def multiply_floats(x, layer) -> torch.Tensor:
    """Multiply by the floats that a layer's integers stand for, and keep none of them.

    A product as torch makes it would keep the float matrix until the gradient has passed: all
    layers' together, the whole model in floats once more. Here the gradient turns the integers
    into floats a second time, a layer at a time, as QLoRA does (Dettmers et al. 2023,
    arXiv 2305.14314).

    Parameters
    ----------
    x : Tensor of floats, shape (..., inputs)
    layer : IntegerMatrix
        With a ``bias``, or None.

    Returns
    -------
    Tensor of shape (..., outputs), in ``x``'s dtype
    """
    if torch.is_grad_enabled() and x.requires_grad and not unpacking.is_traced(x):
        return _MultiplyFloats.apply(x, layer)
    return _floats(x, layer)


def _floats(x, layer):
    bias = None if layer.bias is None else layer.bias.to(x.dtype)
    return F.linear(x, layer.dequantize().to(x.dtype), bias)


class _MultiplyFloats(_Multiply):
    """The same gradient as that of an integer product."""

    @staticmethod
    def forward(ctx, x, layer):
        ctx.layer = layer
        return _floats(x, layer)


@torch.library.custom_op("lightcourse::linear_integers", mutates_args=(), device_types="cpu")
def linear_integers(
    x: torch.Tensor,
    qweight: torch.Tensor,
    scale: torch.Tensor,
    zero_point: torch.Tensor | None,
    bias: torch.Tensor | None,
    outputs: int,
    bits: int,
) -> torch.Tensor:
    """Multiply as :func:`multiply` does; one node of a graph that torch captures."""
    return _compute(x, qweight, scale, zero_point, bias, outputs, bits)


@linear_integers.register_fake
def _shape(x, qweight, scale, zero_point, bias, outputs, bits):
    return x.new_empty((*x.shape[:-1], outputs))


def _compute(x, qweight, scale, zero_point, bias, outputs, bits):
    """Hand over to the kernel of so many bits, and of scales in this order."""
    rows = x.detach().reshape(-1, x.shape[-1]).float().numpy()
    bias = None if bias is None else bias.float().numpy()
    if bits <= 4:
        zero_point = None if zero_point is None else zero_point.numpy()
        y = kernels.linear_w4a8(rows, qweight.numpy(), scale.numpy(), zero_point, bias, outputs)
    elif scale.ndim == 3:
        y = kernels.linear_w8a8_grouped(rows, qweight.numpy(), scale.numpy(), bias, outputs)
    else:
        y = kernels.linear_w8a8(rows, qweight.numpy(), scale[:, 0].numpy(), bias)
    return torch.from_numpy(y).view(*x.shape[:-1], outputs).to(x.dtype)


def _keep(ctx, inputs, output):
    x, qweight, scale, zero_point, _, outputs, bits = inputs
    ctx.save_for_backward(qweight, scale, zero_point)
    ctx.shape, ctx.bits = (outputs, x.shape[-1]), bits


def _gradients(ctx, gradient):
    qweight, scale, zero_point = ctx.saved_tensors
    weight = unpacking.dequantize(qweight, scale, zero_point, ctx.shape, ctx.bits)
    return gradient @ weight.to(gradient.dtype), None, None, None, None, None, None


linear_integers.register_autograd(_gradients, setup_context=_keep)
