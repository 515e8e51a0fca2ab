"""What a checkpoint holds, read from its headers; and its tensors, a piece at a time.

A safetensors file is a length, a header of JSON, and bytes. Read with plain reads instead of a
map of the whole file, a tensor takes no more memory than the piece that is asked for.
"""

import hashlib
import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path

import torch

from lightcourse import files

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
FLOATS = ("F64", "F32", "F16", "BF16")
INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


@dataclass(frozen=True)
class Stored:
    """A tensor in a file.

    Parameters
    ----------
    path : Path
    dtype : str
        As safetensors writes it: ``F32``.
    shape : tuple of int
    start : int
        Of its first byte in the file.
    nbytes : int
    """

    path: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    nbytes: int

    def rows(self, first: int, last: int) -> torch.Tensor:
        """Return a tensor of the rows from ``first`` up to ``last``, read from the file."""
        row = self.nbytes // max(self.shape[0], 1)
        memory = torch.empty((last - first) * row, dtype=torch.uint8)
        read_into(self.path, self.start + first * row, memory.numpy())
        return memory.view(DTYPES[self.dtype]).view(last - first, *self.shape[1:])


def read_into(path: Path, start: int, memory) -> None:
    """Fill some memory with the bytes of a file from ``start`` on.

    Raises
    ------
    ValueError
        When the file ends before.
    """
    with open(path, "rb", buffering=0) as file:
        file.seek(start)
        view, done = memoryview(memory).cast("B"), 0
        while done < len(view):
            count = file.readinto(view[done:])
            if not count:
                raise ValueError(f"{path} ends at byte {start + done}; more is wanted: cut short?")
            done += count


@dataclass(frozen=True)
class Source:
    """A checkpoint's tensors by name, in the order in which they lie, and its files.

    Parameters
    ----------
    folder : Path
    tensors : dict of str to Stored
    fingerprint : str
        Of names, shapes, sizes and dates: another one tells that the files have changed.
    """

    folder: Path
    tensors: dict[str, Stored]
    fingerprint: str


def open_source(folder: str | Path) -> Source:
    """Read the headers of a checkpoint's files, and see whether all bytes are there.

    Parameters
    ----------
    folder : str or path
        With one ``model.safetensors``, or an index and the shards that it names.

    Raises
    ------
    ValueError
        When there is no such folder, a file is missing, damaged or cut short, the index names
        what is not there, or the weights are a pickle.
    """
    folder = files.checked_folder(folder, "checkpoint")
    if not folder.is_dir():
        raise ValueError(f"checkpoint is {folder}, where no folder is; a model's folder is wanted")
    index = _index(folder)
    tensors, seen = {}, hashlib.sha256()
    for name in sorted(set(index.values())) if index else [SINGLE]:
        path = folder / name
        found = header(path)
        state = path.stat()
        seen.update(f"{name} {state.st_size} {state.st_mtime_ns} {sorted(found)}".encode())
        tensors |= {key: one for key, one in found.items() if not index or index.get(key) == name}
    if missing := sorted(set(index) - set(tensors)):
        raise ValueError(f"{folder / INDEX} puts {missing[0]} into {index[missing[0]]}: not there")
    return Source(folder, tensors, seen.hexdigest())


def _index(folder):
    """Return the shard of each tensor, or nothing where there is one file."""
    if not (folder / INDEX).is_file():
        if not (folder / SINGLE).is_file():
            raise ValueError(_without_weights(folder))
        return {}
    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"]
        shards = sorted(set(index.values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{folder / INDEX} is damaged: it maps no tensors to shards") from error
    for name in shards:
        if Path(name).name != name or not (folder / name).is_file():
            raise ValueError(f"{folder / INDEX} names the shard {name}, which is not there")
    return index


def _without_weights(folder):
    pickles = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLES)
    if pickles:
        return (
            f"checkpoint holds its weights as a pickle ({pickles[0]}), which may run any program "
            "when it is read; safetensors are wanted: load it where you trust it, and "
            "save_pretrained it"
        )
    return f"checkpoint is {folder}, which holds no {SINGLE} and no {INDEX}; one of them is wanted"


def header(path: Path) -> dict[str, Stored]:
    """Return the tensors of a safetensors file, in the order in which they lie.

    Raises
    ------
    ValueError
        When the file is damaged, or shorter or longer than its header says.
    """
    size, start, content = raw_header(path)
    content.pop("__metadata__", None)
    found = {}
    try:
        for name, note in sorted(content.items(), key=lambda item: item[1]["data_offsets"]):
            first, last = note["data_offsets"]
            shape = tuple(note["shape"])
            found[name] = Stored(path, note["dtype"], shape, start + first, last - first)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged: its header describes no tensors") from error
    end = max((one.start + one.nbytes for one in found.values()), default=start)
    if end != size:
        raise ValueError(f"{path} has {size:,} bytes; {end:,} are wanted: it was cut short")
    for name, one in found.items():
        width = DTYPES[one.dtype].itemsize if one.dtype in DTYPES else None
        if width and width * math.prod(one.shape) != one.nbytes:
            raise ValueError(f"{path} is damaged: {name} has {one.nbytes} bytes for {one.shape}")
    return found


def raw_header(path: Path) -> tuple[int, int, dict]:
    """Return a safetensors file's size, where its tensors begin, and its header."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        try:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > size - 8:
                raise ValueError("a header longer than the file")
            content = json.loads(file.read(length))
            content.get("__metadata__")
        except (struct.error, ValueError, AttributeError) as error:
            raise ValueError(f"{path} is no safetensors file, or was cut short") from error
    return size, 8 + length, content
