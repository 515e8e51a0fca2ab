"""Which tensors become integers, and what the output holds: decided before a byte is read."""

from dataclasses import dataclass

import torch
from torch import nn

from lightcourse import layers, panels
from lightcourse.quantization import QuantizedLinear
from lightcourse.quantization.plan import plan_bits
from lightcourse.quantization.saved import dtype_name
from lightcourse.streaming.names import names_in_model
from lightcourse.streaming.recipe import Compression
from lightcourse.streaming.source import DTYPES, FLOATS, Source, Stored

NAMES = {dtype: name for name, dtype in DTYPES.items()}


@dataclass(frozen=True)
class Task:
    """One tensor of the checkpoint, and what is written for it.

    Parameters
    ----------
    name : str
        In the checkpoint.
    stored : Stored
    layer : str
        The name of the layer in the model.
    turned : bool
        Whether its rows are the layer's inputs, as in GPT-2's ``Conv1D``.
    buffers : dict of str to (str, tuple of int)
        dtype and shape of what the matrix becomes, by the buffer's name; empty for a tensor
        that is copied.
    guards : bool
        Whether one number is written under the tensor's own name, over which whoever knows no
        layers of integers trips: see :func:`lightcourse.quantization.pretrained.stumbling_block`.
    """

    name: str
    stored: Stored
    layer: str
    turned: bool
    buffers: dict[str, tuple[str, tuple[int, ...]]]
    guards: bool = False

    def called(self, buffer: str) -> str:
        """Return the name of a buffer in the file, which calls the layer in its own way."""
        return f"{self.name.removesuffix('.weight')}.{buffer}"

    @property
    def shape(self) -> tuple[int, ...]:
        """(outputs, inputs), for a matrix."""
        return self.stored.shape[::-1] if self.turned else self.stored.shape

    def outputs(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Return dtype and shape of each tensor that is written, by its full name."""
        if not self.buffers:
            return {self.name: (self.stored.dtype, self.stored.shape)}
        own = {self.called(buffer): kind for buffer, kind in self.buffers.items()}
        return own | ({self.name: ("F32", (1,))} if self.guards else {})


def nbytes(kind: tuple[str, tuple[int, ...]]) -> int:
    """Return the bytes of a tensor of some dtype and shape."""
    dtype, shape = kind
    return torch.Size(shape).numel() * DTYPES[dtype].itemsize


def meta_model(folder) -> nn.Module:
    """Return the model that a checkpoint's ``config.json`` describes, without its weights.

    Raises
    ------
    ValueError
        When there is no such configuration, or transformers knows no such model.
    """
    import transformers

    if not (folder / "config.json").is_file():
        raise ValueError(f"checkpoint is {folder}, which holds no config.json; one is wanted")
    config = transformers.AutoConfig.from_pretrained(folder)
    if getattr(config, "quantization_config", None):
        raise ValueError(f"{folder / 'config.json'} tells of integers; a model of floats is wanted")
    name = (getattr(config, "architectures", None) or [""])[0]
    kind = getattr(transformers, name, None)
    if kind is None:
        raise ValueError(f"{folder / 'config.json'} names {name!r}, no model that transformers has")
    with torch.device("meta"):
        return kind(config)


def tasks(
    model: nn.Module, source: Source, compression: Compression
) -> tuple[list[Task], dict[str, str]]:
    """Return what to do with each tensor, and the layers that stay as they are, with reasons.

    Raises
    ------
    ValueError
        When the matrices do not fit the compression, or none is found.
    """
    found, skipped = _matrices(model, source)
    work = []
    for name, stored in source.tensors.items():
        (layer, turned), buffers = found.get(name, ("", False)), {}
        if name in found:
            buffers = _checked_buffers(name, stored, turned, compression)
        elif stored.dtype not in DTYPES:
            raise ValueError(f"{name} is {stored.dtype}; one of {', '.join(DTYPES)} is wanted")
        first = name == next(iter(found), None)
        work.append(Task(name, stored, layer, turned, buffers, first))
    if not found:
        raise ValueError(f"no tensor of {source.folder} is a linear layer's matrix: {skipped}")
    return work, skipped


def _matrices(model, source):
    """Return the layer of each tensor that is a matrix to round, whether turned; who is left."""
    chosen, skipped = plan_bits(model, 8, None, ())
    stored = {new: old for old, new in names_in_model(model, source.tensors).items()}
    found = {}
    for names in chosen:
        name, layer = stored.get(f"{names[0]}.weight"), model.get_submodule(names[0])
        if len(names) > 1:
            skipped[names[0]] = f"shares its weight with {names[1]}"
        elif name is None:
            skipped[names[0]] = "the checkpoint holds no tensor that becomes its weight as it is"
        else:
            _check_shape(name, source.tensors[name], layer)
            found[name] = names[0], layers.is_conv1d(layer)
    return found, skipped | layers.other_matrices(model)


def _check_shape(name, stored, layer):
    if stored.shape != (wanted := tuple(layer.weight.shape)):
        raise ValueError(f"{name} has shape {stored.shape}; config.json tells of {wanted}")


def _checked_buffers(name, stored, turned, compression):
    """Return dtype and shape of the buffers of a layer, by trying one row of zeros."""
    if stored.dtype not in FLOATS:
        raise ValueError(f"{name} is {stored.dtype}; one of {', '.join(FLOATS)} is wanted")
    rows, columns = stored.shape[::-1] if turned else stored.shape
    try:
        row = compression.layer(torch.zeros(1, columns))
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    panel_count = -(-rows // panels.OUTPUTS)
    return {
        buffer: (NAMES[t.dtype], (rows if t.ndim == 2 else panel_count, *t.shape[1:]))
        for buffer, t in row.state_dict().items()
    }


def described(
    work: list[Task], source: Source, compression: Compression, dtype: torch.dtype
) -> dict:
    """Return what ``config.json`` tells of the layers that store integers."""
    from lightcourse.quantization.pretrained import layer_note

    notes = {}
    for task in (task for task in work if task.buffers):
        bias = source.tensors.get(task.called("bias"))
        kinds = task.buffers | ({"bias": (bias.dtype, bias.shape)} if bias else {})
        buffers = {
            name: torch.empty(shape, dtype=DTYPES[kind], device="meta")
            for name, (kind, shape) in kinds.items()
        }
        values = (*task.shape, compression.bits, compression.group_size, None, dtype)
        settings = dict(zip(QuantizedLinear.SETTINGS, values, strict=True))
        notes[task.layer] = layer_note(QuantizedLinear.from_parts(settings, buffers))
    return notes


def model_dtype(model: nn.Module, source: Source) -> torch.dtype:
    """Return the dtype in which ``from_pretrained`` would load the checkpoint."""
    named = getattr(model.config, "dtype", None)
    if named is not None:
        return getattr(torch, named) if isinstance(named, str) else named
    return DTYPES[next(s.dtype for s in source.tensors.values() if s.dtype in FLOATS)]


def configuration(model: nn.Module, work: list[Task], source: Source, how: Compression) -> None:
    """Let the model's configuration describe its layers of integers, as transformers reads it."""
    from lightcourse.quantization.pretrained import LightcourseConfig

    dtype = model_dtype(model, source)
    notes = described(work, source, how, dtype)
    model.config.quantization_config = LightcourseConfig(notes, {}, dtype_name(dtype))


def shards(work: list[Task], most: int) -> list[list[Task]]:
    """Cut the tasks, in their order, into shards of ``most`` bytes of output or one task each."""
    cut, size = [[]], 0
    for task in work:
        own = sum(map(nbytes, task.outputs().values()))
        if cut[-1] and size + own > most:
            cut, size = [*cut, []], 0
        cut[-1].append(task)
        size += own
    return cut
