"""Losses that fit the loop: ``loss(model, batch)`` returns a scalar."""

from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn import functional as F

from lightcourse import asking, models


def model_loss(model: nn.Module, batch: dict) -> torch.Tensor:
    """Return the loss that a Hugging Face model computes when it is given labels."""
    return model(**batch).loss


def balanced_weights(counts: Sequence[int]) -> torch.Tensor:
    """Return the class weights under which every class counts the same in all.

    ``total / (classes · count)``: the weight of a class times its count is equal for all,
    and the mean weight of an example is 1.

    Parameters
    ----------
    counts : sequence of int
        Examples of each class, such as ``data.class_counts(dataset).values()``.

    Returns
    -------
    Tensor of float32, shape (classes,)

    Raises
    ------
    ValueError
        When there are less than two classes, or one has no example: nothing can be
        learned of it, and its weight would be infinite.

    Examples
    --------
    >>> balanced_weights([30, 10, 20])
    tensor([0.6667, 2.0000, 1.0000])
    """
    counts = torch.tensor(list(counts), dtype=torch.float64)
    if len(counts) < 2 or not (counts > 0).all():
        raise ValueError(f"counts is {counts.tolist()}; two or more counts above 0 are wanted")
    return (counts.sum() / (len(counts) * counts)).float()


def weighted_loss(
    class_weights: Sequence[float] | torch.Tensor,
) -> Callable[[nn.Module, dict], torch.Tensor]:
    """Return a loss for :func:`train` that takes some classes more seriously than others.

    The cross-entropy of each example times its class's weight, divided by the weights in
    the batch. In a batch of one example, or of one class, the weights cancel.

    Parameters
    ----------
    class_weights : sequence or Tensor of float, shape (classes,)
        Positive; :func:`balanced_weights` makes them from counts. Equal weights give the
        plain cross-entropy.

    Returns
    -------
    callable
        ``loss(model, batch)`` for a classifier with ``logits`` in its output, and batches
        with ``labels``.

    Raises
    ------
    ValueError
        When a weight is not a positive number; while training, when the model has another
        number of classes, or a label lies outside them.
    """
    weights = torch.as_tensor(class_weights, dtype=torch.float32)
    if weights.ndim != 1 or len(weights) < 2 or not (weights > 0).all() or weights.isinf().any():
        raise ValueError(f"class_weights is {weights.tolist()}; positive numbers are wanted")

    def loss(model, batch):
        logits = model(**asking.inputs_of(batch)).logits
        if logits.shape[-1] != len(weights):
            raise ValueError(
                f"class_weights has {len(weights)} entries; {logits.shape[-1]}, as many as "
                "the model has classes, are wanted"
            )
        models.check_labels(batch["labels"], len(weights))
        return F.cross_entropy(logits, batch["labels"], weights.to(logits))

    return loss
