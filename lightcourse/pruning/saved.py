"""Pruned checkpoints: a bit for every weight, and a number only for those that are not zero."""

import math
from pathlib import Path

import numpy as np
import torch
from torch import nn

from lightcourse import checkpoints, layers, pretrained
from lightcourse.surgery import note_sizes

INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def save_pruned(model: nn.Module, path: str | Path) -> Path:
    """Save a model's tensors as one bit a weight and the values that are not zero.

    A tensor with too few zeros for that to pay is saved as it is, one that two modules share
    only once. At sparsity s, a float32 weight takes 1 + 32 (1 - s) bits.

    Parameters
    ----------
    model : nn.Module
        Any; parameters and buffers of its ``state_dict`` are saved, bit for bit.
    path : str or path
        A safetensors file, written atomically; usually ends in ``.safetensors``.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ValueError
        When one of the two is something else, or the model lies on ``meta``.
    """
    return checkpoints.save(model, path, "pruned", encode=packed)


def _bits(tensor):
    """Return a tensor's bits, flat, as integers: 0 stands for +0.0 only, not for -0.0."""
    return tensor.contiguous().flatten().view(INTEGERS[tensor.element_size()])


def packed(tensor: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return a tensor as mask and values, or nothing where that is not smaller."""
    tensor = tensor.detach().cpu()
    if not tensor.is_floating_point():
        return {}
    keep = _bits(tensor) != 0
    values = tensor.contiguous().flatten()[keep]
    mask = torch.from_numpy(np.packbits(keep.numpy()))
    smaller = mask.nbytes + values.nbytes < tensor.nbytes
    return {"mask": mask, "values": values} if smaller else {}


def load_pruned_(model: nn.Module, path: str | Path) -> layers.Report:
    """Load what :func:`save_pruned` saved into a model of the same architecture, in place.

    The tensors, their dtypes and -0.0 included, become those that were saved, bit for bit.
    Linear layers that had lost neurons or heads take their smaller shapes.

    Parameters
    ----------
    model : nn.Module
        Changed in place; tied weights stay tied.
    path : str or path

    Returns
    -------
    Report
        For each tensor its number of values.

    Raises
    ------
    ValueError
        When the file is no pruned checkpoint, or its tensors do not fit the model (nothing
        has been changed then).
    """
    model = layers.plainly_named(model)
    own = model.state_dict(keep_vars=True)
    report = layers.Report("loaded", "values")
    with checkpoints.opened(path, "pruned") as stored:
        _check_fits(model, own, stored)
        for name in own:
            tensor = unpacked(stored, name).to(own[name].device)
            if own[name].shape == tensor.shape:
                own[name].data = tensor
            else:
                layer, _, kind = name.rpartition(".")
                new = nn.Parameter(tensor, own[name].requires_grad)
                setattr(model.get_submodule(layer), kind, new)
            report.changed[name] = tensor.numel()
    note_sizes(model)
    pretrained.watch_(model)
    return report


def unpacked(stored: checkpoints.Checkpoint, name: str) -> torch.Tensor:
    """Return a tensor of a file as dense as it was before :func:`packed`."""
    name = stored.notes["shared"].get(name, name)
    if name not in stored.notes["shapes"]:
        return stored.read(name)
    values, shape = stored.read(f"{name}:values"), stored.shape(name)
    flat = torch.zeros(math.prod(shape), dtype=INTEGERS[values.element_size()])
    flat[_kept(stored, name)] = _bits(values)
    return flat.view(values.dtype).view(shape)


def _kept(stored, name):
    count = math.prod(stored.shape(name))
    return torch.from_numpy(np.unpackbits(stored.read(f"{name}:mask").numpy(), count=count)).bool()


def _check_fits(model, own, stored):
    """Raise where the file is one of another model, or does not hold what its header says."""
    stored.check_names(own, stored.names())
    linear = layers.linear_layers(model)
    for name, parameter in own.items():
        here, there = tuple(parameter.shape), stored.shape(name)
        may_shrink = name.rpartition(".")[0] in linear and len(there) == len(here)
        fits = may_shrink and all(a <= b for a, b in zip(there, here, strict=True))
        if there != here and not fits:
            raise stored.wrong_shape(name, parameter)
    stored.check_ties(own)
    for name in stored.notes["shapes"]:
        check_parts(stored, name)


def check_parts(stored: checkpoints.Checkpoint, name: str) -> None:
    """Raise ``ValueError`` where a mask and its values do not belong together."""
    there = set(stored.file.keys())
    whole = {f"{name}:mask", f"{name}:values"} <= there
    if not whole or (_kept(stored, name).sum(),) != stored.shape(f"{name}:values"):
        raise ValueError(f"{stored.path} is damaged: its mask and values of {name} do not match")
