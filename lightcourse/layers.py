"""The linear layers of any Hugging Face model, and the report of whoever changes them.

GPT-2 keeps its weights in ``transformers.pytorch_utils.Conv1D``, which is no ``nn.Linear``
and stores the matrix transposed: code that looks for ``nn.Linear`` alone finds nothing
there. Every in-place verb of the library goes through this module instead.
"""

import copy
import math
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import nn

from lightcourse.integers import IntegerMatrix, integer_matrices

Targets = str | Sequence[str] | None
WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel)


@dataclass
class Report:
    """What an in-place verb changed, layer by layer, and what it left alone and why.

    Parameters
    ----------
    verb : str
        In the past: "pruned", "quantized".
    unit : str
        What the numbers of ``changed`` count.
    changed : dict of str to int
        From a layer's name to a count.
    skipped : dict of str to str
        From the name of a layer, or of a matrix that no layer holds, to the reason.
    share : float, optional
        Which share of all the model's weights the changed matrices are.
    notes : list of str
        What else has changed about the model.
    """

    verb: str
    unit: str
    changed: dict[str, int] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    share: float | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        """The sum over all changed layers."""
        return sum(self.changed.values())

    def raise_if_nothing_changed(self, hint: str) -> "Report":
        """Return the report, or raise ``ValueError`` where nothing was changed."""
        if self.changed:
            return self
        names = {}
        for name, why in self.skipped.items():
            names.setdefault(why, []).append(name)
        more = {why: f" and {len(same) - 1} more" * (len(same) > 1) for why, same in names.items()}
        reasons = "; ".join(f"{same[0]}{more[why]}: {why}" for why, same in names.items())
        raise ValueError(f"nothing was {self.verb}: {hint}" + (f" ({reasons})" * bool(reasons)))

    def __str__(self):
        layers = "layer" if len(self.changed) == 1 else "layers"
        text = f"{self.verb} {len(self.changed)} {layers}: {self.total:,} {self.unit}"
        if self.share is not None:
            text += f" (these layers hold {self.share:.0%} of the model's weights)"
        for name, why in self.skipped.items():
            text += f"\n  skipped {name}: {why}"
        return "\n  ".join([text, *self.notes])

    __repr__ = __str__


def is_conv1d(module: nn.Module) -> bool:
    """Tell whether ``module`` is GPT-2's transposed linear layer."""
    return type(module).__name__ == "Conv1D" and hasattr(module, "nf")


def stores_integers(module: nn.Module) -> bool:
    """Tell whether ``module`` is a linear layer that stores integers."""
    return isinstance(module, IntegerMatrix) and hasattr(module, "in_features")  # no table


def integer_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Return the linear layers that store integers, by name; those that share them once.

    As with floats, a layer whose integers are an embedding table's too is left out.
    """
    holders = integer_matrices(model)
    seen = {id(m.qweight) for m in holders.values() if not stores_integers(m)}
    found = {}
    for name, module in holders.items():
        if id(module.qweight) not in seen:
            seen.add(id(module.qweight))
            found[name] = module
    return found


def linear_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Return every layer that multiplies by a float matrix of its own, by name.

    Parameters
    ----------
    model : nn.Module
        Any torch or Hugging Face model.

    Returns
    -------
    dict of str to nn.Module
        ``nn.Linear`` and ``Conv1D`` layers in the model's order. A weight that several of
        them share stands there once, by its first layer; one that belongs to another module
        too (an output layer tied to the embedding table) not at all: see
        :func:`tied_layers`.
    """
    tied = tied_layers(model)
    return {name: layer for name, layer in _all_linear(model).items() if name not in tied}


def tied_layers(model: nn.Module) -> dict[str, str]:
    """Return the linear layers whose weight counts as another's, with the other's name.

    Of layers that share among themselves, all but the first. Of those that share with another
    module, such as an embedding table, each.
    """
    linear, tied = _all_linear(model), {}
    for names in weight_owners(model):
        owner = next((name for name in names if name not in linear), names[0])
        tied |= {name: owner for name in names if name in linear and name != owner}
    return tied


def shared_layers(model: nn.Module) -> dict[str, str]:
    """Return every linear layer that does not own its weight alone, with another owner's name.

    What changes a weight's shape, or one layer's weight and not the other's, must leave these.
    """
    linear = _all_linear(model)
    return {
        name: next(other for other in names if other != name)
        for names in weight_owners(model)
        for name in names
        if name in linear and len(names) > 1
    }


def weight_owners(model: nn.Module) -> list[list[str]]:
    """Return for each parameter called ``weight`` the names of all modules that own it."""
    owners = {}
    for name, module in model.named_modules():
        weight = getattr(module, "_parameters", {}).get("weight")
        if weight is not None:
            owners.setdefault(id(weight), []).append(name)
    return list(owners.values())


def embedding_tables(model: nn.Module) -> dict[str, nn.Embedding]:
    """Return every ``nn.Embedding`` by name, in the model's order; subclasses are left out.

    A subclass looks rows up in a way of its own: shifted, scaled. So does a table whose
    rows are shrunk to ``max_norm`` whenever they are read.
    """
    return {
        name: module
        for name, module in model.named_modules()
        if type(module) is nn.Embedding and module.max_norm is None
    }


def other_matrices(model: nn.Module) -> dict[str, str]:
    """Return the matrices that no linear layer and no table holds, and what each one is.

    Such as the experts of a mixture, which are one tensor of three dimensions, a router, the
    fused projection of ``nn.MultiheadAttention``, a convolution. No verb reaches them: each
    reports them as left. A LoRA's two thin matrices are no part of the model, and not counted.
    """
    owned = {id(layer.weight) for layer in _all_linear(model).values()}
    owned |= {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    return {
        f"{name}.{own}".lstrip("."): f"{tuple(parameter.shape)} of a {type(module).__name__}, "
        "which is no linear layer"
        for name, module in model.named_modules()
        for own, parameter in module.named_parameters(recurse=False)
        if parameter.ndim > 1 and id(parameter) not in owned and not hasattr(module, "lora_a")
    }


def share_of(model: nn.Module, chosen: Iterable[nn.Module]) -> float:
    """Return which share of all weights of ``model`` the matrices of the chosen layers are."""
    sizes = {id(parameter): parameter.numel() for parameter in model.parameters()}
    for module in integer_matrices(model).values():
        sizes[id(module.qweight)] = math.prod(module.shape)
    held = {id(layer._buffers.get("qweight", layer._parameters.get("weight"))) for layer in chosen}
    return sum(sizes[one] for one in held) / max(sum(sizes.values()), 1)


def shared_tensors(state: dict[str, torch.Tensor]) -> dict[str, str]:
    """Return the tensors of a ``state_dict`` that stand in it before, with their first name."""
    first, shared = {}, {}
    for name, tensor in state.items():
        somewhere = tensor.numel() and not tensor.is_meta
        place = (tensor.data_ptr(), tensor.shape, tensor.stride()) if somewhere else name
        owner = first.setdefault(place, name)
        if owner != name:
            shared[name] = owner
    return shared


def _all_linear(model):
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) or is_conv1d(module)
    }


def has_linear(module: nn.Module) -> bool:
    """Tell whether there is a linear layer in a module, one that stores integers included."""
    return bool(_all_linear(module) or integer_matrices(module))


@torch.no_grad()
def multiplies_plainly(layer: nn.Module) -> bool:
    """Tell whether a linear layer computes ``x @ weight.T + bias`` and nothing else.

    A subclass with a ``forward`` of its own is tried: Falcon's does just that. One on ``meta`` is
    tried with a small matrix in place of its own.
    """
    own = "forward" in vars(layer) or not is_conv1d(layer)
    if not own or (type(layer).forward is nn.Linear.forward and "forward" not in vars(layer)):
        return True
    layer = _small_twin(layer) if layer.weight.is_meta else layer
    weight = weight_matrix(layer)
    x = torch.linspace(-1, 1, 2 * weight.shape[1]).view(1, 2, -1).to(weight)
    wanted = nn.functional.linear(x, weight, layer.bias)
    try:
        apart = (layer.forward(x) - wanted).norm()
    except Exception:  # whatever else it wants, it is not x alone
        return False
    return bool(apart <= torch.finfo(weight.dtype).eps ** 0.5 * wanted.norm())


def _small_twin(layer):
    """Return a layer of the same class with values, and of another shape."""
    twin = copy.copy(layer)
    weight = torch.linspace(-1, 1, 15).cos().view(3, 5)
    twin._parameters = {"weight": nn.Parameter(weight), "bias": None}
    if layer.bias is not None:
        twin._parameters["bias"] = nn.Parameter(weight[:, 0].clone())
    return twin


def fits_target(name: str, target: str, is_pattern: bool, argument: str = "targets") -> bool:
    """Tell whether a layer's name is what a target means: a pattern, or the end of names.

    Raises
    ------
    ValueError
        When it is no regular expression; ``argument`` is its name there.
    """
    if not is_pattern:
        return f".{name}".endswith(f".{target}")
    try:
        return bool(re.fullmatch(target, name))
    except re.error as error:
        raise ValueError(f"{argument} is {target!r}, no regular expression: {error}") from error


def targeted(names: Iterable[str], targets: Targets) -> list[str]:
    """Return those of some names that ``targets`` means; all of them without targets.

    Raises
    ------
    ValueError
        When one of the targets fits no name.
    """
    names, is_pattern = list(names), isinstance(targets, str)
    if targets is None:
        return names
    listed = [targets] if is_pattern else list(targets)
    fitting = {one: {n for n in names if fits_target(n, one, is_pattern)} for one in listed}
    for one, found in fitting.items():
        if not found:
            known = sorted({name.rpartition(".")[2] for name in names})
            raise ValueError(
                f"targets is {targets!r}, but {one!r} fits no layer; the layers are called {known}"
            )
    return [name for name in names if any(name in found for found in fitting.values())]


def weight_matrix(layer: nn.Module) -> torch.Tensor:
    """Return a layer's weight as a view of shape (outputs, inputs), whatever its class."""
    return layer.weight.T if is_conv1d(layer) else layer.weight


def replace_(model: nn.Module, name: str, new: nn.Module) -> None:
    """Put ``new`` where the layer called ``name`` stands in ``model``, under all its names.

    It takes over whether it is in training mode.

    Raises
    ------
    ValueError
        When the model is that layer itself: then there is nothing to put ``new`` into.
    """
    if not name:
        kind = type(model).__name__
        raise ValueError(f"model is itself the {kind} to replace; nn.Sequential(model) is wanted")
    old = model.get_submodule(name)
    new.train(old.training)
    everywhere = list(model.named_modules(remove_duplicate=False))
    for found in [found for found, module in everywhere if module is old]:
        parent, _, child = found.rpartition(".")
        setattr(model.get_submodule(parent), child, new)


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the model within the wrappers of ``torch.compile`` and of data parallelism."""
    while _is_wrapper(model):
        model = model._orig_mod if hasattr(model, "_orig_mod") else model.module
    return model


def _is_wrapper(module):
    return isinstance(module, WRAPPERS) or hasattr(module, "_orig_mod")


def inside(model: nn.Module) -> nn.Module:
    """Return the :func:`unwrapped` model, of which every tensor has values.

    So every verb, report and file has the model's own names, without ``_orig_mod.`` or
    ``module.`` before them.

    Raises
    ------
    ValueError
        When ``model`` is no module, or one of its tensors lies on ``meta``.
    """
    if not isinstance(model, nn.Module):
        order = "; the path is the second argument" * isinstance(model, str | os.PathLike)
        raise ValueError(f"model is a {type(model).__name__}; a torch module is wanted{order}")
    model = unwrapped(model)
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if tensor.is_meta:
            raise ValueError(
                f"model holds {name} on the device meta: a shape without values; load all of its "
                "weights first (from_pretrained without device_map, or to_empty(device='cpu') "
                "and then load_state_dict)"
            )
    return model


def plainly_named(model: nn.Module) -> nn.Module:
    """Return the model :func:`inside`, whose names all files use.

    Raises
    ------
    ValueError
        As :func:`inside`, or when a part is wrapped by itself, with a name of its own.
    """
    model = inside(model)
    for name, module in model.named_modules():
        if _is_wrapper(module):
            raise ValueError(
                f"model has a wrapper around its part {name!r}, whose names no other model has; "
                "its method compile(), in place of torch.compile(…), keeps the plain ones"
            )
    return model


@contextmanager
def evaluating(model: nn.Module) -> Iterator[nn.Module]:
    """Put a model into evaluation mode, and afterwards each module back into its own mode."""
    before = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield model
    finally:
        for module, training in before:
            module.training = training


@contextmanager
def differentiable(weights: Iterable[nn.Parameter]) -> Iterator[None]:
    """Let gradients reach some weights, frozen ones too, and no longer than a ``with`` block."""
    before = [(weight, weight.requires_grad) for weight in weights]
    try:
        with torch.enable_grad():
            for weight, _ in before:
                weight.requires_grad_(True)
            yield
    finally:
        for weight, required in before:
            weight.requires_grad_(required)
