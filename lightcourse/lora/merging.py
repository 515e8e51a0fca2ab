"""Adapters that go into the matrices, and what is lost where those are integers."""

from collections.abc import Callable

import torch
from torch import nn

from lightcourse import layers
from lightcourse.lora.shell import Shell, innermost, matrix, own_parameters, plain_names, updates
from lightcourse.lora.switching import the_adapter


@torch.no_grad()
def merge_lora_(model: nn.Module, adapter: str | None = None) -> layers.Report:
    """Work an adapter, of whatever kind, into the matrices and take its layers away, in place.

    Afterwards the layers have their old structure and speed, and compute what they did
    with the adapter beside them, up to rounding. Zeros of a pruned matrix are refilled.
    Other adapters stay beside the changed matrices.

    Parameters
    ----------
    model : nn.Module
        Changed in place; parameters stay frozen as they were.
    adapter : str, optional
        Which one, in use or not; the only one without it.

    Returns
    -------
    Report
        For each layer the parameters folded in.

    Raises
    ------
    ValueError
        When there is nothing to merge, no or more than one adapter is meant, the adapter holds
        NaN or infinity, or a base layer stores integers, into which an update cannot be added
        without rounding it away (:func:`merge_drift` tells how much of it), shares its weight,
        or does not simply multiply by it (nothing is changed then).
    """
    model = layers.inside(model)
    found = updates(model, the_adapter(model, adapter))
    plain = plain_names(model)
    require_finite({plain[name]: layer for name, layer in found.items()})
    require_matrices({plain[name]: layer for name, layer in found.items()})
    _require_own(model, found)
    report = layers.Report("merged", "parameters folded in")
    for name, layer in found.items():
        _work_in(layer)
        layers.replace_(model, name, layer.base)
        report.changed[plain[name]] = sum(p.numel() for p in own_parameters(layer).values())
    return report.raise_if_nothing_changed("the model has no LoRA layer")


def _work_in(layer):
    """Change the matrix and the bias below a shell, rounding once in low precision."""
    base = innermost(layer)
    weight, bias = layers.weight_matrix(base), base.bias
    weight.copy_(layer.new_weight(weight))
    if bias is not None:
        bias.copy_(layer.new_bias(bias))


def require_finite(found: dict[str, Shell]) -> None:
    """Raise ``ValueError`` when an adapter holds NaN or infinity."""
    for name, layer in found.items():
        for own, parameter in own_parameters(layer).items():
            if not torch.isfinite(parameter).all():
                raise ValueError(f"{name}.{own} holds NaN or infinity; finite values are wanted")


def require_matrices(found: dict[str, nn.Module]) -> None:
    """Raise ``ValueError`` when one of the layers stores integers."""
    for name, layer in found.items():
        if layers.stores_integers(innermost(layer)):
            raise ValueError(
                f"layer {name} stores integers: adding the update would round it; "
                "dequantize the layer first, or keep the update beside it"
            )


def _require_own(model, found):
    """Raise where adding to a matrix would change another layer, or not do what it shall."""
    shared, plain = layers.shared_layers(model), plain_names(model)
    owner = {plain[name]: plain.get(other, other) for name, other in shared.items()}
    for name, layer in found.items():
        base = innermost(layer)
        if plain[name] in owner:
            why = f"shares its weight with {owner[plain[name]]}, which would change too"
        elif "weight" not in base._parameters or not layers.multiplies_plainly(base):
            why = f"is a {type(base).__name__} that multiplies, or makes its weight, its own way"
        else:
            continue
        raise ValueError(f"layer {plain[name]} {why}; keep the update beside it")


@torch.no_grad()
def merge_drift(
    model: nn.Module,
    rounding: Callable[[torch.Tensor], torch.Tensor],
    adapter: str | None = None,
) -> dict[str, float]:
    """Return how far merging and rounding would take each matrix, in sizes of the adapter's change.

    ``‖round(W') - W'‖ / ‖W' - W‖`` for the matrix W that is stored and W' with the adapter in
    it. 0: nothing is lost. 1: rounding moves the matrix as far as training did, which is what
    happens where every change is lost in the steps of the old grid; a new grid moves the
    weights that were on the old one, too, and can do worse than that. Keeping the adapter
    beside the integers costs none of it.

    Parameters
    ----------
    model : nn.Module
        With an adapter of any kind, over integers or floats; unchanged.
    rounding : callable
        From a float matrix to the floats that its rounded form reads back as, such as
        ``lambda w: nf4(w).read_back()``.
    adapter : str, optional
        Which one; the only one without it.

    Returns
    -------
    dict of str to float
        By the layers' names; a layer that the adapter does not change is left out.

    Raises
    ------
    ValueError
        When there is no adapter, or more than one and none is named, or one holds NaN.
    """
    model = layers.inside(model)
    plain = plain_names(model)
    found = {plain[n]: shell for n, shell in updates(model, the_adapter(model, adapter)).items()}
    if not found:
        raise ValueError("model has no adapter; add_lora_ makes one")
    require_finite(found)
    drifts = {}
    for name, shell in found.items():
        weight = matrix(shell).float()
        wanted = shell.new_weight(weight)
        if change := float((wanted - weight).norm()):
            drifts[name] = float((rounding(wanted) - wanted).norm()) / change
    return drifts
