"""Pruned checkpoints: a bit for every weight, and a number only for those that are not zero."""

import json
import math
from pathlib import Path

import numpy as np
import torch
from torch import nn

from lightcourse import files, layers, pretrained
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
    state, path = layers.plainly_named(model).state_dict(), files.checked_path(path)
    tensors, notes = {}, {"shapes": {}, "shared": layers.shared_tensors(state)}
    for name in [name for name in state if name not in notes["shared"]]:
        parts = _packed(name, state[name])
        if parts.keys() != {name}:
            notes["shapes"][name] = list(state[name].shape)
        tensors |= parts
    # One entry: the header's entries stand in no fixed order, and equal models get equal files.
    return files.save_tensors(tensors, path, {"pruned": json.dumps(notes)})


def _bits(tensor):
    """Return a tensor's bits, flat, as integers: 0 stands for +0.0 only, not for -0.0."""
    return tensor.contiguous().flatten().view(INTEGERS[tensor.element_size()])


def _packed(name, tensor):
    """Return a tensor as mask and values where that is smaller, or as it is."""
    tensor = tensor.detach().cpu()
    if not tensor.is_floating_point():
        return {name: tensor}
    keep = _bits(tensor) != 0
    values = tensor.contiguous().flatten()[keep]
    mask = torch.from_numpy(np.packbits(keep.numpy()))
    if mask.nbytes + values.nbytes >= tensor.nbytes:
        return {name: tensor}
    return {f"{name}:mask": mask, f"{name}:values": values}


def _unpacked(mask, values, shape):
    keep = torch.from_numpy(np.unpackbits(mask.numpy(), count=math.prod(shape))).bool()
    flat = torch.zeros(len(keep), dtype=INTEGERS[values.element_size()])
    flat[keep] = _bits(values)
    return flat.view(values.dtype).view(shape)


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
    model, path = layers.plainly_named(model), files.checked_path(path)
    tensors = _read(path)
    own = model.state_dict(keep_vars=True)
    _check_fits(model, own, tensors, path)
    report = layers.Report("loaded", "values")
    for name in own:
        tensor = tensors[name].to(own[name].device)
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


def _read(path):
    """Return all tensors of a pruned checkpoint, as dense as they were."""
    stored, metadata = files.load_tensors(path)
    if "pruned" not in metadata:
        raise ValueError(f"path is {path}, no pruned checkpoint; a file of save_pruned is wanted")
    notes = json.loads(metadata["pruned"])
    tensors = {name: tensor for name, tensor in stored.items() if ":" not in name}
    for name, shape in notes["shapes"].items():
        tensors[name] = _unpacked(stored[f"{name}:mask"], stored[f"{name}:values"], shape)
    # A copy each: where the model ties them, the second replaces the first by its equal.
    return tensors | {name: tensors[owner].clone() for name, owner in notes["shared"].items()}


def _check_fits(model, own, tensors, path):
    if wrong := sorted(own.keys() ^ tensors.keys()):
        raise ValueError(f"{path} belongs to another model: only one of the two has {wrong[0]}")
    linear = layers.linear_layers(model)
    for name, parameter in own.items():
        tensor, wanted = tensors[name], tuple(parameter.shape)
        may_shrink = name.rpartition(".")[0] in linear and tensor.ndim == len(wanted)
        fits = may_shrink and all(a <= b for a, b in zip(tensor.shape, wanted, strict=True))
        if tuple(tensor.shape) != wanted and not fits:
            raise ValueError(
                f"{path} belongs to another model: {name} has shape {tuple(tensor.shape)} "
                f"there and {wanted} here"
            )
