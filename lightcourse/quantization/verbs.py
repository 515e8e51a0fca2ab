"""Replace the linear layers and embedding tables of a model by ones that store integers."""

from collections.abc import Collection, Mapping
from functools import partial

import torch
from torch import nn

from lightcourse import layers, pretrained
from lightcourse.quantization.embedding import QuantizedEmbedding
from lightcourse.quantization.layer import QuantizedLinear
from lightcourse.quantization.plan import plan_bits
from lightcourse.quantization.storage import IntegerMatrix, integer_matrices


def quantize_(
    model: nn.Module,
    bits: int | Mapping[str, int] = 8,
    group_size: int | None = None,
    activations: int | Mapping[str, tuple[float, float]] | None = None,
    symmetric: bool = True,
    embeddings: int | None = None,
    skip: Collection[str] = (),
) -> layers.Report:
    """Replace linear layers by :class:`QuantizedLinear`, and tables if wanted, in place.

    Parameters
    ----------
    model : nn.Module
        Changed in place; ``nn.Linear`` and ``Conv1D`` are converted.
    bits : int, or dict of str to int
        2 to 8, for all linear layers; or for each layer (or embedding table) named, and
        those that are not named stay as they are.
    group_size : int, optional
        Inputs that share a scale; must divide every converted layer's inputs.
    activations : {None, 8} or dict of str to (float, float)
        None turns weights back into floats in every call: only smaller. 8 lets the layers
        run on integer kernels, with their inputs quantized to int8 on the way: faster. What
        :func:`calibrate` returns gives each layer a fixed 8-bit grid for its inputs,
        computed with floats; see :class:`QuantizedLinear`.
    symmetric : bool
        False gives the weights zero points; with ``activations=8`` up to 4 bits only.
    embeddings : int, optional
        Bits for every ``nn.Embedding``, which becomes a :class:`QuantizedEmbedding`. Above
        4 bits a row has one scale, and no zero point; up to 4 bits ``group_size`` and
        ``symmetric`` apply. Layers that share their weight with the table then share its
        integers; they are skipped where the table stays as it is.
    skip : collection of str
        Names of layers and tables to leave as they are: those, for instance, that lose
        most by rounding.

    Returns
    -------
    Report
        For each layer and table the bytes saved; what was skipped and why.

    Raises
    ------
    ValueError
        When a layer cannot be converted, ``activations`` lacks one or is 8 beside a GPU, a
        name is unknown, or a weight lies on ``meta`` (the model is unchanged then), or
        nothing was converted.
    """
    model = layers.inside(model)
    chosen, skipped = plan_bits(model, bits, embeddings, skip)
    share = layers.share_of(model, (model.get_submodule(names[0]) for names in chosen))
    skipped |= layers.other_matrices(model)
    report = layers.Report("quantized", "bytes saved", skipped=skipped, share=share)
    new = {}
    for names, number in chosen.items():
        how = partial(QuantizedLinear, bits=number, group_size=group_size, symmetric=symmetric)
        if number > 4 and any(isinstance(model.get_submodule(n), nn.Embedding) for n in names):
            how = partial(QuantizedLinear, bits=number)
        new |= _convert(model, names, how, activations)
    for name, layer in new.items():
        old = model.get_submodule(name)
        layers.replace(model, name, layer)
        report.changed[name] = old.weight.nbytes - _stored_bytes(layer)
    for first, *others in chosen:
        for name in others:  # the weight and the integers are counted once, at the first name
            report.changed[name] = _stored_bytes(new[first]) - _stored_bytes(new[name])
    report.raise_if_nothing_changed("the model has no linear layer in floating point")
    pretrained.watch_(model)
    return report


def _convert(model, names, how, activations):
    """Return the new modules for names that share one weight."""
    owners = {name: model.get_submodule(name) for name in names}
    heads = [name for name, owner in owners.items() if not isinstance(owner, nn.Embedding)]
    new = {}
    for name in heads or names[:1]:
        old = owners[name]
        try:
            inputs = _inputs_of(name, activations, old.weight.device) if heads else None
            layer = how(layers.matrix(old), getattr(old, "bias", None), activations=inputs)
        except ValueError as error:
            raise ValueError(f"layer {name}: {error}") from error
        matrix = next(iter(new.values()), layer)
        for buffer in IntegerMatrix.BUFFERS:  # equal ones, of which one is enough
            setattr(layer, buffer, getattr(matrix, buffer))
        new[name] = layer
    return {
        name: new[name] if name in heads else QuantizedEmbedding.sharing(matrix, owner.padding_idx)
        for name, owner in owners.items()
    }


def _inputs_of(name, activations, device):
    if not isinstance(activations, Mapping):
        if activations == 8:
            _check_device(device)
        return activations
    if name not in activations:
        raise ValueError("activations holds no range for it; calibrate it, or name it in skip")
    return activations[name]


def _check_device(device):
    """Raise where a layer lies that no integer kernel reaches."""
    if device.type != "cpu":
        raise ValueError(
            f"its weight lies on the device {device}, but activations=8 multiplies on the CPU; "
            "model.to('cpu') first, or activations=None"
        )


def _stored_bytes(layer):
    buffers = dict(layer.named_buffers())
    return sum(buffer.nbytes for name, buffer in buffers.items() if name != "bias")


@torch.no_grad()
def dequantize_(model: nn.Module) -> layers.Report:
    """Replace what stores integers by ordinary layers in floating point, in place.

    Rounding is not undone: the weights stay on the grid that they were rounded to. A
    ``Conv1D`` comes back as an ``nn.Linear``.

    Parameters
    ----------
    model : nn.Module
        Changed in place. An output layer that shared a table's integers shares its weight
        again. The new weights have the dtype that there was before, and are frozen, as the
        integers were: ``model.requires_grad_(True)`` lets them train.

    Returns
    -------
    Report
        For each layer and table the bytes added.

    Raises
    ------
    ValueError
        When nothing stores integers.
    """
    model = layers.inside(model)
    report = layers.Report("dequantized", "bytes added")
    weights = {}
    for name, module in integer_matrices(model).items():
        added = 0
        if module.qweight.data_ptr() not in weights:
            weight = module.dequantize().to(module.dtype)
            weights[module.qweight.data_ptr()] = nn.Parameter(weight, requires_grad=False)
            added = weight.nbytes - _stored_bytes(module)
        layers.replace(model, name, _as_floats(module, weights[module.qweight.data_ptr()]))
        report.changed[name] = added
    return report.raise_if_nothing_changed("no layer of the model stores integers")


def _as_floats(module, weight):
    if isinstance(module, QuantizedEmbedding):
        new = nn.Embedding(*module.shape, padding_idx=module.padding_idx, _weight=weight)
    else:
        new = nn.Linear(module.in_features, module.out_features, bias=False, device="meta")
        bias = module.bias
        if bias is not None:
            new.bias = nn.Parameter(bias.to(module.dtype, copy=True), requires_grad=False)
    new.weight = weight
    return new
