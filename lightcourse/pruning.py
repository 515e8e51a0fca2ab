"""Which weights may go: scores, masks made from scores, and the verb that applies masks.

Any score combines with any mask. A mask is True where a weight is kept.
"""

from collections.abc import Callable

import torch
from torch import nn

from lightcourse import layers

Scores = torch.Tensor | dict[str, torch.Tensor]


def magnitude_scores(model: nn.Module) -> dict[str, torch.Tensor]:
    """Score each weight by its absolute value (Han et al. 2015, arXiv 1506.02626).

    Parameters
    ----------
    model : nn.Module
        Any torch or Hugging Face model, GPT-2 with its ``Conv1D`` layers included.

    Returns
    -------
    dict of str to Tensor
        For each linear layer a tensor of shape (outputs, inputs).

    Raises
    ------
    ValueError
        When the model has no linear layer, or a weight is not finite.
    """
    found = layers.linear_layers(model)
    if not found:
        raise ValueError(f"model is a {type(model).__name__} without a linear layer to score")
    return {name: _finite(name, layers.matrix(layer)).abs() for name, layer in found.items()}


def random_scores(model: nn.Module, seed: int = 0) -> dict[str, torch.Tensor]:
    """Score each weight by chance: the control that every other score must beat.

    Parameters
    ----------
    model : nn.Module
        As in :func:`magnitude_scores`.
    seed : int
        The same seed gives the same scores.
    """
    generator = torch.Generator().manual_seed(seed)
    scores = magnitude_scores(model)
    return {name: torch.rand(score.shape, generator=generator) for name, score in scores.items()}


def _finite(name, weight):
    weight = weight.detach()
    if not torch.isfinite(weight).all():
        raise ValueError(f"the weight of {name} holds NaN or infinity; finite values are wanted")
    return weight


def global_mask(scores: dict[str, torch.Tensor], sparsity: float) -> dict[str, torch.Tensor]:
    """Remove the lowest scores of all layers together: some layers lose more than others.

    Parameters
    ----------
    scores : dict of str to Tensor
        One tensor for each layer, any shapes.
    sparsity : float
        Fraction to remove, 0 to 1. The count is rounded to whole weights and met exactly;
        among equal scores the earlier are removed first.

    Returns
    -------
    dict of str to Tensor of bool
        Shapes as in ``scores``; True = keep.

    Raises
    ------
    ValueError
        When ``scores`` is empty or holds NaN, or ``sparsity`` is outside 0..1.
    """
    if not isinstance(scores, dict) or not scores:
        raise ValueError("scores is no filled dict; one tensor for each layer's name is wanted")
    flat = torch.cat([score.flatten() for score in scores.values()])
    keep = layer_mask(flat, sparsity).split([score.numel() for score in scores.values()])
    return {
        name: part.view(score.shape)
        for (name, score), part in zip(scores.items(), keep, strict=True)
    }


def layer_mask(scores: Scores, sparsity: float) -> Scores:
    """Remove the same fraction from each layer: its own lowest scores.

    Parameters
    ----------
    scores : Tensor or dict of str to Tensor
        One layer, or many by name.
    sparsity : float
        Fraction to remove, 0 to 1, met exactly up to rounding.

    Returns
    -------
    Tensor of bool, or a dict of them
        True = keep.

    Examples
    --------
    >>> layer_mask(torch.tensor([[3.0, 1.0], [2.0, 4.0]]), 0.5)
    tensor([[ True, False],
            [False,  True]])
    """
    return _each(scores, lambda score: _keep(score.reshape(1, -1), sparsity).view(score.shape))


def row_mask(scores: Scores, sparsity: float) -> Scores:
    """Remove the same fraction from each row, that is from each output's inputs.

    The comparison group of Wanda (Sun et al. 2023, arXiv 2306.11695).

    Parameters
    ----------
    scores : Tensor of shape (outputs, inputs), or a dict of them
    sparsity : float
        Fraction of each row to remove, 0 to 1, met exactly up to rounding.

    Returns
    -------
    Tensor of bool, or a dict of them
        True = keep.
    """
    return _each(scores, lambda score: _keep(score, sparsity))


def n_of_m_mask(scores: Scores, n: int, m: int) -> Scores:
    """Keep the ``n`` highest of every ``m`` neighbours along the inputs (2:4 is n=2, m=4).

    Mishra et al. 2021, arXiv 2104.08378.

    Parameters
    ----------
    scores : Tensor of shape (outputs, inputs), or a dict of them
        ``inputs`` must be a multiple of ``m``.
    n, m : int
        0 <= n <= m and m >= 1.

    Returns
    -------
    Tensor of bool, or a dict of them
        True = keep.

    Raises
    ------
    ValueError
        When ``n`` or ``m`` is out of range or ``m`` does not divide the inputs.

    Examples
    --------
    >>> n_of_m_mask(torch.tensor([[4.0, 1.0, 2.0, 3.0]]), 2, 4)
    tensor([[ True, False, False,  True]])
    """
    if not 0 <= n <= m or m < 1:
        raise ValueError(f"n is {n} and m is {m}; 0 <= n <= m and m >= 1 are wanted")

    def one(score):
        if score.shape[-1] % m:
            raise ValueError(f"m is {m}, but a row has {score.shape[-1]} inputs: not a multiple")
        return _keep(score.reshape(-1, m), 1 - n / m).view(score.shape)

    return _each(scores, one)


def _each(scores: Scores, function: Callable) -> Scores:
    if isinstance(scores, dict):
        return {name: function(score) for name, score in scores.items()}
    return function(scores)


def _keep(scores, sparsity):
    """Return the mask that removes a fraction of the lowest scores of every row."""
    if not 0 <= sparsity <= 1:
        raise ValueError(f"sparsity is {sparsity}; a fraction between 0 and 1 is wanted")
    if torch.isnan(scores).any():
        raise ValueError("scores holds NaN; numbers that can be ordered are wanted")
    mask = torch.ones(scores.shape, dtype=torch.bool, device=scores.device)
    remove = round(sparsity * scores.shape[-1])
    lowest = scores.argsort(dim=-1, stable=True)[..., :remove]
    return mask.scatter_(-1, lowest, False)


def prune_(model: nn.Module, masks: dict[str, torch.Tensor]) -> layers.Report:
    """Set the weights to zero where a mask is False, in place.

    The model stays as large and as slow as it was: zeros cost what numbers cost until a
    file format or a kernel skips them.

    Parameters
    ----------
    model : nn.Module
        Changed in place.
    masks : dict of str to Tensor of bool
        For layers by name, each of shape (outputs, inputs); True = keep.

    Returns
    -------
    Report
        For each layer how many weights became zero that were not.

    Raises
    ------
    ValueError
        When a mask fits no layer or not its shape (nothing has been changed then), or
        when no weight was changed at all.
    """
    found = layers.linear_layers(model)
    for name, mask in masks.items():
        _check_mask(name, mask, found)
    report = layers.Report("pruned", "weights set to zero")
    for name, mask in masks.items():
        weight = layers.matrix(found[name]).data
        if removed := int((weight[~mask] != 0).sum()):
            report.changed[name] = removed
            weight.masked_fill_(~mask, 0)
    return report.raise_if_nothing_changed("the masks keep every weight that is not zero yet")


def _check_mask(name, mask, found):
    if name not in found:
        raise ValueError(f"masks names {name!r}, which is no linear layer of this model")
    shape = tuple(layers.matrix(found[name]).shape)
    if mask.dtype != torch.bool or tuple(mask.shape) != shape:
        raise ValueError(
            f"the mask of {name} is {mask.dtype} of shape {tuple(mask.shape)}; "
            f"torch.bool of shape {shape} is wanted"
        )
