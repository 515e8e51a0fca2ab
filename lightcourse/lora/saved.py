"""Adapters as files: what was trained is stored, and nothing else."""

import os
from pathlib import Path

import torch
from torch import nn

from lightcourse import files, layers
from lightcourse.checkpoints import another_model
from lightcourse.lora import peft_format
from lightcourse.lora.adding import put_around
from lightcourse.lora.dora import DoRALinear
from lightcourse.lora.ia3 import IA3Linear
from lightcourse.lora.layer import LoRALinear
from lightcourse.lora.merging import require_finite, require_matrices
from lightcourse.lora.peft_format import Adapter
from lightcourse.lora.shell import innermost, own_parameters, plain_names, shape, updates
from lightcourse.lora.switching import the_adapter
from lightcourse.lora.targets import may_adapt

KINDS = {LoRALinear: "LoRA", DoRALinear: "DoRA", IA3Linear: "IA3"}


def save_lora(model: nn.Module, path: str | os.PathLike, adapter: str | None = None) -> Path:
    """Write an adapter, and whatever else is trainable (a new head), as peft does.

    ``peft.PeftModel.from_pretrained(model, path)`` loads it, and so do the engines that read
    peft's files.

    Parameters
    ----------
    model : nn.Module
        With an adapter; unchanged.
    path : path
        A folder, made where it is missing: ``adapter_config.json`` tells rank, alpha and the
        names of the layers, ``adapter_model.safetensors`` holds the numbers.
    adapter : str, optional
        Which one; the only one without it.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    ValueError
        When the model has no such adapter, or several and none is named, or it holds NaN; when
        ``path`` is a file; when a parameter of an adapted layer itself is trainable, for which
        the format has no place.
    """
    model, path = layers.plainly_named(model), files.checked_folder(path)
    adapter = the_adapter(model, adapter)
    plain = plain_names(model)
    found = {plain[name]: layer for name, layer in updates(model, adapter).items()}
    if not found:
        raise ValueError("model has no LoRA layer; add_lora_ makes them")
    require_finite(found)
    tensors = _trained_modules(model, found)
    for name, shell in found.items():
        tensors |= {f"{name}.{own}": value for own, value in own_parameters(shell).items()}
    return peft_format.write(_described(adapter, found, tensors), path)


def _described(adapter, found, tensors):
    """Return an adapter of such shells, with what its configuration tells."""
    first = next(iter(found.values()))
    kind = KINDS[type(first)]
    turned = any(layers.is_conv1d(innermost(shell)) for shell in found.values())
    if kind == "IA3":
        inputs = tuple(name for name, shell in found.items() if shell.side == "inputs")
        return Adapter(adapter, 0, 0.0, tensors, turned, kind, inputs)
    return Adapter(adapter, first.rank, float(first.alpha), tensors, turned, kind)


def _trained_modules(model, adapted):
    """Return all parameters of the modules in which one is trainable: peft saves whole ones."""
    others = _others(model)
    modules = {name.rpartition(".")[0] for name, p in others.items() if p.requires_grad}
    if both := sorted(modules & set(adapted)):
        raise ValueError(
            f"{both[0]} has an update and trains parameters of its own, which peft's format "
            "cannot hold; freeze those, or save the whole model"
        )
    return {name: p for name, p in others.items() if name.rpartition(".")[0] in modules}


def _others(model):
    """Return the parameters that are no part of an update, by plain name."""
    plain = plain_names(model)
    inner = {id(p) for shell in updates(model).values() for p in own_parameters(shell).values()}
    found = {}
    for name, parameter in model.named_parameters():
        module, _, own = name.rpartition(".")
        if id(parameter) not in inner:
            found[f"{plain[module]}.{own}".lstrip(".")] = parameter
    return found


@torch.no_grad()
def load_lora_(
    model: nn.Module, path: str | os.PathLike, adapter: str | None = None
) -> layers.Report:
    """Put an adapter that :func:`save_lora` or peft wrote beside a model's layers.

    Parameters
    ----------
    model : nn.Module
        Changed as by :func:`add_lora_`; the other parameters in the file, such as a head,
        replace the model's own and are trainable. Its matrices may be quantized ones.
    path : path
        A folder in peft's format; or one file, as earlier versions of this library wrote.
    adapter : str, optional
        Another name for it than the file's.

    Returns
    -------
    Report
        For each adapted layer the parameters added.

    Raises
    ------
    ValueError
        When there is no adapter, or one of another model (a layer is missing or has another
        shape), or one that needs what ours have not (a rank for each layer) or holds NaN, or
        its name is taken. Nothing is changed then.
    """
    model, stored = layers.plainly_named(model), peft_format.read(path)
    return _put_(model, stored, _fitting_layers(model, stored, path), adapter)


def _put_(model, stored, chosen, adapter=None):
    """Put a stored adapter around the chosen layers, which it fits."""
    adapter = adapter or stored.name
    report = put_around(model, chosen, lambda n, layer: _shell(stored, n, layer, adapter), adapter)
    for name in chosen:
        for own, parameter in own_parameters(model.get_submodule(name)).items():
            parameter.copy_(stored.tensors[f"{name}.{own}"])
    for name, parameter in _others(model).items():
        if name in stored.tensors:
            parameter.requires_grad_().copy_(stored.tensors[name])
    return report


def _shell(stored, name, layer, adapter):
    if stored.kind == "IA3":
        return IA3Linear(layer, "inputs" if name in stored.inputs else "outputs", adapter)
    make = DoRALinear if stored.kind == "DoRA" else LoRALinear
    return make(layer, stored.rank, stored.alpha, adapter)


def _shapes(stored, name, layer):
    """Return the shapes that a stored adapter must have, to fit a layer."""
    outputs, inputs = shape(layer)
    if stored.kind == "IA3":
        return {f"{name}.ia3_l": (inputs if name in stored.inputs else outputs,)}
    wanted = {f"{name}.lora_a": (stored.rank, inputs), f"{name}.lora_b": (outputs, stored.rank)}
    return wanted | ({f"{name}.lora_magnitude": (outputs,)} if stored.kind == "DoRA" else {})


def _fitting_layers(model, stored, path):
    """Return the layers that an adapter's file is for, or raise where it fits not all."""
    candidates, tensors = may_adapt(model), stored.tensors
    wanted = {name: tuple(p.shape) for name, p in _others(model).items() if name in tensors}
    for name in stored.targets:
        if name not in candidates:
            raise another_model(path, f"this one has no linear layer {name}")
        wanted |= _shapes(stored, name, candidates[name])
    for name in sorted(set(tensors) | set(wanted)):
        given = tuple(tensors[name].shape) if name in tensors else "nothing"
        if wanted.get(name) != given:
            need = wanted.get(name, "nothing")
            raise another_model(path, f"{name} is {given} there, {need} is wanted")
    return {name: candidates[name] for name in stored.targets}


@torch.no_grad()
def unmerge_lora_(model: nn.Module, path: str | os.PathLike) -> layers.Report:
    """Take a saved adapter out of the matrices it was merged into, and put it beside them.

    Undoes :func:`merge_lora_`, up to rounding, where the adapter was saved before.

    Parameters
    ----------
    model : nn.Module
        Changed in place, as by :func:`load_lora_`. Its matrices do not tell whether the
        adapter was ever merged into them.
    path : path
        As for :func:`load_lora_`.

    Returns
    -------
    Report
        For each layer the parameters put beside it.

    Raises
    ------
    ValueError
        As :func:`load_lora_`, or where a layer stores integers, or the adapter is no LoRA: a
        matrix does not tell how long DoRA's rows were, nor what IA3 has multiplied by 0.
    """
    model, stored = layers.plainly_named(model), peft_format.read(path)
    if stored.kind != "LoRA":
        raise ValueError(f"{path} holds a {stored.kind}, which cannot be taken out again")
    chosen = _fitting_layers(model, stored, path)
    require_matrices(chosen)
    report = _put_(model, stored, chosen)
    for layer in updates(model, stored.name).values():
        weight = layers.weight_matrix(innermost(layer))
        weight.copy_(weight - layer.delta())
    return report
