"""Which parameters a step changes, at what rate, and which of their entries stay."""

import re
from collections.abc import Callable

import torch
from torch import nn

from lightcourse import layers


def trainable_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that a training step would change, by their plain names."""
    named = layers.unwrapped(model).named_parameters()
    return {name: p for name, p in named if p.requires_grad}


def optimizer_groups(parameters: dict[str, nn.Parameter], recipe) -> list[dict]:
    """Return the groups that AdamW wants, each with its ``peak`` rate and ``weight_decay``.

    Raises
    ------
    ValueError
        When one of the recipe's groups takes no parameter.
    """
    members = {index: [] for index in range(len(recipe.groups) + 1)}
    for name in parameters:
        matches = (i for i, group in enumerate(recipe.groups) if re.search(group.names, name))
        members[next(matches, len(recipe.groups))].append(name)
    for group, names in zip(recipe.groups, members.values(), strict=False):
        if not names:
            raise ValueError(
                f"the group {group.names!r} takes no trainable parameter that an earlier group "
                f"has left; their names are {sorted(parameters)}"
            )
    groups = []
    for settings, names in zip([*recipe.groups, None], members.values(), strict=True):
        groups += _by_shape([parameters[name] for name in names], settings, recipe)
    return groups


def _by_shape(parameters, group, recipe):
    """Split one group into matrices and the rest, which has no decay unless it is asked for."""
    peak = group and group.learning_rate
    decay = group and group.weight_decay
    matrices = [p for p in parameters if p.ndim >= 2]
    rest = [p for p in parameters if p.ndim < 2]
    common = {"peak": recipe.learning_rate if peak is None else peak}
    return [
        common
        | {"params": matrices, "weight_decay": recipe.weight_decay if decay is None else decay},
        common | {"params": rest, "weight_decay": decay or 0.0},
    ]


def masked_updates(
    model: nn.Module, masks: dict[str, torch.Tensor]
) -> Callable[[nn.Module, int], None]:
    """Return what :func:`train` does after each step to keep chosen entries as they are now.

    Whatever the step did to them, by gradient, momentum or weight decay, is taken back:
    zeros stay zero, other values stay what they were. Their gradients still count in the
    norm that ``Recipe.clip`` limits.

    Parameters
    ----------
    model : nn.Module
        Its present values are remembered, a copy of each masked parameter.
    masks : dict of str to Tensor of bool
        For parameters by name; True = may change. Of the parameter's shape or one that
        broadcasts to it, such as (rows, 1).

    Returns
    -------
    callable
        ``after_step(model, step)`` for :func:`train`.

    Raises
    ------
    ValueError
        When ``masks`` is empty, names no parameter, or a mask does not fit.

    Examples
    --------
    >>> layer = nn.Linear(3, 2)
    >>> after_step = masked_updates(layer, {"weight": torch.tensor([[True], [False]])})
    """
    parameters = dict(layers.unwrapped(model).named_parameters())
    if not masks:
        raise ValueError("masks is empty; at least one parameter's mask is wanted")
    for name, mask in masks.items():
        _check_mask(name, mask, parameters)
    kept = {name: parameters[name].detach().clone() for name in masks}

    @torch.no_grad()
    def after_step(model, step):
        model = layers.unwrapped(model)
        for name, mask in masks.items():
            parameter = model.get_parameter(name)
            parameter.copy_(torch.where(mask, parameter, kept[name]))

    return after_step


def _check_mask(name, mask, parameters):
    if name not in parameters:
        raise ValueError(f"masks names {name!r}, which is no parameter of this model")
    shape = parameters[name].shape
    fits = mask.ndim <= len(shape) and all(
        have in (1, want) for have, want in zip(reversed(mask.shape), reversed(shape), strict=False)
    )
    if mask.dtype != torch.bool or not fits:
        raise ValueError(
            f"the mask of {name} is {mask.dtype} of shape {tuple(mask.shape)}; "
            f"torch.bool that broadcasts to {tuple(shape)} is wanted"
        )
