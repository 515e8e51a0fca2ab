"""Parts that models have in common, read from modules, or refused by name."""

from dataclasses import dataclass

import numpy as np
from torch import nn

from lightcourse.layers import stores_integers

ACTIVATIONS = {
    "silu": "silu",
    "gelu": "gelu_erf",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
}


@dataclass(frozen=True)
class Norm:
    """A norm: RMSNorm where there is no bias, else LayerNorm."""

    weight: np.ndarray
    bias: np.ndarray | None
    epsilon: float


def check_bare(model: nn.Module) -> None:
    """Raise where something hangs on a module that the cores would not see."""
    for name, module in model.named_modules():
        hooks = "_forward_hooks", "_forward_pre_hooks"
        if any(getattr(module, kind) for kind in hooks) or "forward" in vars(module):
            raise ValueError(f"{name} has a hook or a forward of its own; neither is wanted")


def check(module: nn.Module, kind: str, name: str) -> nn.Module:
    """Return a module if it is of just this class; what stands in its place may compute more."""
    if type(module).__name__ != kind:
        raise ValueError(f"{name} is a {type(module).__name__}; {kind} is wanted")
    return module


def product(model: nn.Module, name: str) -> nn.Module:
    """Return a layer that multiplies integers, by its name."""
    layer = model.get_submodule(name)
    if not stores_integers(layer) or not layer.multiplies_integers:
        raise ValueError(
            f"{name} is a {type(layer).__name__} that multiplies floats; a layer of "
            "quantize_(model, ..., activations=8) is wanted"
            + ", for a tied output layer with embeddings=8"
            * (name == "lm_head")
        )
    return layer


def norm(model: nn.Module, name: str, kind: str) -> Norm:
    """Return the norm of this name, which must be of this class."""
    found = check(model.get_submodule(name), kind, name)
    bias = getattr(found, "bias", None)
    epsilon = found.eps if hasattr(found, "eps") else found.variance_epsilon
    return Norm(floats(found.weight), None if bias is None else floats(bias), epsilon)


def floats(tensor) -> np.ndarray:
    """Return a tensor's numbers as float32."""
    return np.ascontiguousarray(tensor.detach().float().numpy())


def check_config(config, name: str, wanted: tuple) -> None:
    """Raise where a setting of the model is none of those that are wanted."""
    found = getattr(config, name, wanted[0])
    if found not in wanted:
        raise ValueError(f"the model's {name} is {found!r}; {wanted[0]!r} is wanted")
