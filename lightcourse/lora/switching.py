"""Which adapter of a model is in use: for all, for one request, for each row of a batch."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from lightcourse import layers
from lightcourse.lora.shell import own_parameters, plain_names, updates


def adapters(model: nn.Module) -> dict[str, bool]:
    """Return the names of a model's adapters, and for each whether it is in use."""
    return {layer.adapter: layer.active for layer in updates(layers.unwrapped(model)).values()}


def set_adapter_(model: nn.Module, adapter: str | None) -> layers.Report:
    """Switch to one adapter, or to the model without any.

    Parameters
    ----------
    model : nn.Module
        Changed in place: only this adapter's updates are added to the answers, and of all
        adapters only it is trainable.
    adapter : str or None
        A name that :func:`add_lora_` was given; None for the base model alone.

    Returns
    -------
    Report
        For each layer with an update the parameters now in use.

    Raises
    ------
    ValueError
        When the model has no such adapter.
    """
    model = layers.inside(model)
    shells, plain = updates(model), plain_names(model)
    _check_known(adapter, [shell.adapter for shell in shells.values()])
    report = layers.Report("switched", "parameters in use")
    for name, layer in shells.items():
        layer.active = layer.adapter == adapter
        used = 0
        for parameter in own_parameters(layer).values():
            parameter.requires_grad_(layer.active)
            used += layer.active * parameter.numel()
        report.changed[plain[name]] = report.changed.get(plain[name], 0) + used
    return report.raise_if_nothing_changed("the model has no adapter")


@contextmanager
def adapter_rows(model: nn.Module, names: Sequence[str | None]) -> Iterator[nn.Module]:
    """Use an adapter of its own for each row of a batch, within a ``with`` block.

    The base multiplies the whole batch at once, and each adapter its own rows: what a server
    does that answers several customers' requests together.

    Parameters
    ----------
    model : nn.Module
        With adapters of any kind, in any mix. Afterwards it uses those that it used before.
        What it is called with inside the block must have as many rows as there are names.
    names : sequence of str or None
        An adapter for each row; None for the base model alone.

    Yields
    ------
    nn.Module
        The model.

    Raises
    ------
    ValueError
        When a name is unknown or there is none; inside the block, when a batch has another
        number of rows, a layer is given something else than a batch's rows (some mixtures of
        experts), or its weight is read instead (``nn.MultiheadAttention``, Mamba).

    Examples
    --------
    >>> from lightcourse import lora
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 4))
    >>> for name in ("reviews", "sections"):
    ...     report = lora.add_lora_(model, rank=2, adapter=name)
    >>> with adapter_rows(model, ["sections", None, "reviews"]):
    ...     model(torch.ones(3, 4)).shape
    torch.Size([3, 4])
    """
    inner = layers.inside(model)
    if isinstance(names, str) or not len(names):
        raise ValueError(f"names is {names!r}; a sequence, one for each row, is wanted")
    shells = updates(inner)
    for name in names:
        _check_known(name, [shell.adapter for shell in shells.values()])
    before = {name: shell.rows for name, shell in shells.items()}
    try:
        for shell in shells.values():
            shell.rows = torch.tensor([name == shell.adapter for name in names])
        yield model
    finally:
        for name, shell in shells.items():
            shell.rows = before[name]


def check_adapter(model: nn.Module, adapter: str | None) -> None:
    """Raise ``ValueError`` when a model has no adapter of that name."""
    _check_known(adapter, list(adapters(model)))


def _check_known(adapter, known):
    if adapter is not None and adapter not in known:
        raise ValueError(f"adapter is {adapter!r}; one of {list(dict.fromkeys(known))} is wanted")


def the_adapter(model: nn.Module, adapter: str | None) -> str | None:
    """Return ``adapter``, or without it the model's only one (None where there is none)."""
    check_adapter(model, adapter)
    known = list(adapters(model))
    if adapter is None and len(known) > 1:
        raise ValueError(f"the model has the adapters {known}; name the one that is meant")
    return adapter or next(iter(known), None)
