"""How curved the loss is in the weights of each layer: the trace of its Hessian."""

from collections.abc import Iterable

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from lightcourse import asking, layers
from lightcourse.calibration.observing import checking_ids


def hessian_traces(
    model: nn.Module, batches: Iterable[dict], probes: int = 4, seed: int = 0
) -> dict[str, float]:
    """Estimate the trace of the loss's Hessian with respect to each linear layer's weight.

    For random signs v the mean of v·Hv is the trace (Hutchinson 1990), and Hv is the gradient of
    v·gradient. A layer's trace divided by its weights, times the squared error of rounding it,
    foretells what that adds to the loss (HAWQ-V2, Dong et al. 2020, arXiv 1911.03852).

    Parameters
    ----------
    model : nn.Module
        Any that returns a ``loss`` when it is given labels, in float32. Unchanged.
    batches : iterable of dict
        Keyword arguments for the model, ``labels`` among them; each batch counts the same.
    probes : int
        Signs for each batch.
    seed : int

    Returns
    -------
    dict of str to float
        For each linear layer: the mean over batches. 0 where the loss does not depend on it.

    Raises
    ------
    ValueError
        When there is no linear layer, no batch, or no finite loss.
    """
    if isinstance(probes, bool) or not isinstance(probes, int) or probes < 1:
        raise ValueError(f"probes is {probes!r}; 1 or more is wanted")
    model = layers.inside(model)
    weights = {n: m.weight for n, m in layers.linear_layers(model).items()}
    if not weights:
        raise ValueError(f"model is a {type(model).__name__} without a linear layer to measure")
    generator = torch.Generator().manual_seed(seed)
    totals, count = dict.fromkeys(weights, 0.0), 0
    # Fused attention has no second derivative.
    with (
        layers.evaluating(model),
        layers.differentiable(weights.values()),
        checking_ids(model),
        sdpa_kernel(SDPBackend.MATH),
    ):
        for batch in asking.answered(batches):
            gradients = _gradients(model, batch, list(weights.values()))
            for _ in range(probes):
                _add(totals, weights, gradients, generator)
            count += probes
    return {name: total / count for name, total in totals.items()}


def _gradients(model, batch, weights):
    loss = getattr(model(**batch), "loss", None)
    if loss is None or not torch.isfinite(loss):
        raise ValueError(f"the model's loss is {loss}; labels, and a finite loss, are wanted")
    return torch.autograd.grad(loss, weights, create_graph=True, materialize_grads=True)


def _add(totals, weights, gradients, generator):
    """Add one estimate of each trace; signs of other layers are 0 in the mean."""
    signs = [torch.randint(0, 2, w.shape, generator=generator) * 2.0 - 1 for w in weights.values()]
    product = sum((gradient * v).sum() for gradient, v in zip(gradients, signs, strict=True))
    if not product.requires_grad:  # a loss that is linear in all weights
        return
    curved = torch.autograd.grad(
        product, list(weights.values()), retain_graph=True, materialize_grads=True
    )
    for name, v, part in zip(weights, signs, curved, strict=True):
        totals[name] += (v * part).sum().item()
