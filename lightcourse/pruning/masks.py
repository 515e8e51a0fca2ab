"""Masks made from scores: which weights compete for being kept; and whether a mask fits."""

from collections.abc import Callable, Mapping, Sequence

import torch

Scores = torch.Tensor | dict[str, torch.Tensor]


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


def fits(mask: torch.Tensor, shape: Sequence[int]) -> bool:
    """Tell whether this is a mask for something of the given shape."""
    is_bool = isinstance(mask, torch.Tensor) and mask.dtype == torch.bool
    return is_bool and tuple(mask.shape) == tuple(shape)


def check_masks(
    masks: Mapping[str, torch.Tensor],
    shapes: Mapping[str, Sequence[int]],
    kind: str,
    hint: str = "",
) -> None:
    """Raise where the argument ``masks`` of a verb does not fit a model.

    Parameters
    ----------
    masks : mapping of str to Tensor of bool
        What was given.
    shapes : mapping of str to sequence of int
        All that could have a mask, by name.
    kind : str
        What those are, such as "linear layer".
    hint : str
        What else is to be known about the shape.

    Raises
    ------
    ValueError
        When ``masks`` is no mapping, names what is not there, or one is no torch.bool of the
        shape.
    """
    if not isinstance(masks, Mapping):
        raise ValueError(f"masks is a {type(masks).__name__}; a dict of masks by name is wanted")
    for name, mask in masks.items():
        if name not in shapes:
            known = ", ".join(list(shapes)[:10]) + ", …" * (len(shapes) > 10) or "there is none"
            raise ValueError(f"masks names {name!r}, which is no {kind} of this model ({known})")
        if not fits(mask, shapes[name]):
            given = type(mask).__name__
            if isinstance(mask, torch.Tensor):
                given = f"{mask.dtype} of shape {tuple(mask.shape)}"
            raise ValueError(
                f"the mask of {name} is {given}; "
                f"torch.bool of shape {tuple(shapes[name])} is wanted{hint}"
            )
