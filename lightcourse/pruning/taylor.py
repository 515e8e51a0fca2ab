"""Taylor scores: by how much the loss would change, read off its gradient.

To first order, a weight set to zero changes the loss by minus its gradient times itself, and
so does a whole unit by the sum over its outgoing weights.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping

import torch
from torch import nn

from lightcourse import asking, layers, surgery


def taylor_scores(model: nn.Module, batches: Iterable[dict]) -> dict[str, torch.Tensor]:
    """Score each weight by its gradient times itself, in absolute value.

    ``scores[i, j] = sum over batches of |gradient[i, j] * weight[i, j]|``, by the model's own
    loss in evaluation mode (Molchanov et al. 2017, arXiv 1611.06440, and 2019, arXiv
    1906.10771). Each batch counts the same; within one, the gradients of its texts may cancel.

    Parameters
    ----------
    model : nn.Module
        Any that returns a ``loss`` when it is given labels. Unchanged: no gradient is left
        behind, and what is frozen stays so.
    batches : iterable of dict
        Keyword arguments for the model, ``labels`` among them.

    Returns
    -------
    dict of str to Tensor of float32, shape (outputs, inputs)
        For each linear layer; 0 where the loss does not depend on it. Any mask takes it.

    Raises
    ------
    ValueError
        When there is no linear layer, no batch, one without labels, or a loss or gradient
        that is not finite.
    """
    model = layers.inside(model)
    found = layers.linear_layers(model)
    # A weight that is computed from other tensors is another one at each reading.
    chosen = [name for name, layer in found.items() if "weight" in layer._parameters]
    if not chosen:
        raise ValueError(f"model is a {type(model).__name__} without a linear layer to score")
    return _sums(model, chosen, batches, lambda name, product: product.abs())


def neuron_taylor(model: nn.Module, batches: Iterable[dict]) -> dict[str, torch.Tensor]:
    """Score each FFN neuron by the loss's derivative with respect to a gate on it.

    ``scores[n] = sum over batches of |sum over i of gradient[i, n] * weight[i, n]|``, with the
    layer that reads the neurons: what a factor on neuron n, 1 now, would do to the loss.
    Unlike :func:`neuron_scores` of :func:`taylor_scores`, signs cancel within a neuron.

    Parameters
    ----------
    model, batches
        As in :func:`taylor_scores`; BERT, GPT-2, Llama or the like.

    Returns
    -------
    dict of str to Tensor of float32, shape (neurons,)
        By the FFN's name, as :func:`neuron_scores` gives it.

    Raises
    ------
    ValueError
        As :func:`taylor_scores`, or when the model has no FFN of a known kind.
    """
    model = layers.inside(model)
    return _of_units(model, surgery.feed_forwards(model), batches)


def head_taylor(model: nn.Module, batches: Iterable[dict]) -> dict[str, torch.Tensor]:
    """Score each attention head by the loss's derivative with respect to a gate on it.

    As :func:`neuron_taylor`, the sum going over all outgoing weights of a head, or of the
    heads that share a key. Michel et al. 2019, arXiv 1905.10650, sum over texts: for that,
    give batches of one text each.

    Parameters
    ----------
    model, batches
        As in :func:`taylor_scores`; BERT, GPT-2, Llama or the like.

    Returns
    -------
    dict of str to Tensor of float32, shape (heads,), or (key-value heads,)
        By the attention's name, as :func:`head_scores` gives it.

    Raises
    ------
    ValueError
        As :func:`taylor_scores`, or when the model has no attention of a known kind.
    """
    model = layers.inside(model)
    return _of_units(model, surgery.attentions(model), batches)


def _of_units(model, blocks, batches):
    units = {block.reader: block.units for block in blocks.values()}

    def gate(reader, product):
        return product.sum(dim=0).view(units[reader], -1).sum(dim=1).abs()

    sums = _sums(model, units, batches, gate)
    return {name: sums[block.reader] for name, block in blocks.items()}


def _sums(
    model: nn.Module,
    names: Iterable[str],
    batches: Iterable[Mapping],
    statistic: Callable[[str, torch.Tensor], torch.Tensor],
) -> dict[str, torch.Tensor]:
    """Return the sums over batches of ``statistic(name, gradient * weight)`` by layer."""
    found = {name: model.get_submodule(name) for name in names}
    sums = {}
    with layers.evaluating(model), layers.differentiable([f.weight for f in found.values()]):
        for batch in asking.answered(batches):
            for name, product in _products(model, batch, found):
                sums[name] = sums.get(name, 0) + statistic(name, product)
    return sums


def _products(model, batch, found) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield for each layer the product of its weight and the weight's gradient, in float32."""
    weights = [layer.weight for layer in found.values()]
    gradients = torch.autograd.grad(_loss(model, batch), weights, materialize_grads=True)
    for (name, layer), gradient in zip(found.items(), gradients, strict=True):
        product = gradient.float() * layer.weight.detach().float()
        if not torch.isfinite(product).all():
            raise ValueError(
                f"the gradient of {name} holds NaN or infinity; finite ones are wanted"
            )
        yield name, product.T if layers.is_conv1d(layer) else product


def _loss(model, batch):
    loss = getattr(model(**batch), "loss", None)
    if loss is None or not loss.requires_grad:
        raise ValueError(
            f"model is a {type(model).__name__}, which returns no loss that its weights could "
            "lower, though the batch has labels; a model with a head is wanted"
        )
    if not torch.isfinite(loss):
        raise ValueError(f"the loss of a batch is {loss.item()}; a finite one is wanted")
    return loss
