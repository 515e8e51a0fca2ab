"""Zeros: set by masks, held while a model trains, and added bit by bit."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from lightcourse import layers
from lightcourse.pruning.masks import check_masks


def prune_(model: nn.Module, masks: dict[str, torch.Tensor]) -> layers.Report:
    """Set the weights to zero where a mask is False, in place.

    The model stays as large and as slow as it was: zeros cost what numbers cost until a
    file format or a kernel skips them.

    Parameters
    ----------
    model : nn.Module
        Changed in place.
    masks : dict of str to Tensor of bool
        For layers by name, each of shape (outputs, inputs); True = keep.

    Returns
    -------
    Report
        For each layer how many weights became zero that were not. What no mask can reach,
        such as the experts of a mixture, is named as skipped.

    Raises
    ------
    ValueError
        When a mask fits no layer or not its shape (nothing has been changed then), or
        when no weight was changed at all.
    """
    model = layers.inside(model)
    found = layers.linear_layers(model)
    _check(masks, found)
    share = layers.share_of(model, (found[name] for name in masks))
    others = layers.other_matrices(model)
    report = layers.Report("pruned", "weights set to zero", skipped=others, share=share)
    for name, mask in masks.items():
        weight = layers.weight_matrix(found[name]).data
        if removed := int((weight[~mask] != 0).sum()):
            report.changed[name] = removed
            weight.masked_fill_(~mask, 0)
    return report.raise_if_nothing_changed("the masks keep every weight that is not zero yet")


def _check(masks, found):
    shapes = {name: layers.weight_matrix(layer).shape for name, layer in found.items()}
    check_masks(masks, shapes, "linear layer")
    for name in masks:
        if "weight" not in found[name]._parameters:
            raise ValueError(
                f"masks names {name}, whose weight is computed from other tensors at each "
                "reading; make it its own parameter first "
                "(torch.nn.utils.parametrize.remove_parametrizations)"
            )


def gradual_schedule(
    step: int, begin: int, end: int, final_sparsity: float, initial_sparsity: float = 0.0
) -> float:
    """Return the sparsity that a cubic schedule wants at a step: fast first, then gently.

    ``final + (initial - final) * (1 - (step - begin) / (end - begin)) ** 3`` between
    ``begin`` and ``end`` (Zhu & Gupta 2017, arXiv 1710.01878); constant outside.

    Parameters
    ----------
    step, begin, end : int
        Training steps, ``begin < end``.
    final_sparsity, initial_sparsity : float
        Fractions removed, 0 to 1.

    Raises
    ------
    ValueError
        When ``end`` is not behind ``begin``, or a sparsity is outside 0..1.

    Examples
    --------
    >>> [round(gradual_schedule(step, 0, 10, 0.8), 3) for step in (0, 5, 10, 99)]
    [0.0, 0.7, 0.8, 0.8]
    """
    if not begin < end:
        raise ValueError(f"begin is {begin} and end is {end}; begin < end is wanted")
    _check_fraction("final_sparsity", final_sparsity)
    _check_fraction("initial_sparsity", initial_sparsity)
    left = 1 - min(max((step - begin) / (end - begin), 0), 1)
    return final_sparsity + (initial_sparsity - final_sparsity) * left**3


def _check_fraction(name, value):
    if not 0 <= value <= 1:
        raise ValueError(f"{name} is {value}; a fraction between 0 and 1 is wanted")


@contextmanager
def hold_masks(
    model: nn.Module, masks: dict[str, torch.Tensor] | None = None
) -> Iterator[dict[str, torch.Tensor]]:
    """Keep pruned weights at zero while the model trains, as a ``with`` block.

    Their gradients are set to zero, so that they count neither in the gradient's norm nor in
    an optimizer's moments; and after each step of any ``torch.optim`` optimizer the
    weights are, too, whatever momentum was left over.

    Parameters
    ----------
    model : nn.Module
        Its weights outside the masks are zero from the start of the block to its end.
    masks : dict of str to Tensor of bool, optional
        By layer, shape (outputs, inputs), True = keep. Looked at anew at each step: a
        gradual schedule updates the dict. Without it: what is zero now stays so, in a layer
        that merely starts at zero, too.

    Yields
    ------
    dict of str to Tensor of bool
        The masks that are held.

    Raises
    ------
    ValueError
        When a mask fits no layer or not its shape, or when ``masks`` is left out and no
        weight is zero.

    Examples
    --------
    >>> model = nn.Sequential(nn.Linear(4, 2))
    >>> report = prune_(model, {"0": torch.eye(4, dtype=torch.bool)[:2]})
    >>> optimizer = torch.optim.AdamW(model.parameters())
    >>> with hold_masks(model):
    ...     model(torch.ones(1, 4)).sum().backward()
    ...     _ = optimizer.step()
    >>> int((model[0].weight != 0).sum())
    2
    """
    model = layers.inside(model)
    found = layers.linear_layers(model)
    masks = _zeros_now(found) if masks is None else masks
    handles = [_hold_gradient(name, layer, masks) for name, layer in found.items()]

    @torch.no_grad()
    def set_to_zero(*_):
        _check(masks, found)
        for name, mask in masks.items():
            layers.weight_matrix(found[name]).masked_fill_(~mask, 0)

    # train() makes its optimizer itself: the hook stands on all that torch.optim has.
    handles.append(register_optimizer_step_post_hook(set_to_zero))
    try:
        set_to_zero()
        yield masks
        set_to_zero()
    finally:
        for handle in filter(None, handles):
            handle.remove()


def _zeros_now(found):
    masks = {name: layers.weight_matrix(layer).detach() != 0 for name, layer in found.items()}
    if all(mask.all() for mask in masks.values()):
        raise ValueError("masks is left out and no weight of the model is zero; prune_ it first")
    return masks


def _hold_gradient(name, layer, masks):
    def hold(gradient):
        if name not in masks:
            return gradient
        mask = masks[name].T if layers.is_conv1d(layer) else masks[name]
        return gradient.masked_fill(~mask, 0)

    return layer.weight.register_hook(hold) if layer.weight.requires_grad else None
