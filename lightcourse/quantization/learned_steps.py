"""Steps that are learned with the weights (LSQ), and where they start.

Esser et al. 2019, arXiv 1902.08153. A value v lies on the grid of a step s at
``clamp(round(v / s), quant_min, quant_max) * s``.
"""

import torch

from lightcourse.integers import storable
from lightcourse.quantization.blocks import least_squares


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
        ctx.save_for_backward(x, step)
        ctx.ends, ctx.scale = (quant_min, quant_max), scale
        rounded = nearest(x, step, quant_min, quant_max) * step
        return torch.where(torch.isfinite(x), rounded, torch.nan).to(x.dtype)

    @staticmethod
    def backward(ctx, gradient):
        x, step = ctx.saved_tensors
        steps = x.float() / step
        inside = (steps > ctx.ends[0]) & (steps < ctx.ends[1])
        rest = torch.where(inside, steps.round() - steps, steps.clamp(*ctx.ends))
        of_step = (gradient * rest).sum_to_size(step.shape) * ctx.scale
        return torch.where(inside, gradient, 0), of_step.to(step.dtype), None, None, None


def nearest(x, step, quant_min, quant_max):
    """Return the integers of the grid, as floats, that are nearest to ``x / step``."""
    return (x.float() / step).round().clamp(quant_min, quant_max)


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


def paper_step(groups: torch.Tensor, quant_min: int, quant_max: int) -> torch.Tensor:
    """Start where LSQ does: at 2 · mean|v| / sqrt(quant_max).

    Parameters
    ----------
    groups : Tensor of float32, shape (rows, groups, size)
    quant_min, quant_max : int

    Returns
    -------
    Tensor of float32, shape (rows, groups)
    """
    return 2 * groups.abs().mean(-1) / quant_max**0.5


def least_squares_step(groups: torch.Tensor, quant_min: int, quant_max: int) -> torch.Tensor:
    """Start where the squared error of the weights is small.

    Parameters and Returns as of :func:`paper_step`.
    """
    levels = torch.arange(quant_min, quant_max + 1, dtype=torch.float32, device=groups.device)
    return least_squares(groups, levels)[0].float()


def mean_step(groups: torch.Tensor, quant_min: int, quant_max: int) -> torch.Tensor:
    """Return mean|v|, as BitNet b1.58 does for three levels (Ma et al. 2024, arXiv 2402.17764).

    Parameters and Returns as of :func:`paper_step`.
    """
    return groups.abs().mean(-1)
