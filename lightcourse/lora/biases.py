"""Train nothing but the biases of a model: BitFit."""

import os
from pathlib import Path

import torch
from torch import nn

from lightcourse import files, layers
from lightcourse.checkpoints import another_model
from lightcourse.lora.switching import adapters

KIND = "biases"


def train_biases_(model: nn.Module) -> layers.Report:
    """Freeze a model except for its biases, those of norms included (Zaken et al. 2021).

    BitFit, arXiv 2106.10199. Nothing is added: the biases are there, and are run anyway. A
    model without biases, such as a Llama, has nothing to train.

    Parameters
    ----------
    model : nn.Module
        Changed in place: afterwards its biases are trainable, and nothing else. Set
        ``requires_grad`` again on whatever else shall learn, such as a new head.

    Returns
    -------
    Report
        For each module with a bias the numbers in it.

    Raises
    ------
    ValueError
        When no module has a bias, or the model has an adapter, around whose frozen layers
        nothing else may learn; nothing is changed then.
    """
    model = layers.inside(model)
    if known := list(adapters(model)):
        raise ValueError(f"the model has the adapters {known}; merge_lora_ them first")
    biases = _biases(model)
    share = sum(p.numel() for p in biases.values()) / max(
        sum(map(torch.numel, model.parameters())), 1
    )
    report = layers.Report("freed", "biases to train", share=share)
    for name, parameter in biases.items():
        report.changed[name.rpartition(".")[0] or name] = parameter.numel()
    report.raise_if_nothing_changed(f"{type(model).__name__} has no biases")
    model.requires_grad_(False)
    for parameter in biases.values():
        parameter.requires_grad_()
    return report


def _biases(model):
    named = model.named_parameters()
    return {name: p for name, p in named if name.rpartition(".")[2] == "bias"}


def save_biases(model: nn.Module, path: str | os.PathLike) -> Path:
    """Write what is trainable, biases and heads, as one safetensors file.

    Parameters
    ----------
    model : nn.Module
        After :func:`train_biases_`; unchanged.
    path : path

    Returns
    -------
    Path

    Raises
    ------
    ValueError
        When nothing is trainable, or what is trainable holds NaN.
    """
    model, path = layers.plainly_named(model), files.checked_path(path)
    tensors = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not tensors:
        raise ValueError("model has nothing trainable; train_biases_ frees its biases")
    files.check_finite(tensors, "model")
    return files.save_tensors(tensors, path, {"kind": KIND})


@torch.no_grad()
def load_biases_(model: nn.Module, path: str | os.PathLike) -> layers.Report:
    """Put what :func:`save_biases` wrote into a model; so a server goes from one job to another.

    Parameters
    ----------
    model : nn.Module
        Changed in place. What is trainable stays as it was.
    path : path

    Returns
    -------
    Report
        For each parameter the numbers replaced.

    Raises
    ------
    ValueError
        When the file is none of these, belongs to another model or holds NaN; nothing is
        changed then.
    """
    model = layers.plainly_named(model)
    files.check_is_path("path", path, "a file")
    tensors, header = files.load_tensors(path)
    if header.get("kind") != KIND:
        raise ValueError(f"{path} holds no biases; a file that save_biases wrote is wanted")
    files.check_finite(tensors, path)
    own = dict(model.named_parameters())
    for name, tensor in tensors.items():
        here = tuple(own[name].shape) if name in own else "nothing"
        if here != tuple(tensor.shape):
            raise another_model(path, f"{name} is {tuple(tensor.shape)} there, {here} here")
    report = layers.Report("loaded", "numbers replaced")
    for name, tensor in tensors.items():
        own[name].copy_(tensor)
        report.changed[name] = tensor.numel()
    return report
