"""Adapters in a model: put them in, switch between them, merge one."""

import re
from collections.abc import Sequence

import torch
from torch import nn

from lightcourse import layers, pretrained
from lightcourse.lora.layer import LoRALinear, innermost, plain_names, updates


def add_lora_(
    model: nn.Module,
    rank: int = 8,
    alpha: float = 16.0,
    targets: str | Sequence[str] | None = None,
    adapter: str = "default",
) -> layers.Report:
    r"""Freeze a model and put a trainable low-rank update beside its linear layers.

    A model may carry several adapters, by name. The one that was added last is used and
    trained; :func:`set_adapter_` switches.

    Parameters
    ----------
    model : nn.Module
        Changed in place: afterwards nothing but the new updates is trainable. Set
        ``requires_grad`` again on whatever else shall learn, such as a new head. Layers
        that store integers take an update as well: it stays in float32 beside them.
    rank, alpha : int, float
        See :class:`LoRALinear`.
    targets : str or sequence of str, optional
        Which linear layers; all of them without it. A sequence holds ends of names, whole
        parts of them: ``["query", "layer.0.attention.self.value"]``. A str is a regular
        expression that must match a whole name: ``r".*\.layer\.[0-2]\..*"``.
    adapter : str
        The name of the new adapter.

    Returns
    -------
    Report
        For each adapted layer the parameters added. A layer that shares its weight is
        skipped and named: merging its update would change the other owner too.

    Raises
    ------
    ValueError
        When ``rank`` is below 1 or ``alpha`` not positive, the model has an adapter of
        that name, or one of ``targets`` fits no layer (nothing is changed then).
    """
    model = layers.inside(model)
    chosen = _choose(model, targets)
    shared = {
        name: f"shares its weight with {o}" for name, o in layers.shared_layers(model).items()
    }
    report = put_beside(model, chosen, rank, alpha, adapter)
    report.skipped |= shared
    return report


def may_adapt(model: nn.Module) -> dict[str, nn.Module]:
    """Return the layers LoRA fits on: linear ones, and those that store integers.

    Where a layer has an update already, the outermost shell is returned.
    """
    plain = plain_names(model)
    quantized = [name for name, m in model.named_modules() if layers.stores_integers(m)]
    names = [plain[name] for name in [*layers.linear_layers(model), *quantized]]
    shared = {plain[name] for name in layers.shared_layers(model)}
    return {name: model.get_submodule(name) for name in names if name and name not in shared}


def _choose(model, targets):
    candidates = may_adapt(model)
    if targets is None:
        return candidates
    chosen = set()
    for target in [targets] if isinstance(targets, str) else targets:
        fitting = {name for name in candidates if _fits(name, target, isinstance(targets, str))}
        if not fitting:
            raise ValueError(_no_layer(model, target, targets, candidates))
        chosen |= fitting
    return {name: layer for name, layer in candidates.items() if name in chosen}


def _fits(name, target, is_pattern):
    if not is_pattern:
        return f".{name}".endswith(f".{target}")
    try:
        return bool(re.fullmatch(target, name))
    except re.error as error:
        raise ValueError(f"targets is {target!r}, no regular expression: {error}") from error


def _no_layer(model, target, targets, candidates):
    known = sorted({name.rpartition(".")[2] for name in candidates})
    tied = layers.shared_layers(model)
    shared = [f"{name} shares its weight with {tied[name]}" for name in tied if target in name]
    kind = "a regular expression for whole names; " if isinstance(targets, str) else ""
    return "; ".join(
        [
            f"nothing was adapted: targets is {targets!r}, but {target!r} fits no layer",
            f"{kind}the model's linear layers are called {known}",
            *shared,
        ]
    )


def put_beside(
    model: nn.Module, chosen: dict[str, nn.Module], rank: int, alpha: float, adapter: str
) -> layers.Report:
    """Put an update beside each of the chosen layers, and train nothing else."""
    if not adapter:
        raise ValueError("adapter is empty; a name is wanted")
    if adapter in adapters(model):
        raise ValueError(
            f"the model has an adapter {adapter!r} already; give the new one another name, "
            "or merge_lora_ the old one first"
        )
    share = layers.share_of(model, map(innermost, chosen.values()))
    others = layers.other_matrices(model)
    report = layers.Report("adapted", "parameters added", skipped=others, share=share)
    new = {name: LoRALinear(layer, rank, alpha, adapter) for name, layer in chosen.items()}
    for name, layer in new.items():
        report.changed[name] = layer.lora_a.numel() + layer.lora_b.numel()
    report.raise_if_nothing_changed(
        f"{type(model).__name__} has no linear layer in it, or targets is empty"
    )
    model.requires_grad_(False)
    for layer in updates(model).values():
        layer.active = False
    for name, layer in new.items():
        layers.replace_(model, name, layer)
    pretrained.watch_(model)
    return report


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
    check_adapter(model, adapter)
    report = layers.Report("switched", "parameters in use")
    plain = plain_names(model)
    for name, layer in updates(model).items():
        layer.active = layer.adapter == adapter
        used = 0
        for parameter in (layer.lora_a, layer.lora_b):
            parameter.requires_grad_(layer.active)
            used += layer.active * parameter.numel()
        report.changed[plain[name]] = report.changed.get(plain[name], 0) + used
    return report.raise_if_nothing_changed("the model has no adapter")


def check_adapter(model: nn.Module, adapter: str | None) -> None:
    """Raise ``ValueError`` when a model has no adapter of that name."""
    known = list(adapters(model))
    if adapter is not None and adapter not in known:
        raise ValueError(f"adapter is {adapter!r}; one of {known} is wanted")


def the_adapter(model: nn.Module, adapter: str | None) -> str | None:
    """Return ``adapter``, or without it the model's only one (None where there is none)."""
    check_adapter(model, adapter)
    known = list(adapters(model))
    if adapter is None and len(known) > 1:
        raise ValueError(f"the model has the adapters {known}; name the one that is meant")
    return adapter or next(iter(known), None)


@torch.no_grad()
def merge_lora_(model: nn.Module, adapter: str | None = None) -> layers.Report:
    """Add an adapter's updates into the matrices and take its layers away, in place.

    Afterwards the layers have their old structure and speed, and compute what they did
    with the updates beside them, up to rounding. Zeros of a pruned matrix are refilled.
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
        When there is nothing to merge, no or more than one adapter is meant, or a base
        layer stores integers, into which an update cannot be added without rounding it
        away, shares its weight, or does not simply multiply by it (nothing is changed then).
    """
    model = layers.inside(model)
    found = updates(model, the_adapter(model, adapter))
    plain = plain_names(model)
    require_matrices({plain[name]: layer for name, layer in found.items()})
    _require_own(model, found)
    report = layers.Report("merged", "parameters folded in")
    for name, layer in found.items():
        add_to_matrix(layer, layer.delta())
        layers.replace_(model, name, layer.base)
        report.changed[plain[name]] = layer.lora_a.numel() + layer.lora_b.numel()
    return report.raise_if_nothing_changed("the model has no LoRA layer")


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


def add_to_matrix(layer: LoRALinear, change: torch.Tensor) -> None:
    """Add to the matrix below a layer, rounding once where it is of low precision."""
    weight = layers.weight_matrix(innermost(layer))
    weight.copy_(weight + change)
