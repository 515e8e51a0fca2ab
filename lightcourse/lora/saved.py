"""Adapters as files: what was trained is stored, and nothing else."""

import json
import os

import torch
from torch import nn

from lightcourse import files, layers
from lightcourse.lora import verbs
from lightcourse.lora.layer import plain_names, shape, updates


def save_lora(model: nn.Module, path: str | os.PathLike, adapter: str | None = None) -> None:
    """Write an adapter, and whatever else is trainable (a new head), to a safetensors file.

    Parameters
    ----------
    model : nn.Module
        With an adapter; unchanged.
    path : path
        Usually ends in ``.safetensors``. Its header tells the adapter's name, rank, alpha
        and targets (the names of its layers).
    adapter : str, optional
        Which one; the only one without it.

    Raises
    ------
    ValueError
        When the model has no such adapter, or several and none is named.
    """
    adapter = verbs.the_adapter(model, adapter)
    plain = plain_names(model)
    found = {plain[name]: layer for name, layer in updates(model, adapter).items()}
    if not found:
        raise ValueError("model has no LoRA layer; add_lora_ makes them")
    tensors = {f"{name}.lora_a": layer.lora_a for name, layer in found.items()}
    tensors |= {f"{name}.lora_b": layer.lora_b for name, layer in found.items()}
    tensors |= {name: p for name, p in _others(model).items() if p.requires_grad}
    layer = next(iter(found.values()))
    header = {"adapter": adapter, "rank": str(layer.rank), "alpha": str(float(layer.alpha))}
    files.save_tensors(path, tensors, header | {"targets": json.dumps(list(found))})


def _others(model):
    """Return the parameters that are no part of an update, by plain name."""
    plain = plain_names(model)
    inner = {id(p) for layer in updates(model).values() for p in (layer.lora_a, layer.lora_b)}
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
    """Put an adapter that :func:`save_lora` wrote beside a model's layers.

    Parameters
    ----------
    model : nn.Module
        Changed as by :func:`add_lora_`; the other parameters in the file, such as a head,
        replace the model's own and are trainable. Its matrices may be quantized ones.
    path : path
    adapter : str, optional
        Another name for it than the file's.

    Returns
    -------
    Report
        For each adapted layer the parameters added.

    Raises
    ------
    ValueError
        When the file holds no adapter, or one of another model (a layer is missing or has
        another shape), or its name is taken. Nothing is changed then.
    """
    tensors, header = _read(path)
    chosen = _fitting_layers(model, tensors, header, path)
    rank, alpha = int(header["rank"]), float(header["alpha"])
    report = verbs.put_beside(model, chosen, rank, alpha, adapter or header["adapter"])
    for name in chosen:
        layer = model.get_submodule(name)
        layer.lora_a.copy_(tensors[f"{name}.lora_a"])
        layer.lora_b.copy_(tensors[f"{name}.lora_b"])
    for name, parameter in _others(model).items():
        if name in tensors:
            parameter.requires_grad_().copy_(tensors[name])
    return report


def _read(path):
    tensors, header = files.load_tensors(path)
    if not {"adapter", "rank", "alpha", "targets"} <= set(header):
        raise ValueError(f"{os.fspath(path)} holds no adapter; a file of save_lora is wanted")
    return tensors, header


def _fitting_layers(model, tensors, header, path):
    """Return the layers that an adapter's file is for, or raise where it fits not all."""
    candidates = verbs.may_adapt(model)
    rank, names = int(header["rank"]), json.loads(header["targets"])
    wanted = {name: tuple(p.shape) for name, p in _others(model).items() if name in tensors}
    for name in names:
        if name not in candidates:
            raise ValueError(_another(path, f"this one has no linear layer {name}"))
        outputs, inputs = shape(candidates[name])
        wanted |= {f"{name}.lora_a": (rank, inputs), f"{name}.lora_b": (outputs, rank)}
    for name in sorted(set(tensors) | set(wanted)):
        given = tuple(tensors[name].shape) if name in tensors else "nothing"
        if wanted.get(name) != given:
            need = wanted.get(name, "nothing")
            raise ValueError(_another(path, f"{name} is {given} there, {need} is wanted"))
    return {name: candidates[name] for name in names}


def _another(path, why):
    return f"{os.fspath(path)} is an adapter of another model: {why}"


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
        A file of :func:`save_lora`.

    Returns
    -------
    Report
        For each layer the parameters put beside it.

    Raises
    ------
    ValueError
        As :func:`load_lora_`, or where a layer stores integers.
    """
    tensors, header = _read(path)
    verbs.require_matrices(_fitting_layers(model, tensors, header, path))
    report = load_lora_(model, path)
    for layer in updates(model, header["adapter"]).values():
        verbs.add_to_matrix(layer, -layer.delta())
    return report
