"""SparseGPT: remove weights column by column and let the columns to the right make up for it.

Frantar & Alistarh 2023, arXiv 2301.00774.
"""

from collections.abc import Callable

import torch
from torch import nn

from lightcourse import layers


def sparsegpt(
    weight: torch.Tensor,
    hessian: torch.Tensor,
    mask: Callable[[torch.Tensor], torch.Tensor],
    block_size: int = 128,
    damping: float = 0.01,
) -> torch.Tensor:
    """Return one layer's weight with some set to zero and the rest adjusted for the loss.

    Parameters
    ----------
    weight : Tensor of shape (outputs, inputs)
        Not changed.
    hessian : Tensor of shape (inputs, inputs)
        The sum of ``x xᵀ`` over the layer's inputs, as :func:`hessians` measures it.
    mask : callable
        Given the scores of a block of columns, shape (outputs, block_size or less), returns
        which to keep: ``lambda scores: layer_mask(scores, 0.5)`` as in the paper, or any
        other mask. The score of a weight is the squared error that its removal costs after
        the best adjustment of the columns to its right.
    block_size : int
        Columns that are chosen at once. For n of m the paper takes ``block_size=m``.
    damping : float
        Added to the Hessian's diagonal, as a fraction of its mean; positive.

    Returns
    -------
    Tensor of shape (outputs, inputs)
        In ``weight``'s dtype; exactly 0 where the mask was False.

    Raises
    ------
    ValueError
        When shapes do not fit, weight or Hessian are not finite, the Hessian is zero,
        ``damping`` is not positive or ``block_size`` is below 1.

    Examples
    --------
    Two inputs that are always equal: the second takes over the weight of the first.

    >>> equal = torch.ones(2, 2)
    >>> half = lambda scores: torch.tensor([[False, True]])
    >>> sparsegpt(torch.tensor([[1.0, 2.0]]), equal, half, damping=1e-6).round(decimals=3)
    tensor([[0., 3.]])
    """
    _check(weight, hessian, block_size, damping)
    new = weight.detach().double().clone()
    factor = _inverse_factor(hessian.double(), damping)
    for start in range(0, new.shape[1], block_size):
        _prune_block(new, factor, start, min(start + block_size, new.shape[1]), mask)
    return new.to(weight.dtype)


def _check(weight, hessian, block_size, damping):
    inputs = weight.shape[1]
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
    lower = torch.linalg.cholesky(hessian + torch.diag(extra))
    return torch.linalg.cholesky(torch.cholesky_inverse(lower), upper=True)


def _prune_block(weight, factor, start, stop, mask):
    """Prune the columns from start to stop and adjust all to their right, in place."""
    block, here = weight[:, start:stop], factor[start:stop, start:stop]
    keep = _choose(mask, (block / here.diagonal()).square())
    errors = torch.zeros_like(block)
    for j in range(stop - start):
        errors[:, j] = (block[:, j] / here[j, j]).masked_fill(keep[:, j], 0)
        block[:, j:] -= torch.outer(errors[:, j], here[j, j:])
    block.masked_fill_(~keep, 0)
    weight[:, stop:] -= errors @ factor[start:stop, stop:]


def _choose(mask, scores):
    keep = mask(scores)
    if not isinstance(keep, torch.Tensor) or keep.dtype != torch.bool or keep.shape != scores.shape:
        raise ValueError(
            f"mask returned no torch.bool of shape {tuple(scores.shape)} for scores of that shape"
        )
    return keep


def sparsegpt_(
    model: nn.Module,
    hessians: dict[str, torch.Tensor],
    mask: Callable[[torch.Tensor], torch.Tensor],
    block_size: int = 128,
    damping: float = 0.01,
) -> layers.Report:
    """Prune a model's layers by :func:`sparsegpt`, in place.

    Weights that were zero before and are not chosen again do not stay zero.

    Parameters
    ----------
    model : nn.Module
        Changed in place.
    hessians : dict of str to Tensor
        For the layers to prune, as :func:`hessians` measures them. All at once is quick;
        the paper goes from block to block and measures each behind the pruned ones: call
        both functions in turns, with ``names``, for that.
    mask, block_size, damping
        As in :func:`sparsegpt`.

    Returns
    -------
    Report
        For each layer how many weights became zero that were not.

    Raises
    ------
    ValueError
        When a Hessian fits no layer, :func:`sparsegpt` refuses one (nothing has been
        changed then), or no weight became zero.
    """
    model = layers.inside(model)
    found = layers.linear_layers(model)
    if unknown := sorted(set(hessians) - set(found)):
        raise ValueError(f"hessians names {unknown}, which are no linear layers of this model")
    new = {}
    for name, hessian in hessians.items():
        try:
            new[name] = sparsegpt(layers.matrix(found[name]), hessian, mask, block_size, damping)
        except ValueError as error:
            raise ValueError(f"layer {name}: {error}") from error
    report = layers.Report("pruned", "weights set to zero")
    for name, matrix in new.items():
        weight = layers.matrix(found[name]).data
        if removed := int(((matrix == 0) & (weight != 0)).sum()):
            report.changed[name] = removed
            weight.copy_(matrix)
    return report.raise_if_nothing_changed("the mask keeps every weight that is not zero yet")
