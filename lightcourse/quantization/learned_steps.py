"""Steps that are learned with the weights (LSQ), and where they start.

Esser et al. 2019, arXiv 1902.08153. A value v lies on the grid of a step s at
``clamp(round(v / s), quant_min, quant_max) * s``.
"""

import torch

from lightcourse.integers import storable
from lightcourse.quantization.blocks import least_squares
from lightcourse.quantization.rounding import default_qparams


def lsq(
    x: torch.Tensor,
    step: torch.Tensor,
    quant_min: float,
    quant_max: float,
    gradient_scale: float = 1.0,
) -> torch.Tensor:
    """Round to a grid whose step learns, too.

    The gradient of a value passes as if nothing had been rounded, and stops where it was
    clamped. That of the step takes ``round(v / s)`` for ``v / s`` plus a constant: from each
    value comes ``round(v / s) - v / s`` where ``quant_min < v / s < quant_max``, and outside the
    end of the grid, ``quant_min`` or ``quant_max`` (equation 3 of the paper). All values of a
    step add up.

    Parameters
    ----------
    x : Tensor of floats
        NaN and infinity lie on no grid, and become NaN.
    step : Tensor of floats
        Broadcasts against ``x``; not 0.
    quant_min, quant_max : int
        The ends of the grid, in steps.
    gradient_scale : float
        The step's gradient is multiplied by it: :func:`gradient_scale`.

    Returns
    -------
    Tensor of ``x``'s shape and dtype

    Examples
    --------
    >>> x, step = torch.tensor([0.3, 0.9, 5.0]), torch.tensor(0.5, requires_grad=True)
    >>> rounded = lsq(x, step, -4, 3)
    >>> rounded.sum().backward()
    >>> rounded.tolist(), round(step.grad.item(), 2)  # 1 - 0.6, 2 - 1.8, and 3
    ([0.5, 1.0, 1.5], 3.6)
    """
    return _LearnedStep.apply(x, step, quant_min, quant_max, gradient_scale)


class _LearnedStep(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, step, quant_min, quant_max, scale):
        steps = x.float() / step
        q = steps.round().clamp_(quant_min, quant_max)
        ctx.save_for_backward(steps, q)
        ctx.ends, ctx.scale, ctx.step = (quant_min, quant_max), scale, step
        rounded = q * step
        if not x.sum().isfinite():  # a sum is sooner had than a look at each value
            rounded = torch.where(torch.isfinite(x), rounded, torch.nan)
        return rounded.to(x.dtype)

    @staticmethod
    def backward(ctx, gradient):
        steps, q = ctx.saved_tensors
        inside = (steps > ctx.ends[0]) & (steps < ctx.ends[1])
        rest = torch.where(inside, q - steps, q).mul_(gradient)
        of_step = rest.sum_to_size(ctx.step.shape).mul_(ctx.scale).to(ctx.step.dtype)
        return gradient * inside, of_step, None, None, None


def gradient_scale(count: int, quant_max: int) -> float:
    """Return 1 / sqrt(count · quant_max), by which a step's gradient is multiplied.

    So a step and its weights change by like shares of themselves (section 2.2 of the paper).
    That is meant for plain gradient descent: Adam divides each gradient by its own size.

    Parameters
    ----------
    count : int
        Values that share the step; of a layer's inputs, how many it has.
    quant_max : int
        The largest integer of the grid.
    """
    return (count * quant_max) ** -0.5


def stored_step(step: torch.Tensor, bits: int) -> torch.Tensor:
    """Return steps as they will be stored (:func:`lightcourse.integers.storable`).

    Up to 4 bits that rounds them to float16. The gradient passes as if it did not.
    """
    return _Stored.apply(step, bits)


class _Stored(torch.autograd.Function):
    @staticmethod
    def forward(ctx, step, bits):
        return storable(step, bits)

    @staticmethod
    def backward(ctx, gradient):
        return gradient, None


def nearest_step(groups: torch.Tensor, quant_min: int, quant_max: int) -> torch.Tensor:
    """Start where :func:`quantize_` would round: up to 4 bits at the least squared error.

    Parameters
    ----------
    groups : Tensor of float32, shape (rows, groups, size)
    quant_min, quant_max : int

    Returns
    -------
    Tensor of float32, shape (rows, groups)
        Of either sign.
    """
    if quant_max == -quant_min:  # ternary
        return least_squares(groups, torch.tensor([-1.0, 0.0, 1.0]).to(groups))[0].float()
    bits = quant_max.bit_length() + 1
    return default_qparams(groups, bits, symmetric=True)[0].squeeze(-1)


def paper_step(groups: torch.Tensor, quant_min: int, quant_max: int) -> torch.Tensor:
    """Start where LSQ does: at 2 · mean|v| / sqrt(quant_max).

    Parameters and Returns as of :func:`nearest_step`.
    """
    return 2 * groups.abs().mean(-1) / quant_max**0.5


def mean_step(groups: torch.Tensor, quant_min: int, quant_max: int) -> torch.Tensor:
    """Return mean|v|, as BitNet b1.58 does for three levels (Ma et al. 2024, arXiv 2402.17764).

    Parameters and Returns as of :func:`nearest_step`.
    """
    return groups.abs().mean(-1)
