"""Checkpoints of models with factored layers: both factors, and which layers they replace."""

from pathlib import Path

from torch import nn

from lightcourse import checkpoints, layers, pretrained
from lightcourse.integers import integer_matrices
from lightcourse.sharing.layer import FactoredLinear


def save_factored(model: nn.Module, path: str | Path) -> Path:
    """Save a model with factored layers, bit for bit; what is shared is saved once.

    Parameters
    ----------
    model : nn.Module
        After :func:`factor_`, and training.
    path : str or path
        A safetensors file, written atomically; usually ends in ``.safetensors``. Its header
        names each factored layer's rank.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ValueError
        When no layer of the model is factored, one stores integers, or an argument is something
        else.
    """
    model = layers.plainly_named(model)
    found = _factored(model)
    if not found:
        raise ValueError("model has no factored layer; one that factor_ has changed is wanted")
    if integers := list(integer_matrices(model)):
        raise ValueError(f"model stores integers in {integers[0]}; save_quantized saves them")
    ranks = {name: layer.rank for name, layer in found.items()}
    return checkpoints.save(model, path, "factored", {"ranks": ranks})


def load_factored_(model: nn.Module, path: str | Path) -> layers.Report:
    """Load what :func:`save_factored` saved into a model of the same architecture, in place.

    Parameters
    ----------
    model : nn.Module
        As it was before :func:`factor_`, with any weights. Layers that are factored in the file
        are replaced, those that share their factors there share them here; each other tensor
        takes the values and dtype of the file.
    path : str or path

    Returns
    -------
    Report
        For each tensor of the file its bytes.

    Raises
    ------
    ValueError
        When the file is no such checkpoint, or does not fit the model (nothing has been changed
        then).
    """
    model = layers.plainly_named(model)
    with checkpoints.opened(path, "factored") as stored:
        held = {}
        new = {name: _restored(model, name, held, stored) for name in stored.notes["ranks"]}
        state = model.state_dict(keep_vars=True)
        own = {key: tensor for key, tensor in state.items() if key.rpartition(".")[0] not in new}
        inside = {
            f"{n}.{key}": t for n, layer in new.items() for key, t in layer.state_dict().items()
        }
        stored.check_names(own, [key for key in stored.names() if key not in inside])
        for key, tensor in own.items():
            if stored.shape(key) != tuple(tensor.shape):
                raise stored.wrong_shape(key, tensor)
        stored.check_ties(own)
        for key, tensor in own.items():
            tensor.data = stored.read(key).to(tensor.device)
        sizes = {key: (own | inside)[key].nbytes for key in stored.file.keys()}
    for name, layer in new.items():
        layers.replace_(model, name, layer)
    pretrained.watch_(model)
    return layers.Report("loaded", "bytes", sizes)


def _factored(model):
    return {n: layer for n, layer in model.named_modules() if isinstance(layer, FactoredLinear)}


def _restored(model, name, held, stored):
    """Return a layer of the file, if the model has one of its shape and with such a bias."""
    try:
        old = model.get_submodule(name)
    except AttributeError:
        raise stored.another_model(f"this one has no {name}") from None
    linear = isinstance(old, nn.Linear) or layers.is_conv1d(old)
    here = (*layers.weight_matrix(old).shape, old.bias is not None) if linear else None
    left, right, bias = (f"{name}.{key}" for key in ("left.weight", "right.weight", "left.bias"))
    has_bias = bias in stored.names()
    there = stored.shape(left)[0], stored.shape(right)[1], has_bias
    if here != there:
        raise stored.another_model(f"{name} is (outputs, inputs, bias) {there} there, {here} here")
    keys = [left, right, *[bias] * has_bias]
    return FactoredLinear(*(_parameter(key, old.weight, held, stored) for key in keys))


def _parameter(key, old, held, stored):
    """Return a tensor of the file as a parameter: the same one for all who share it there."""
    owner = stored.notes["shared"].get(key, key)
    if owner not in held:
        held[owner] = nn.Parameter(stored.read(owner).to(old.device), old.requires_grad)
    return held[owner]
