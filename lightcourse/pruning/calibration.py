"""Calibration: what a layer's inputs look like on some text, as running sums.

Hooks add each batch to one small tensor a layer and let the activations go, so that memory
does not grow with the text.
"""

from collections.abc import Collection, Iterable, Mapping

import torch
from torch import nn

from lightcourse import layers


def input_norms(
    model: nn.Module, batches: Iterable[dict], names: Collection[str] | None = None
) -> dict[str, torch.Tensor]:
    """Measure the L2 norm of each input of each linear layer over all tokens.

    Parameters
    ----------
    model : nn.Module
        Runs once over the batches, in evaluation mode, without gradients; unchanged.
    batches : iterable of dict
        Keyword arguments for the model; ``labels`` are left out. Tokens where
        ``attention_mask`` is 0 do not count.
    names : collection of str, optional
        Layers to measure; all linear layers without it.

    Returns
    -------
    dict of str to Tensor of float32, shape (inputs,)
        For each layer that ran.

    Raises
    ------
    ValueError
        When there is no batch, one is no dict, there is no linear layer, ``names`` holds an
        unknown one, no layer saw an input, or an input is not finite.
    """
    sums = _calibrate(model, batches, names, lambda x: x.square().sum(0))
    return {name: total.sqrt() for name, total in sums.items()}


def hessians(
    model: nn.Module, batches: Iterable[dict], names: Collection[str] | None = None
) -> dict[str, torch.Tensor]:
    """Sum ``x xᵀ`` over all inputs x of each linear layer, as SparseGPT wants it.

    It is the Hessian of the layer's squared output error, but for the factor 2, and the
    square roots of its diagonal are :func:`input_norms`. Memory: inputs² floats a layer.

    Parameters
    ----------
    model, batches, names
        As in :func:`input_norms`.

    Returns
    -------
    dict of str to Tensor of float32, shape (inputs, inputs)
        For each layer that ran.

    Raises
    ------
    ValueError
        As :func:`input_norms`.
    """
    return _calibrate(model, batches, names, lambda x: x.T @ x)


@torch.no_grad()
def _calibrate(model, batches, names, statistic):
    """Return the sum of ``statistic(x)`` by layer, x being a batch's inputs as rows."""
    sums, counted = {}, {}
    hooks = [
        layer.register_forward_pre_hook(_adder(name, sums, counted, statistic))
        for name, layer in _chosen(model, names).items()
    ]
    try:
        _run(model, batches, counted)
    finally:
        for hook in hooks:
            hook.remove()
    if not sums:
        raise ValueError("model ran, but no linear layer saw an input; its own layers are wanted")
    for name, total in sums.items():
        if not torch.isfinite(total).all():
            raise ValueError(f"the inputs of {name} hold NaN or infinity; finite ones are wanted")
    return sums


def _chosen(model, names):
    found = layers.linear_layers(model)
    if not found:
        raise ValueError(f"model is a {type(model).__name__} without a linear layer to measure")
    if names is None:
        return found
    if unknown := sorted(set(names) - set(found)):
        raise ValueError(f"names holds {unknown}, which are no linear layers of this model")
    return {name: layer for name, layer in found.items() if name in names}


def _adder(name, sums, counted, statistic):
    def add(_, inputs):
        rows = inputs[0].reshape(-1, inputs[0].shape[-1]).float()
        tokens = counted["tokens"]
        # A layer behind the pooling sees one row a text: padding is gone there already.
        if tokens is not None and tokens.numel() == len(rows):
            rows = rows[tokens.flatten().bool()]
        sums[name] = sums.get(name, 0) + statistic(rows)

    return add


def _run(model, batches, counted):
    """Run the model over all batches; ``counted`` tells the hooks which tokens are real."""
    if callable(batches):
        raise ValueError("batches is a function; its batches are wanted, such as batches(0, 0)")
    training, empty = model.training, True
    model.eval()
    try:
        for batch in batches:
            empty = False
            if not isinstance(batch, Mapping):
                raise ValueError(
                    f"batches holds a {type(batch).__name__}; dicts are wanted, in a list"
                )
            counted["tokens"] = batch.get("attention_mask")
            model(**{key: value for key, value in batch.items() if key != "labels"})
    finally:
        model.train(training)
    if empty:
        raise ValueError("batches is empty; at least one batch is wanted")
