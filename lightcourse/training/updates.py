"""Which parameters a step changes, and at what rate."""

import re

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
        matches = (i for i, group in enumerate(recipe.groups) if re.search(group.pattern, name))
        members[next(matches, len(recipe.groups))].append(name)
    for group, names in zip(recipe.groups, members.values(), strict=False):
        if not names:
            raise ValueError(
                f"the group {group.pattern!r} takes no trainable parameter that an earlier group "
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
