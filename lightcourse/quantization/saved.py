"""Quantized checkpoints: the integers as they lie in memory, and what they stand for."""

import itertools
from pathlib import Path

import torch
from torch import nn

from lightcourse import checkpoints, files, layers, pretrained
from lightcourse.integers import IntegerMatrix, integer_matrices
from lightcourse.quantization.codebook import CodebookLinear
from lightcourse.quantization.embedding import QuantizedEmbedding
from lightcourse.quantization.layer import QuantizedLinear
from lightcourse.quantization.split import SplitLinear

KINDS = {
    "linear": QuantizedLinear,
    "embedding": QuantizedEmbedding,
    "split": SplitLinear,
    "codebook": CodebookLinear,
}


def save_quantized(model: nn.Module, path: str | Path) -> Path:
    """Save a model that stores integers, bit for bit; what is shared is saved once.

    Parameters
    ----------
    model : nn.Module
        After :func:`quantize_`; its other parameters and buffers are saved as they are.
    path : str or path
        A safetensors file, written atomically; usually ends in ``.safetensors``. Its
        header names each quantized layer's bits, group_size, symmetric and activations.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ValueError
        When no layer of the model stores integers, or an argument is something else.
    """
    model, path = layers.plainly_named(model), files.checked_path(path)
    found = integer_matrices(model)
    if not found:
        raise ValueError("model stores no integers; one that quantize_ has changed is wanted")
    notes = {"layers": {name: noted(layer) for name, layer in found.items()}}
    return checkpoints.save(model, path, "quantized", notes)


def noted(layer: IntegerMatrix) -> dict:
    """Return what a header tells of a layer: its kind and its settings."""
    kind = next(name for name, kind in KINDS.items() if type(layer) is kind)
    dtype = dtype_name(layer.dtype)
    return {"kind": kind, "symmetric": layer.symmetric} | layer.settings() | {"dtype": dtype}


def dtype_name(dtype: torch.dtype) -> str:
    """Return the name that ``getattr(torch, name)`` turns back into the dtype."""
    return str(dtype).removeprefix("torch.")


def load_quantized_(model: nn.Module, path: str | Path) -> layers.Report:
    """Load what :func:`save_quantized` saved into a model of the same architecture, in place.

    Parameters
    ----------
    model : nn.Module
        As it was before :func:`quantize_`, with any weights: each layer that stores integers
        in the file is replaced, each other tensor takes the values and dtype of the file.
    path : str or path

    Returns
    -------
    Report
        For each tensor of the file its bytes.

    Raises
    ------
    ValueError
        When the file is no quantized checkpoint, or does not fit the model (nothing has
        been changed then).
    """
    model = layers.plainly_named(model)
    with checkpoints.opened(path, "quantized") as stored:
        new = _restored(stored)
        inside = {
            f"{n}.{buffer}": t for n, m in new.items() for buffer, t in m.state_dict().items()
        }
        for name, layer in new.items():
            _check_layer(model, name, layer, stored)
        own = _others(model, new)
        _check_others(own, stored, inside)
        for name, tensor in own.items():
            tensor.data = stored.read(name).to(tensor.device)
        sizes = {name: (own | inside)[name].nbytes for name in stored.file.keys()}
    _move(model, new)
    for name, layer in new.items():
        layers.replace_(model, name, layer)
    pretrained.watch_(model)
    return layers.Report("loaded", "bytes", sizes)


def _restored(stored):
    """Return the layers that store integers, built of what the file holds; shared once."""
    tensors, new, shared = {}, {}, stored.notes["shared"]
    there = {*stored.file.keys(), *shared}
    for name, note in stored.notes["layers"].items():
        kind, buffers = KINDS[note["kind"]], {}
        for buffer in kind.BUFFERS:
            if (key := f"{name}.{buffer}") in there:
                owner = shared.get(key, key)
                if owner not in tensors:
                    tensors[owner] = stored.read(owner)
                buffers[buffer] = tensors[owner]
        if not {"qweight", "scale"} <= buffers.keys():
            raise ValueError(
                f"{stored.path} is damaged: it holds no integers or no scales for {name}"
            )
        new[name] = built(note, buffers)
    return new


def built(note: dict, buffers: dict) -> IntegerMatrix:
    """Return the layer that :func:`noted` described, around these buffers."""
    settings = note | {"dtype": getattr(torch, note["dtype"])}
    if note.get("activations") == "static":  # what earlier versions wrote for a fixed grid
        settings["activations"] = 8
    return KINDS[note["kind"]].from_parts(settings, buffers)


def _check_layer(model, name, layer, stored):
    """Raise where the model has no layer or table of that shape under that name."""
    try:
        old = model.get_submodule(name)
    except AttributeError:
        raise stored.another_model(f"this one has no {name}") from None
    if (found := _described(old)) != (wanted := _described(layer)):
        raise stored.another_model(f"{name} is {wanted} there and {found} here")


def _described(layer):
    """Return what a layer and the one that replaces it must have in common, in words."""
    if isinstance(layer, nn.Embedding | QuantizedEmbedding):
        return f"a table of shape {(layer.num_embeddings, layer.embedding_dim)}"
    if layers.is_conv1d(layer) or isinstance(layer, nn.Linear):
        shape = tuple(layers.weight_matrix(layer).shape)
    elif isinstance(layer, QuantizedLinear | CodebookLinear):
        shape = layer.shape
    else:
        return f"a {type(layer).__name__}"
    return f"linear of shape {shape}, {'without' if layer.bias is None else 'with'} bias"


def _others(model, new):
    """Return the model's tensors that do not belong to one of the layers in ``new``."""
    state = model.state_dict(keep_vars=True)
    return {key: tensor for key, tensor in state.items() if key.rpartition(".")[0] not in new}


def _check_others(own, stored, inside):
    """Raise where other tensors than the model's are in the file, or other ones are tied."""
    stored.check_names(own, [n for n in stored.names() if n not in inside])
    for name, tensor in own.items():
        if stored.shape(name) != tuple(tensor.shape):
            raise stored.wrong_shape(name, tensor)
    stored.check_ties(own)


def _move(model, new):
    """Move the new layers to the places of the old: together, so that shared stays shared."""
    places = {}
    for name, layer in new.items():
        old = model.get_submodule(name)
        device = next(itertools.chain(old.parameters(), old.buffers())).device
        places.setdefault(device, nn.ModuleList()).append(layer)
    for device, found in places.items():
        found.to(device)
