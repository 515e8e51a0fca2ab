"""The optimal brain surgeon: columns of a weight change one by one, and the rest make up for it.

The solver that SparseGPT (Frantar & Alistarh 2023, arXiv 2301.00774) and GPTQ (Frantar et al.
2022, arXiv 2210.17323) share. What a column becomes is the caller's choice: some of its values
and zeros, or the nearest points of a grid.
"""

from collections.abc import Callable

import torch

Become = Callable[[torch.Tensor, int], torch.Tensor]


def solve(
    weight: torch.Tensor,
    hessian: torch.Tensor,
    choose: Callable[[torch.Tensor, slice, torch.Tensor], Become],
    block_size: int = 128,
    damping: float = 0.01,
) -> torch.Tensor:
    """Return a weight of chosen values, with the least change of the layer's output on the way.

    From left to right each column takes the values that are chosen for it; then all columns
    to its right move, so that together they undo as much as they can of what that did to the
    output. All arithmetic is in float64.

    Parameters
    ----------
    weight : Tensor of shape (outputs, inputs)
        Not changed.
    hessian : Tensor of shape (inputs, inputs)
        The sum of ``x xᵀ`` over the layer's inputs, as
        :func:`lightcourse.calibration.hessians` measures it.
    choose : callable
        ``choose(block, columns, pivots)`` is called for each block of columns before the
        first of them changes, and returns ``become``. ``block``, shape (outputs,
        ``block_size`` or less), holds their values by then, and ``columns`` is the slice of
        ``weight`` where they stand. To change a weight of column j by e costs
        ``(e / pivots[j]) ** 2`` of squared output error, once the columns to its right have
        moved.
        ``become(values, j)`` is called for each column j of the block in turn, with its
        values by then, shape (outputs,), and returns those that it is to take.
    block_size : int
        Columns that are chosen at once: n of m wants m, a grid for each group of columns
        wants the group's size.
    damping : float
        Added to the Hessian's diagonal, as a fraction of its mean; positive.

    Returns
    -------
    Tensor of shape (outputs, inputs)
        In ``weight``'s dtype: what ``become`` returned, column by column.

    Raises
    ------
    ValueError
        When shapes do not fit, weight or Hessian are not finite, the Hessian is zero or no
        sum of ``x xᵀ``, ``damping`` is not positive or ``block_size`` is below 1, or
        ``become`` returns another shape than it was given.

    Examples
    --------
    Two inputs that are always equal, and a grid of whole numbers: the first weight is rounded
    down, and the second takes over what it lost.

    >>> nearest = lambda block, columns, pivots: lambda values, j: values.round()
    >>> solve(torch.tensor([[0.4, 0.4]]), torch.ones(2, 2), nearest, damping=1e-6)
    tensor([[0., 1.]])
    """
    check(weight, hessian, block_size, damping)
    new = weight.detach().double().clone()
    factor = _inverse_factor(hessian.double(), damping)
    for start in range(0, new.shape[1], block_size):
        stop = min(start + block_size, new.shape[1])
        columns, block = slice(start, stop), new[:, start:stop]
        here = factor[columns, columns]
        errors = _settle_(block, here, choose(block, columns, here.diagonal()))
        new[:, stop:] -= errors @ factor[columns, stop:]
    return new.to(weight.dtype)


def check(
    weight: torch.Tensor, hessian: torch.Tensor, block_size: int = 128, damping: float = 0.01
) -> None:
    """Raise ``ValueError`` where :func:`solve` would refuse these arguments."""
    inputs = weight.shape[-1]
    if weight.ndim != 2:
        raise ValueError(f"weight has shape {tuple(weight.shape)}; (outputs, inputs) is wanted")
    if tuple(hessian.shape) != (inputs, inputs):
        raise ValueError(
            f"hessian has shape {tuple(hessian.shape)}; ({inputs}, {inputs}) is wanted"
        )
    for name, tensor in {"weight": weight, "hessian": hessian}.items():
        if not torch.isfinite(tensor).all():
            raise ValueError(f"{name} holds NaN or infinity; finite values are wanted")
    if not hessian.any():
        raise ValueError("hessian is zero: the layer saw no input but zeros")
    if block_size < 1 or not damping > 0:
        raise ValueError(
            f"block_size is {block_size} and damping {damping}; at least 1 and above 0 are wanted"
        )


def _inverse_factor(hessian, damping):
    """Return the upper triangle U with ``H⁻¹ = Uᵀ U``.

    Row j of U, divided by its diagonal entry, says how the columns right of j best make up
    for column j when those left of it are fixed: all inverses that are needed, at once.
    """
    extra = damping * hessian.diagonal().mean() * torch.ones_like(hessian.diagonal())
    try:
        lower = torch.linalg.cholesky(hessian + torch.diag(extra))
        return torch.linalg.cholesky(torch.cholesky_inverse(lower), upper=True)
    except torch.linalg.LinAlgError as error:
        raise ValueError(
            f"hessian is not positive definite, even with damping {damping}; a sum of x xᵀ, or "
            "more damping, is wanted"
        ) from error


def _settle_(block, factor, become):
    """Let a block's columns take their values; return by how many pivots each was changed."""
    errors = torch.zeros_like(block)
    for j in range(block.shape[1]):
        wanted = become(block[:, j], j)
        if wanted.shape != block[:, j].shape:
            raise ValueError(
                f"choose's function returned shape {tuple(wanted.shape)} for a column; "
                f"({len(block)},) is wanted"
            )
        errors[:, j] = (block[:, j] - wanted) / factor[j, j]
        block[:, j] = wanted
        block[:, j + 1 :] -= torch.outer(errors[:, j], factor[j, j + 1 :])
    return errors
