"""Files of safetensors that are written a piece at a time, and carry their own hash."""

import hashlib
import json
import os
import struct
import uuid
from pathlib import Path

import torch

from lightcourse import files
from lightcourse.streaming.plan import Task, nbytes
from lightcourse.streaming.recipe import Compression
from lightcourse.streaming.source import DTYPES, Stored, header, raw_header, read_into

BAND = 2**20  # weights that are rounded together; the search for a scale copies them several times
BLOCK = 2**22  # bytes that are copied together


class Shard:
    """A safetensors file under construction, whose tensors are filled from front to back.

    Its header, of known length, is written last: it carries a hash of all tensors' hashes. Whoever
    makes it closes its ``file``.

    Parameters
    ----------
    path : Path
    kinds : dict of str to (str, tuple of int)
        dtype and shape of each tensor, by name.
    """

    def __init__(self, path: Path, kinds: dict):
        order = sorted(kinds, key=lambda name: (-DTYPES[kinds[name][0]].itemsize, name))
        self.kinds = {name: kinds[name] for name in order}
        self.start = len(self._header("0" * 64))
        self.places, place = {}, self.start
        for name, kind in self.kinds.items():
            self.places[name] = place
            place += nbytes(kind)
        self.hashes = {name: hashlib.sha256() for name in order}
        self.file = open(path, "wb")  # noqa: SIM115

    def _header(self, digest):
        notes, end = {"__metadata__": {"format": "pt", "sha256": digest}}, 0
        for name, (dtype, shape) in self.kinds.items():
            first, end = end, end + nbytes((dtype, shape))
            notes[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [first, end]}
        text = json.dumps(notes, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        return struct.pack("<Q", len(text)) + text

    def add(self, name: str, values: torch.Tensor) -> int:
        """Write the next piece of a tensor; return its bytes."""
        data = memoryview(values.contiguous().view(-1).view(torch.uint8).numpy())
        self.file.seek(self.places[name])
        self.file.write(data)
        self.hashes[name].update(data)
        self.places[name] += len(data)
        return len(data)

    def finish(self) -> None:
        """Write the header, and see that all of it reaches the disk."""
        self.file.seek(0)
        self.file.write(self._header(_joined(one.digest() for one in self.hashes.values())))
        self.file.flush()
        os.fsync(self.file.fileno())


def _joined(digests):
    return hashlib.sha256(b"".join(digests)).hexdigest()


def write_shard(path: Path, work: list[Task], compression: Compression, tell) -> Path:
    """Write one file of a compressed checkpoint; it appears under its name when it is whole.

    Where another start of the job has made it in the meantime, the same bytes, that one stays.

    Parameters
    ----------
    path : Path
    work : list of Task
        Its tensors.
    compression : Compression
    tell : callable
        Called with the bytes of the checkpoint that were worked through.

    Raises
    ------
    ValueError
        When a matrix cannot be rounded.
    OSError
        When the disk is full.
    """
    part = part_of(path)
    shard = Shard(part, {name: kind for task in work for name, kind in task.outputs().items()})
    with files.full_disk_explained(f"no space left to write {path.name}"), shard.file:
        for task in work:
            for piece, read in pieces(task, compression):
                for name, values in piece.items():
                    shard.add(name, values)
                tell(read)
        shard.finish()
    try:
        os.replace(part, path)
    except FileNotFoundError:  # another start has cleaned up
        if not path.exists():
            raise
    return path


def part_of(path: Path) -> Path:
    """Return where a shard is written until it is whole: another place each time.

    A killed torchrun may leave processes behind that go on writing.
    """
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")


def parts(path: Path) -> list[Path]:
    """Return what was begun of a shard, by whomever, and has not been finished."""
    return list(path.parent.glob(f".{path.name}.*part"))


def pieces(task: Task, compression: Compression):
    """Yield what becomes of a tensor piece by piece, by name, and the bytes that it was."""
    if not task.buffers:
        yield from _copied(task)
        return
    if task.guards:
        yield {task.name: torch.zeros(1)}, 0
    rows, columns = task.shape
    step = max(16, BAND // columns // 16 * 16)  # whole panels
    whole = task.stored.rows(0, columns).T if task.turned else None
    for first in range(0, rows, step):
        last = min(first + step, rows)
        weight = task.stored.rows(first, last) if whole is None else whole[first:last]
        try:
            band = compression.layer(weight)
        except ValueError as error:
            raise ValueError(f"{task.name}, rows {first} to {last}: {error}") from error
        yield {task.called(n): t for n, t in band.state_dict().items()}, weight.nbytes


def _copied(task):
    """Yield a tensor's bytes as they are, in blocks."""
    stored = task.stored
    for start in range(0, stored.nbytes, BLOCK):
        memory = torch.empty(min(BLOCK, stored.nbytes - start), dtype=torch.uint8)
        read_into(stored.path, stored.start + start, memory.numpy())
        yield {task.name: memory}, len(memory)


def verify(path: str | Path) -> None:
    """Read a file of a compressed checkpoint, and compare its hash with the one it carries.

    Raises
    ------
    ValueError
        When it carries none, or another one.
    """
    path = files.checked_path(path)
    tensors = header(path)
    carried = raw_header(path)[2].get("__metadata__", {}).get("sha256")
    if carried is None:
        raise ValueError(f"path is {path}, which carries no hash; a file of compress is wanted")
    if carried != _joined(_digest(one) for one in tensors.values()):
        raise ValueError(f"{path} is damaged: its bytes have another hash than it carries")


def _digest(stored: Stored) -> bytes:
    found = hashlib.sha256()
    memory = bytearray(BLOCK)
    for start in range(0, stored.nbytes, BLOCK):
        view = memoryview(memory)[: min(BLOCK, stored.nbytes - start)]
        read_into(stored.path, stored.start + start, view)
        found.update(view)
    return found.digest()
