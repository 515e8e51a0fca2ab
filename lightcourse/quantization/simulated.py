"""What integer kernels answer, computed in floats that hold the integers exactly.

A float32 holds each whole number up to 2**24, a float64 up to 2**53: sums of products that
stay below are exact in any order. What follows them is done in the order of
:mod:`lightcourse.kernels.portable`, so that the answers are equal bit for bit.
"""

import torch

EXACT = 2**24  # up to here float32 holds every whole number


def linear_integers(
    x: torch.Tensor,
    weight: torch.Tensor,
    step: torch.Tensor,
    bias: torch.Tensor | None,
    bits: int,
) -> torch.Tensor:
    """Multiply as a :class:`QuantizedLinear` with ``activations=8`` does, with gradients.

    The gradients are those of ``x @ weight.T + bias`` with ``x`` on its grid: as if rounding
    ``x`` had changed nothing.

    Parameters
    ----------
    x : Tensor of floats, shape (..., inputs)
    weight : Tensor of float32, shape (outputs, inputs)
        On the grid of ``step``.
    step : Tensor of float32, shape (outputs, groups)
    bias : Tensor of shape (outputs,), optional
    bits : int
        Above 4 bits with more than one group, the rows of x have a scale for each group, too.

    Returns
    -------
    Tensor of shape (..., outputs), in ``x``'s dtype
    """
    return _Product.apply(x, weight, bias, step, bits)


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, step, bits):
        groups = step.shape[1]
        rows = x.reshape(-1, groups, x.shape[-1] // groups).float()
        q, scale = _quantized(rows, alone=bits > 4)
        ctx.save_for_backward((q * scale).view(x.shape).to(x.dtype), weight)
        y = _summed(q, scale[..., 0], weight, step, bits)
        y = y if bias is None else y + bias.float()
        return y.view(*x.shape[:-1], -1).to(x.dtype)

    @staticmethod
    def backward(ctx, gradient):
        x, weight = ctx.saved_tensors
        rows = gradient.flatten(0, -2)
        of_weight = rows.T.float() @ x.flatten(0, -2).float()
        of_bias = rows.sum(0) if ctx.needs_input_grad[2] else None
        return gradient @ weight.to(gradient.dtype), of_weight, of_bias, None, None


def _quantized(rows, alone):
    """Return integers of 8 bits and their scales: of each group alone, or of the whole row.

    :func:`lightcourse.reference.quantize_rows` in torch.
    """
    largest = rows.abs().amax(-1 if alone else (1, 2), keepdim=True)
    scale = largest / 127
    scale = torch.where(scale < torch.finfo(torch.float32).tiny, 1.0, scale)
    finite = torch.isfinite(rows).all(-1, keepdim=True).all(1, keepdim=True)
    q = torch.where(finite, rows, 0) * (1 / scale)
    return torch.where(finite, q.round(), 0), torch.where(finite, scale, torch.nan)


def _summed(q, x_scale, weight, step, bits):
    """Add up the groups' exact sums, each times its scales, one group after another."""
    groups = step.shape[1]
    integers = (weight.unflatten(1, (groups, -1)) / step[..., None]).round()
    sums = _exact(q.transpose(0, 1), integers.permute(1, 2, 0), 2 ** (bits - 1))
    if groups == 1 and bits > 4:
        return sums[0] * step[:, 0] * x_scale
    total = torch.zeros_like(sums[0])
    for g in range(groups):
        scale = step[:, g] * x_scale[:, g, None] if bits > 4 else step[:, g]
        total = total + sums[g] * scale
    return total if bits > 4 else total * x_scale


def _exact(a, b, largest):
    """Multiply stacks of matrices of integers, and round each sum to float32 once."""
    kind = torch.float32 if 127 * largest * a.shape[-1] <= EXACT else torch.float64
    return (a.to(kind) @ b.to(kind)).float()
