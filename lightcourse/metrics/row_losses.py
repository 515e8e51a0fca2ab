"""Each row's loss, which averages hide."""

from collections.abc import Iterable

import torch
from torch import nn
from torch.nn import functional as F

from lightcourse import asking, layers

UNLABELLED = -100  # torch's own mark for what no loss looks at


@torch.no_grad()
def losses(model: nn.Module, batches: Iterable[dict]) -> torch.Tensor:
    """Return the loss of each row in nats: how surprised the model is by its labels.

    A classifier's is the cross-entropy of the row. A language model's is the sum over the
    row's labelled tokens but the first, each foretold from those before it.

    Parameters
    ----------
    model : nn.Module
        Its output has ``logits``. Its training mode is restored afterwards.
    batches : iterable of dict
        Keyword arguments for the model, and ``labels``: one a row for a classifier, one a token
        (-100: not looked at) for a language model.

    Returns
    -------
    Tensor of float64, shape (rows,)
        In float32 all losses below 6e-8 would be the same 0.

    Raises
    ------
    ValueError
        When there is no batch, one is no dict or has no labels.
    """
    found = []
    with layers.evaluating(model):
        for batch in asking.answered(batches):
            logits = model(**asking.inputs_of(batch)).logits.double()
            found.append(_of_rows(logits, batch["labels"]))
    return torch.cat(found)


def _of_rows(logits, labels):
    if labels.ndim == 1:
        return F.cross_entropy(logits, labels, reduction="none")
    logits, labels = logits[:, :-1].transpose(1, 2), labels[:, 1:]
    return F.cross_entropy(logits, labels, reduction="none", ignore_index=UNLABELLED).sum(1)
