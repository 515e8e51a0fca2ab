"""Which layers of a model an adapter is put around."""

from torch import nn

from lightcourse import layers
from lightcourse.lora.shell import plain_names


def may_adapt(model: nn.Module) -> dict[str, nn.Module]:
    """Return the layers adapters fit on: linear ones, and those that store integers.

    Of floats that belong to a table too there is none. Where a layer has an adapter already, the
    outermost shell is returned.
    """
    plain, linear = plain_names(model), layers.linear_layers(model)
    linear |= {name: one for name, one in layers.tied_layers(model).items() if one in linear}
    modules = list(model.named_modules())
    floats = [name for name, _ in modules if name in linear]
    quantized = [name for name, m in modules if layers.stores_integers(m)]
    names = [plain[name] for name in [*floats, *quantized]]
    return {name: model.get_submodule(name) for name in names if name}


def choose(
    model: nn.Module, targets: layers.Targets, argument: str = "targets"
) -> dict[str, nn.Module]:
    """Return the layers that targets name; all of them without targets.

    Raises
    ------
    ValueError
        When one of the targets fits no layer.
    """
    candidates = may_adapt(model)
    if targets is None:
        return candidates
    chosen = set()
    for target in [targets] if isinstance(targets, str) else targets:
        fitting = {
            n
            for n in candidates
            if layers.fits_target(n, target, isinstance(targets, str), argument)
        }
        if not fitting:
            raise ValueError(_no_layer(model, target, targets, candidates, argument))
        chosen |= fitting
    return {name: layer for name, layer in candidates.items() if name in chosen}


def _no_layer(model, target, targets, candidates, argument):
    known = sorted({name.rpartition(".")[2] for name in candidates})
    tied = layers.shared_layers(model)
    shared = [f"{name} shares its weight with {tied[name]}" for name in tied if target in name]
    kind = "a regular expression for whole names; " if isinstance(targets, str) else ""
    return "; ".join(
        [
            f"nothing was adapted: {argument} is {targets!r}, but {target!r} fits no layer",
            f"{kind}the model's linear layers are called {known}",
            *shared,
        ]
    )
