"""model.safetensors of a submission: whatever mix of the course's layers, bit for bit.

What :mod:`lightcourse.quantization.saved`, :mod:`lightcourse.pruning.saved` and
:mod:`lightcourse.sharing.saved` write each for itself stands here in one file: integers and codes
as they lie in memory, floats as mask and values where that is smaller, both factors of a product,
what is shared once. Shapes are the file's: heads and neurons that went need no word.
"""

from pathlib import Path

import torch
from torch import nn

from lightcourse import checkpoints, files, layers, surgery
from lightcourse.capstone.header import KIND, read_header
from lightcourse.integers import IntegerMatrix, integer_matrices, pack
from lightcourse.pruning.saved import check_parts, packed, unpacked
from lightcourse.quantization.saved import KINDS, built, noted
from lightcourse.sharing import FactoredLinear

DTYPES = ("float32", "float16", "bfloat16")


def save(model: nn.Module, path: Path) -> Path:
    """Save all tensors of a classifier, and what its layers are."""
    found = {n: m for n, m in model.named_modules() if isinstance(m, FactoredLinear)}
    notes = {
        "layers": {name: noted(layer) for name, layer in integer_matrices(model).items()},
        "ranks": {name: layer.left.in_features for name, layer in found.items()},
    }
    return checkpoints.save(model, path, KIND, notes, encode=packed)


def load_(model: nn.Module, path: Path) -> None:
    """Fill an empty classifier (on ``meta``) with what :func:`save` saved, in place.

    Raises
    ------
    ValueError
        With a sentence for the file's author, when it is damaged, holds NaN or infinity, or does
        not fit the model.
    """
    read_header(path)
    try:
        with checkpoints.opened(path, KIND) as stored:
            tensors = _read(stored)
            notes = stored.notes
        files.check_finite(_floats(tensors), "model.safetensors")
        for name, rank in notes["ranks"].items():
            _put_factors_(model, name, rank)
        for name, note in notes["layers"].items():
            layers.replace_(model, name, _restored(name, note, tensors))
        _fill_(model, tensors)
    except (KeyError, TypeError, AttributeError, RuntimeError, IndexError) as error:
        raise ValueError(f"model.safetensors is damaged: {str(error)[:200]}") from error
    _check_shapes(model)
    surgery.note_sizes(model)
    _make_buffers_(model)


def _read(stored):
    """Return all tensors by name; shared ones are the same object under all their names."""
    for name in stored.notes["shapes"]:
        check_parts(stored, name)
    shared = stored.notes["shared"]
    tensors = {name: unpacked(stored, name) for name in stored.names() if name not in shared}
    return tensors | {name: tensors[owner] for name, owner in shared.items()}


def _floats(tensors):
    """Return what may hold NaN, in a dtype that can be asked."""
    return {
        n: t.float() if t.itemsize < 2 else t
        for n, t in tensors.items()
        if t.dtype.is_floating_point
    }


def _put_factors_(model, name, rank):
    old = model.get_submodule(name)
    if type(old) is not nn.Linear or type(rank) is not int or not 1 <= rank <= 2**16:
        raise ValueError(f"model.safetensors has factors of rank {rank!r} for {name[:100]!r}")
    with torch.device("meta"):
        left, right = torch.empty(old.out_features, rank), torch.empty(rank, old.in_features)
        bias = None if old.bias is None else torch.empty(old.out_features)
    layers.replace_(model, name, FactoredLinear(left, right, bias))


def _restored(name, note, tensors):
    """Return a layer of integers around its buffers, once they are those of such a layer."""
    kind = KINDS[note["kind"]]
    buffers = {b: tensors[f"{name}.{b}"] for b in kind.BUFFERS if f"{name}.{b}" in tensors}
    if note["dtype"] not in DTYPES:
        raise ValueError(f"model.safetensors has the dtype {note['dtype']!r} for {name[:100]!r}")
    layer = built(note, buffers)
    _check_whole_numbers(name, layer)
    wanted = _codes_wanted(layer) if note["kind"] == "codebook" else _integers_wanted(layer)
    for buffer, (shape, dtype) in wanted.items():
        found = buffers[buffer]
        if (tuple(found.shape), found.dtype) != (shape, dtype):
            raise ValueError(
                f"model.safetensors has {buffer} of {name}: {found.dtype} of shape "
                f"{tuple(found.shape)}; {dtype} of shape {shape} is wanted"
            )
    return layer


def _check_whole_numbers(name, layer):
    """Raise where settings that kernels count by are no numbers of a matrix."""
    settings, most = layer.settings(), 2**20
    group = settings.get("group_size")
    sides = [*layer.shape, settings["bits"], *([] if group is None else [group])]
    if not all(type(side) is int and 1 <= side <= most for side in sides):
        raise ValueError(f"model.safetensors has odd settings for {name[:100]!r}: {settings}")
    if settings["bits"] not in range(1, 9) or settings.get("activations") not in (None, 8):
        raise ValueError(f"model.safetensors has odd settings for {name[:100]!r}: {settings}")
    if group is not None and layer.shape[1] % group:
        raise ValueError(f"model.safetensors has groups of {group} for {name[:100]!r}")


def _integers_wanted(layer):
    """Return shape and dtype of each buffer of integers, as packing them anew would give."""
    rows, columns = layer.shape
    groups = columns // (layer.group_size or columns)
    zeros = None if layer.zero_point is None else torch.zeros(rows, groups, dtype=torch.int8)
    integers = getattr(layer, "multiplies_integers", False)
    halves = integers and layer.group_size is not None
    q = torch.zeros(rows, columns, dtype=torch.int8)
    anew = pack(q, torch.ones(rows, groups), zeros, layer.bits, halves)
    wanted = {name: (tuple(part.shape), part.dtype) for name, part in anew.items()}
    if hasattr(layer, "outliers"):
        count = len(layer.outliers)
        wanted |= {"outliers": ((count,), torch.int64), "columns": ((rows, count), layer.dtype)}
        if not (count and 0 <= layer.outliers.min() <= layer.outliers.max() < columns):
            raise ValueError("model.safetensors has outliers that are no inputs")
    return wanted


def _codes_wanted(layer):
    (rows, columns), blocks = layer.shape, layer.scale.shape[-1]
    scales = (rows, blocks) if layer.scale.shape[0] == rows else (1, 1)
    if type(layer.factor) not in (int, float) or columns % 8 or columns % blocks:
        raise ValueError("model.safetensors has codes that fill no matrix")
    return {
        "qweight": ((rows, columns * layer.bits // 8), torch.uint8),
        "scale": (scales, layer.scale.dtype),
        "levels": ((2**layer.bits,), torch.float32),
    }


def _fill_(model, tensors):
    """Put each tensor where its name says; those that are one in the file are one here."""
    inside = {f"{n}.{b}" for n, m in integer_matrices(model).items() for b in m.state_dict()}
    own = model.state_dict(keep_vars=True)
    if wrong := sorted(own.keys() ^ tensors.keys()):
        lack = "lacks" if wrong[0] in own else "has a further"
        raise ValueError(f"model.safetensors {lack} {wrong[0][:200]}")
    parameters = {}
    for name in own.keys() - inside:
        tensor, (path, _, kind) = tensors[name], name.rpartition(".")
        if not tensor.dtype.is_floating_point or tensor.itemsize < 2:
            raise ValueError(f"model.safetensors has {name} in {tensor.dtype}; floats are wanted")
        if tensor.ndim != own[name].ndim:
            raise ValueError(f"model.safetensors has {name} of shape {tuple(tensor.shape)}")
        new = parameters.setdefault(id(tensor), nn.Parameter(tensor, requires_grad=False))
        setattr(model.get_submodule(path), kind, new)


def _check_shapes(model):
    """Raise where a layer does not take what the one before it gives."""
    config, encoder = model.encoder.config, model.encoder
    width, tables = config.hidden_size, encoder.embeddings
    _check("word_embeddings", tables.word_embeddings, (config.vocab_size, width))
    _check(
        "position_embeddings", tables.position_embeddings, (config.max_position_embeddings, width)
    )
    _check("token_type_embeddings", tables.token_type_embeddings, (config.type_vocab_size, width))
    for number, layer in enumerate(encoder.encoder.layer):
        attention, inner = layer.attention, layer.attention.self
        heads, neurons = _shape(inner.query)[0], _shape(layer.intermediate.dense)[0]
        if heads < 1 or heads % inner.attention_head_size or neurons < 1:
            raise ValueError(
                f"model.safetensors has no whole heads, or no neurons, in layer {number}"
            )
        for name, part in (("query", inner.query), ("key", inner.key), ("value", inner.value)):
            _check(f"layer {number}, {name}", part, (heads, width))
        _check(f"layer {number}, attention's output", attention.output.dense, (width, heads))
        _check(f"layer {number}, intermediate", layer.intermediate.dense, (neurons, width))
        _check(f"layer {number}, output", layer.output.dense, (width, neurons))
    for name, module in model.named_modules():
        if isinstance(module, nn.LayerNorm):
            _check(name, module, (width,))
    _check("head", model.head, (model.head.out_features, width))


def _shape(module):
    if isinstance(module, IntegerMatrix):
        return tuple(module.shape)
    if isinstance(module, FactoredLinear):
        (rows, rank), (inner, columns) = _shape(module.left), _shape(module.right)
        return (rows, columns) if rank == inner else (rows, -1)
    return tuple(module.weight.shape)


def _check(name, module, wanted):
    """Raise where a module has another shape, or a bias of another length than its rows."""
    last = module.left if isinstance(module, FactoredLinear) else module
    bias = getattr(last, "bias", None)
    if _shape(module) != wanted or (bias is not None and tuple(bias.shape) != wanted[:1]):
        raise ValueError(f"model.safetensors has {name} of shape {_shape(module)}; {wanted} wanted")


def _make_buffers_(model):
    """Give the embeddings the two buffers that no file holds."""
    tables = model.encoder.embeddings
    places = torch.arange(model.encoder.config.max_position_embeddings)[None]
    tables.register_buffer("position_ids", places, persistent=False)
    tables.register_buffer("token_type_ids", torch.zeros_like(places), persistent=False)
