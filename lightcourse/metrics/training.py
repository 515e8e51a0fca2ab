"""What a training step holds in memory, besides what the layers have answered."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

from lightcourse import layers
from lightcourse.metrics.sizes import size_in_bytes


@dataclass(frozen=True)
class TrainingBytes:
    """The bytes that a training run holds all the time.

    Parameters
    ----------
    weights : int
        Of the whole model, frozen or not, as :func:`size_in_bytes` counts them.
    gradients : int
        One number for each trained weight.
    optimizer : int
        Adam's two averages, of the gradient and of its square, for each trained weight.
    """

    weights: int
    gradients: int
    optimizer: int

    @property
    def total(self) -> int:
        """All three."""
        return self.weights + self.gradients + self.optimizer


def training_bytes(model: nn.Module) -> TrainingBytes:
    """Count what training a model with Adam holds, from what is trainable now.

    The activations that the gradient needs come on top; they depend on the batch.

    Parameters
    ----------
    model : nn.Module
        With an adapter put in, or any other choice of ``requires_grad``. One on ``meta`` will
        do, which has shapes and no values.

    Returns
    -------
    TrainingBytes

    Examples
    --------
    >>> model = nn.Linear(10, 4, bias=False)
    >>> training_bytes(model)
    TrainingBytes(weights=160, gradients=160, optimizer=320)
    >>> training_bytes(model.requires_grad_(False)).total
    160
    """
    model = layers.unwrapped(model)
    trained = sum(p.nbytes for p in model.parameters() if p.requires_grad)
    return TrainingBytes(size_in_bytes(model), trained, 2 * trained)


def optimizer_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Return the bytes of all tensors that an optimizer keeps from step to step.

    Before the first step there are none. Beside Adam's two averages, torch counts the steps in
    a tensor of 4 bytes for each parameter.
    """
    state = (tensor for one in optimizer.state.values() for tensor in one.values())
    return sum(tensor.nbytes for tensor in state if isinstance(tensor, torch.Tensor))


def kept_bytes(model: nn.Module, batch: Mapping) -> int:
    """Return the bytes that one forward pass keeps for the gradient, besides the model itself.

    What layers were given, mostly; an adapter needs it as full training does, where gradients
    flow past frozen layers. The model's own weights are not counted, but floats that a layer
    made of its integers are.

    Parameters
    ----------
    model : nn.Module
        In its present mode, training or evaluation.
    batch : mapping
        Keyword arguments for the model.

    Returns
    -------
    int
        0 where nothing is trainable.

    Examples
    --------
    >>> kept_bytes(nn.Linear(10, 4), {"input": torch.ones(3, 10)})
    120
    """
    own = {t.untyped_storage().data_ptr() for t in [*model.parameters(), *model.buffers()]}
    kept = {}

    def note(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor  # held as long as the answer is, so that no other takes its place

    with torch.enable_grad(), saved_tensors_hooks(note, lambda tensor: tensor):
        answer = model(**batch)
    del answer
    return sum(kept.values())
