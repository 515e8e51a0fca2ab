"""Running sums over the inputs of each layer: their norms, and their Hessian."""

from collections.abc import Collection, Iterable

import torch
from torch import nn

from lightcourse import layers
from lightcourse.calibration.observing import choose_layers, observe_inputs


def input_norms(
    model: nn.Module, batches: Iterable[dict], names: Collection[str] | None = None
) -> dict[str, torch.Tensor]:
    """Measure the L2 norm of each input of each linear layer over all tokens.

    Parameters
    ----------
    model, batches
        The model runs once over the batches, as
        :func:`lightcourse.calibration.observe_inputs` tells; padding does not count.
    names : collection of str, optional
        Layers to measure; all linear layers without it.

    Returns
    -------
    dict of str to Tensor of float32, shape (inputs,)
        For each layer that ran.

    Raises
    ------
    ValueError
        As ``observe_inputs``, or when there is no linear layer, ``names`` holds an
        unknown one, or a sum is too large for float32.
    """
    sums = _sums(model, batches, names, lambda x: x.square().sum(0))
    return {name: total.sqrt() for name, total in sums.items()}


def hessians(
    model: nn.Module, batches: Iterable[dict], names: Collection[str] | None = None
) -> dict[str, torch.Tensor]:
    """Sum ``x xᵀ`` over all inputs x of each linear layer, as SparseGPT and GPTQ want it.

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
    return _sums(model, batches, names, lambda x: x.T @ x)


def _sums(model, batches, names, statistic):
    """Return the sum of ``statistic(x)`` by layer, x being a batch's inputs as rows."""

    def add(total, rows):
        return statistic(rows) if total is None else total + statistic(rows)

    model = layers.inside(model)
    chosen = choose_layers(model, layers.linear_layers(model), names)
    tied = {name: owner for name, owner in layers.tied_layers(model).items() if owner in chosen}
    observed = chosen | {name: model.get_submodule(name) for name in tied}
    sums = observe_inputs(model, batches, observed, add)
    for name in tied.keys() & sums.keys():  # one matrix, multiplied by the inputs of them all
        sums[tied[name]] = sums.pop(name) + sums.get(tied[name], 0)
    for name, total in sums.items():
        if not torch.isfinite(total).all():
            raise ValueError(f"the inputs of {name} are too large: their sum is infinite")
    return sums
