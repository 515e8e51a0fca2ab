"""SparseGPT: remove weights column by column and let the columns to the right make up for it.

Frantar & Alistarh 2023, arXiv 2301.00774.
"""

from collections.abc import Callable

import torch
from torch import nn

from lightcourse import layers, obs
from lightcourse.pruning.masks import fits


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
        When :func:`lightcourse.obs.solve` refuses the weight, the Hessian, ``block_size``
        or ``damping``, or ``mask`` returns no mask.

    Examples
    --------
    Two inputs that are always equal: the second takes over the weight of the first.

    >>> equal = torch.ones(2, 2)
    >>> half = lambda scores: torch.tensor([[False, True]])
    >>> sparsegpt(torch.tensor([[1.0, 2.0]]), equal, half, damping=1e-6).round(decimals=3)
    tensor([[0., 3.]])
    """

    def choose(block, columns, pivots):
        keep = _choose(mask, (block / pivots).square())
        return lambda values, j: values.masked_fill(~keep[:, j], 0)

    return obs.solve(weight, hessian, choose, block_size, damping)


def _choose(mask, scores):
    keep = mask(scores)
    if not fits(keep, scores.shape):
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
            new[name] = sparsegpt(
                layers.weight_matrix(found[name]), hessian, mask, block_size, damping
            )
        except ValueError as error:
            raise ValueError(f"layer {name}: {error}") from error
    report = layers.Report("pruned", "weights set to zero")
    for name, matrix in new.items():
        weight = layers.weight_matrix(found[name]).data
        if removed := int(((matrix == 0) & (weight != 0)).sum()):
            report.changed[name] = removed
            weight.copy_(matrix)
    return report.raise_if_nothing_changed("the mask keeps every weight that is not zero yet")
