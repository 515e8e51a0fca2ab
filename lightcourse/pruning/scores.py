"""Scores: how much each weight of a layer matters, by chance, by size, by size and input."""

import torch
from torch import nn

from lightcourse import layers


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
        When the model has no linear layer, or a weight is not finite or lies on ``meta``.
    """
    model = layers.inside(model)
    found = layers.linear_layers(model)
    if not found:
        raise ValueError(f"model is a {type(model).__name__} without a linear layer to score")
    return {name: _finite(name, layers.weight_matrix(layer)).abs() for name, layer in found.items()}


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
    return {
        name: torch.rand(score.shape, generator=generator).to(score.device)
        for name, score in scores.items()
    }


def _finite(name, weight):
    weight = weight.detach()
    if not torch.isfinite(weight).all():
        raise ValueError(f"the weight of {name} holds NaN or infinity; finite values are wanted")
    return weight


def wanda_scores(
    weight: nn.Module | torch.Tensor, input_norms: dict[str, torch.Tensor] | torch.Tensor
) -> dict[str, torch.Tensor] | torch.Tensor:
    """Score each weight by its absolute value times the norm of the input it meets.

    ``scores[i, j] = |weight[i, j]| * input_norms[j]``: how much of the layer's output goes
    with the weight, over the calibration text (Sun et al. 2023, arXiv 2306.11695). The
    paper compares within rows: combine with :func:`row_mask`.

    Parameters
    ----------
    weight : Tensor of shape (outputs, inputs), or nn.Module
        One layer's weight, or a whole model.
    input_norms : Tensor of shape (inputs,), or a dict of them by layer
        As :func:`input_norms` measures them.

    Returns
    -------
    Tensor of shape (outputs, inputs), or a dict of them
        For a model: one for each layer that ``input_norms`` names.

    Raises
    ------
    ValueError
        When a weight is not finite, or the norms do not fit: a wrong shape, a layer that
        the model does not have, none at all.

    Examples
    --------
    A small weight on a loud input beats a large one on a silent input:

    >>> wanda_scores(torch.tensor([[0.5, -3.0]]), torch.tensor([8.0, 1.0]))
    tensor([[4., 3.]])
    """
    if isinstance(weight, torch.Tensor):
        return _wanda("weight", weight, input_norms)
    weight = layers.inside(weight)
    found = layers.linear_layers(weight)
    if not input_norms or (unknown := sorted(set(input_norms) - set(found))):
        wrong = f"names {unknown}" if input_norms else "is empty"
        raise ValueError(f"input_norms {wrong}; norms for linear layers of this model are wanted")
    return {
        name: _wanda(name, layers.weight_matrix(found[name]), norms)
        for name, norms in input_norms.items()
    }


def _wanda(name, weight, norms):
    if tuple(norms.shape) != (weight.shape[1],):
        raise ValueError(
            f"the norms for {name} have shape {tuple(norms.shape)}; ({weight.shape[1]},) is wanted"
        )
    return _finite(name, weight).abs() * norms
