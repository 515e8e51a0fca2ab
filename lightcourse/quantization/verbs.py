"""Replace the linear layers of a model."""

from collections.abc import Collection

from torch import nn

from lightcourse import layers
from lightcourse.quantization.affine import quant_range
from lightcourse.quantization.layer import QuantizedLinear


def quantize_(
    model: nn.Module,
    bits: int = 8,
    group_size: int | None = None,
    activations: int | None = None,
    skip: Collection[str] = (),
) -> layers.Report:
    """Replace every linear layer by a :class:`QuantizedLinear`, in place.

    Parameters
    ----------
    model : nn.Module
        Changed in place; ``nn.Linear`` and ``Conv1D`` are converted, embeddings are not,
        nor is an output layer that shares its weight with an embedding.
    bits : int
        2 to 8.
    group_size : int, optional
        Inputs that share a scale; must divide every converted layer's inputs.
    activations : {None, 8}
        8 lets the layers run on integer kernels, with their inputs quantized to int8 on
        the way: faster. None turns weights back into floats in every call: only smaller.
    skip : collection of str
        Names of layers to leave as they are.

    Returns
    -------
    Report
        For each layer the bytes saved; what was skipped and why.

    Raises
    ------
    ValueError
        When a layer cannot be converted (the model is unchanged then), ``skip`` names an
        unknown layer, or nothing was converted.
    """
    quant_range(bits)
    report = layers.Report("quantized", "bytes saved")
    tied = layers.tied_layers(model)
    report.skipped = {name: f"shares its weight with {other}" for name, other in tied.items()}
    report.skipped |= {name: "named in skip" for name in skip}
    found = layers.linear_layers(model)
    if unknown := set(skip) - set(found) - set(tied):
        raise ValueError(f"skip names {sorted(unknown)}, which are no linear layers of this model")
    new = {
        name: _convert(name, old, bits, group_size, activations)
        for name, old in found.items()
        if name not in skip
    }
    for name, layer in new.items():
        layers.replace(model, name, layer)
        stored = layer.qweight.nbytes + layer.scale.nbytes
        report.changed[name] = found[name].weight.nbytes - stored
    return report.raise_if_nothing_changed("the model has no linear layer in floating point")


def _convert(name, layer, bits, group_size, activations):
    try:
        return QuantizedLinear(layers.matrix(layer), layer.bias, bits, group_size, activations)
    except ValueError as error:
        raise ValueError(f"layer {name}: {error}") from error
