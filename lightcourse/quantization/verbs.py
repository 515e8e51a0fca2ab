"""Replace the linear layers and embedding tables of a model by ones that store integers."""

from collections.abc import Callable, Collection, Mapping
from functools import partial

import torch
from torch import nn

from lightcourse import layers, pretrained
from lightcourse.integers import IntegerMatrix, integer_matrices
from lightcourse.quantization.embedding import QuantizedEmbedding
from lightcourse.quantization.layer import QuantizedLinear
from lightcourse.quantization.plan import plan_bits


def quantize_(
    model: nn.Module,
    bits: int | Mapping[str, int] = 8,
    group_size: int | None = None,
    activations: int | None = None,
    symmetric: bool = True,
    embeddings: int | None = None,
    skip: Collection[str] = (),
    *,
    activation_ranges: Mapping[str, tuple[float, float]] | None = None,
    choose_qparams: Callable | None = None,
    integers: Mapping[str, tuple] | None = None,
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
    activations : {None, 8}
        None turns weights back into floats in every call: only smaller. 8 lets the layers
        run on integer kernels, with their inputs quantized to int8 on the way: faster. With
        a ``group_size``, a multiple of 32, above 4 bits the inputs are quantized in the same
        groups: more exact, and somewhat slower.
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
    activation_ranges : dict of str to (float, float), optional
        What :func:`calibrate` returns. With ``activations=8`` it gives each layer one fixed
        8-bit grid for its inputs, computed with floats; see :class:`QuantizedLinear`.
    choose_qparams : callable, optional
        How the grid of each row or group is chosen, as in :func:`round_to_nearest`.
    integers : dict of str to (q, scale, zero_point), optional
        Finished integers by a layer's or table's name, as
        :func:`lightcourse.integers.pack` takes them: GPTQ's, for instance. They have as many
        bits as ``bits`` or ``embeddings`` says, and the shape of
        :func:`lightcourse.layers.weight_matrix`: (outputs, inputs). ``group_size``,
        ``symmetric`` and ``choose_qparams`` are for the layers that have none here, which
        are rounded to nearest.

    Returns
    -------
    Report
        For each layer and table the bytes saved; what was skipped and why.

    Raises
    ------
    ValueError
        When a layer cannot be converted, ``activation_ranges`` lacks one, ``activations`` is
        8 beside a GPU, a name is unknown, ``integers`` do not fit their layer or name one
        that is not converted, or a weight lies on ``meta`` (the model is unchanged then), or
        nothing was converted.
    """
    model, integers = layers.inside(model), {} if integers is None else integers
    chosen, skipped = plan_bits(model, bits, embeddings, skip)
    _check_by_name("integers", integers)
    _check_by_name("activation_ranges", {} if activation_ranges is None else activation_ranges)
    _check_integers(integers, chosen, skipped)
    share = layers.share_of(model, (model.get_submodule(names[0]) for names in chosen))
    skipped |= layers.other_matrices(model)
    report = layers.Report("quantized", "bytes saved", skipped=skipped, share=share)
    grid = {"group_size": group_size, "symmetric": symmetric, "choose_qparams": choose_qparams}
    inputs = partial(inputs_of, activations=activations, ranges=activation_ranges)
    new = {}
    for names, number in chosen.items():
        make = _maker(model, names, number, grid, integers)
        new |= _convert(model, names, make, inputs)
    _put_in(model, chosen, new, report)
    report.raise_if_nothing_changed("the model has no linear layer in floating point")
    pretrained.watch_(model)
    return report


def check_convertible(
    model: nn.Module, chosen: Mapping[tuple[str, ...], int], **how: object
) -> None:
    """Raise where a layer could not be converted, before long work begins.

    One row of each is rounded, in no time; the whole weight must be finite.

    Parameters
    ----------
    model : nn.Module
        Unchanged.
    chosen : mapping of tuple of str to int
        The bits, as :func:`plan_bits` gives them.
    **how
        Arguments of :class:`QuantizedLinear`.

    Raises
    ------
    ValueError
        With the layer's name.
    """
    for (name, *_), bits in chosen.items():
        weight = layers.weight_matrix(model.get_submodule(name)).detach()
        try:
            if not torch.isfinite(weight).all():
                raise ValueError("weight holds NaN or infinity; finite values are wanted")
            QuantizedLinear(weight[:1], None, bits, **how)
        except ValueError as error:
            raise ValueError(f"layer {name}: {error}") from error


def _maker(model, names, bits, grid, integers):
    """Return what makes a layer in the place of a weight with these owners."""
    named = next((name for name in names if name in integers), None)
    if named is not None:
        return partial(_of_integers, integers[named], bits=bits)
    table = any(isinstance(model.get_submodule(name), nn.Embedding) for name in names)
    if bits > 4 and table:  # one scale a row, and no zero point
        grid = {"choose_qparams": grid["choose_qparams"]}
    return partial(QuantizedLinear, bits=bits, **grid)


def _put_in(model, chosen, new, report):
    """Replace the old modules by the new, and count the bytes."""
    share_biases(model, new)
    for name, layer in new.items():
        old = model.get_submodule(name)
        layers.replace_(model, name, layer)
        report.changed[name] = old.weight.nbytes - stored_bytes(layer)
    for first, *others in chosen:
        for name in others:  # the weight and the integers are counted once, at the first name
            report.changed[name] = stored_bytes(new[first]) - stored_bytes(new[name])


def share_biases(model: nn.Module, new: Mapping[str, nn.Module]) -> None:
    """Let layers that will stand in a model have one bias where the old ones have one.

    Parameters
    ----------
    model : nn.Module
        With the old layers in it; unchanged.
    new : mapping of str to nn.Module
        By the names of those; changed.
    """
    first = {}
    for name, layer in new.items():
        bias = getattr(model.get_submodule(name), "bias", None)
        if bias is not None:
            layer.bias = first.setdefault(id(bias), layer.bias)


def _check_by_name(argument, given):
    if not isinstance(given, Mapping):
        raise ValueError(f"{argument} is a {type(given).__name__}; a dict by name is wanted")


def _check_integers(integers, chosen, skipped):
    """Raise where there are integers for what is not converted, or twice for one weight."""
    for name in integers.keys() - {name for names in chosen for name in names}:
        why = skipped.get(name, "no linear layer or embedding table of this model")
        raise ValueError(f"integers names {name}, which is not converted: {why}")
    for names in chosen:
        if len(twice := sorted(integers.keys() & set(names))) > 1:
            raise ValueError(f"integers names {twice}, which share one weight; one name is wanted")


def _of_integers(ready, weight, bias, bits, **activations):
    """Return a layer of finished integers in the place of a weight."""
    if not isinstance(ready, tuple | list) or len(ready) != 3:
        raise ValueError(f"integers is a {type(ready).__name__}; (q, scale, zero_point) is wanted")
    if isinstance(ready[0], torch.Tensor) and ready[0].shape != weight.shape:
        given, wanted = tuple(ready[0].shape), tuple(weight.shape)
        raise ValueError(f"q has shape {given}; the weight's {wanted} is wanted")
    layer = QuantizedLinear.from_integers(*ready, bits, bias, **activations)
    return layer.to(weight.device, weight.dtype)


def _convert(model, names, make, inputs):
    """Return the new modules for names that share one weight."""
    owners = {name: model.get_submodule(name) for name in names}
    heads = [name for name, owner in owners.items() if not isinstance(owner, nn.Embedding)]
    new = {}
    for name in heads or names[:1]:
        old = owners[name]
        try:
            how = inputs(name, old.weight.device) if heads else {}
            layer = make(layers.weight_matrix(old), getattr(old, "bias", None), **how)
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


def inputs_of(
    name: str,
    device: torch.device,
    activations: int | None,
    ranges: Mapping[str, tuple[float, float]] | None,
) -> dict:
    """Return what a layer is told about its inputs, as arguments of :class:`QuantizedLinear`.

    Raises
    ------
    ValueError
        When ``ranges`` lacks the layer, or it lies where no integer kernel reaches.
    """
    if ranges is not None and name not in ranges:
        raise ValueError("activation_ranges lacks it; calibrate it, or name it in skip")
    if ranges is None and activations == 8:
        check_on_cpu(device)
    return {
        "activations": activations,
        "activation_range": None if ranges is None else ranges[name],
    }


def check_on_cpu(device: torch.device) -> None:
    """Raise where a layer lies that no integer kernel reaches."""
    if device.type != "cpu":
        raise ValueError(
            f"its weight lies on the device {device}, but activations=8 multiplies on the CPU; "
            "model.to('cpu') first, or activations=None"
        )


def stored_bytes(layer: IntegerMatrix) -> int:
    """Return the bytes of a layer's integers and scales, its bias left out."""
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
    weights, new = {}, {}
    for name, module in integer_matrices(model).items():
        added = 0
        if module.qweight.data_ptr() not in weights:
            weight = module.dequantize().to(module.dtype)
            weights[module.qweight.data_ptr()] = nn.Parameter(weight, requires_grad=False)
            added = weight.nbytes - stored_bytes(module)
        new[name] = _as_floats(module, weights[module.qweight.data_ptr()])
        report.changed[name] = added
    share_biases(model, new)
    for name, layer in new.items():
        layers.replace_(model, name, layer)
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
