"""What is trained, what is added, and what is run."""

import math
from dataclasses import dataclass

from torch import nn

from lightcourse import layers
from lightcourse.lora.shell import own_parameters, updates


@dataclass(frozen=True)
class Counts:
    """Numbers of parameters.

    Parameters
    ----------
    trained : int
        What a training step would change.
    added : int
        What the adapters, all of them, have besides the base model.
    run : int
        What a token is multiplied by: the matrices of the linear layers, and the adapter that
        is in use. Embedding tables are looked up, not multiplied, unless an output layer
        shares one.
    """

    trained: int
    added: int
    run: int


def counts(model: nn.Module) -> Counts:
    """Count a model's parameters by what is done with them.

    Parameters
    ----------
    model : nn.Module
        With adapters or without, in floats or integers.

    Returns
    -------
    Counts
        A mixture of experts counts all of them as run.
    """
    model = layers.inside(model)
    shells = updates(model).values()
    own = {id(shell): sum(p.numel() for p in own_parameters(shell).values()) for shell in shells}
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    used = sum(own[id(shell)] for shell in shells if shell.active)
    return Counts(trained, sum(own.values()), _matrices(model) + used)


def _matrices(model):
    """Return the numbers in all matrices that linear layers multiply by, shared ones each time."""
    found = [m for m in model.modules() if isinstance(m, nn.Linear) or layers.is_conv1d(m)]
    stored = [m for m in model.modules() if layers.stores_integers(m)]
    return sum(m.weight.numel() for m in found) + sum(math.prod(m.shape) for m in stored)
