"""Norms and who reads them: factors that move from one to the others, and change no answer.

Who reads a norm is not guessed from names: one run of the model is watched.
"""

from collections.abc import Mapping

import torch
from torch import nn
from torch.func import functional_call
from torch.overrides import TorchFunctionMode

from lightcourse import layers


@torch.no_grad()
def norm_readers(model: nn.Module, inputs: Mapping | None = None) -> dict[str, tuple[str, ...]]:
    """Find the norms whose output goes into linear layers and nowhere else.

    In a Llama those before attention and before the feed-forward block. None in a BERT: there
    the norm's output is also added to what follows. None where a reader shares its weight,
    or where a norm's weight is no plain factor (Gemma adds 1 to it).

    Parameters
    ----------
    model : nn.Module
        Runs once, in evaluation mode; unchanged.
    inputs : mapping, optional
        The model's arguments; two tokens without it.

    Returns
    -------
    dict of str to tuple of str
        From a norm's name to those of all its readers.

    Raises
    ------
    ValueError
        When there is no such norm.
    """
    watch = _Watch(model)
    if inputs is None:
        inputs = {"input_ids": torch.tensor([[0, 1]]), "attention_mask": torch.ones(1, 2).long()}
    hooks = watch.hook()
    try:
        with layers.evaluating(model), watch:
            model(**inputs)
    finally:
        for hook in hooks:
            hook.remove()
    if found := watch.found(layers.linear_layers(model).keys() - layers.shared_layers(model)):
        return found
    raise ValueError(
        f"model is a {type(model).__name__} without a norm that only linear layers read, as "
        "there are in Llama and GPT-2; after a norm of BERT its output is added to the rest too"
    )


class _Watch(TorchFunctionMode):
    """Sees each function of torch while a model runs, and which norm's output it was given."""

    def __init__(self, model):
        super().__init__()
        self.readers, self.outputs, self.inside = {}, {}, []
        self.linear = {
            name: module
            for name, module in model.named_modules()
            if isinstance(module, nn.Linear) or layers.is_conv1d(module)
        }
        self.norms = {n: m for n, m in model.named_modules() if _may_be_norm(m)}

    def hook(self):
        """Let linear layers tell when they run, and norms what they return."""
        hooks = []
        for name, layer in self.linear.items():
            hooks.append(layer.register_forward_pre_hook(lambda *_, name=name: self._enter(name)))
            hooks.append(layer.register_forward_hook(lambda *_: self._leave()))
        for name, norm in self.norms.items():
            hooks.append(norm.register_forward_hook(lambda *_, name=name: self._made(name, *_)))
        return hooks

    def _enter(self, name):
        self.inside.append(name)

    def _leave(self):
        self.inside.pop()

    def _made(self, name, norm, inputs, output):
        self.readers.setdefault(name, [])
        self.outputs[id(output)] = name, inputs[0], output  # kept: no other may get this id

    def __torch_function__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor | tuple | list):  # else it asked for a shape, a dtype
            for value in (*args, *(kwargs or {}).values()):
                self._note(value, result)
        return result

    def _note(self, value, result):
        for one in value if isinstance(value, tuple | list) else (value,):
            owner, *_ = self.outputs.get(id(one), (None,))
            tensors = [result] if isinstance(result, torch.Tensor) else result
            if owner and any(isinstance(part, torch.Tensor) for part in tensors):
                self.readers[owner].append(self.inside[-1] if self.inside else None)

    def found(self, own):
        """Return the norms all of whose readers are linear layers with weights of their own."""
        odd = {
            n for n, x, output in self.outputs.values() if not _multiplies(self.norms[n], x, output)
        }
        return {
            norm: tuple(dict.fromkeys(readers))
            for norm, readers in self.readers.items()
            if norm not in odd and readers and all(reader in own for reader in readers)
        }


def _may_be_norm(module):
    own = dict(module.named_parameters())
    return "weight" in own and own.keys() <= {"weight", "bias"} and own["weight"].ndim == 1


def _multiplies(norm, x, output):
    """Tell whether twice the weight and the bias make twice the output."""
    twice = {name: 2 * own for name, own in norm.named_parameters()}
    return torch.allclose(functional_call(norm, twice, (x,)), 2 * output, rtol=1e-3)


@torch.no_grad()
def rescale_(model: nn.Module, norm: str, readers: tuple[str, ...], factors: torch.Tensor) -> None:
    """Divide a norm's output by factors, and multiply its readers' columns by them, in place.

    Parameters
    ----------
    model : nn.Module
    norm, readers
        As :func:`norm_readers` finds them.
    factors : Tensor of shape (width,)
        Not 0.
    """
    divide_outputs_(model.get_submodule(norm), factors)
    for name in readers:
        multiply_inputs_(model.get_submodule(name), factors)


@torch.no_grad()
def divide_outputs_(module: nn.Module, factors: torch.Tensor) -> None:
    """Divide the outputs of a norm or a linear layer by factors, its bias included, in place."""
    weight = module.weight.data
    outputs = layers.weight_matrix(module).data if weight.ndim == 2 else weight
    outputs.div_(factors.to(weight)[:, None] if weight.ndim == 2 else factors.to(weight))
    if getattr(module, "bias", None) is not None:
        module.bias.data.div_(factors.to(weight))


@torch.no_grad()
def multiply_inputs_(layer: nn.Module, factors: torch.Tensor) -> None:
    """Multiply the columns of a linear layer's matrix by factors, in place."""
    layers.weight_matrix(layer).data.mul_(factors.to(layer.weight))
