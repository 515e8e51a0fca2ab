"""Compress a checkpoint shard by shard, alone or with others, and go on after a kill.

Processes agree through files alone: each knows from the plan which shards are its own, and a
shard appears under its name when it is whole. The first process also writes what there is once:
the note that tells whose job the folder is, the index, the configuration, which comes last. A
folder without it loads nowhere.
"""

import json
import os
import shutil
import time
from dataclasses import asdict
from pathlib import Path

from lightcourse import files, layers
from lightcourse.progress import bar
from lightcourse.streaming import plan
from lightcourse.streaming.recipe import Compression
from lightcourse.streaming.shards import parts, verify, write_shard
from lightcourse.streaming.source import INDEX, PICKLES, SINGLE, Source, open_source

JOB = "lightcourse-compress.json"
PATIENCE = 600  # seconds without a byte from the others, after which they count as gone
SHARD = 2**30


def environment_place() -> tuple[int, int]:
    """Return this process's rank, and how many there are, as torchrun tells them.

    Raises
    ------
    ValueError
        When the variables RANK and WORLD_SIZE are no such numbers.
    """
    told = os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1")
    if not all(number.isdigit() for number in told) or not int(told[0]) < int(told[1]):
        raise ValueError(
            f"RANK is {told[0]} and WORLD_SIZE {told[1]}; 0 to WORLD_SIZE - 1 is wanted"
        )
    return int(told[0]), int(told[1])


def compress(
    checkpoint: str | Path,
    out: str | Path,
    how: Compression | None = None,
    place: tuple[int, int] = (0, 1),
    shard_bytes: int = SHARD,
    show: bool = False,
) -> layers.Report:
    """Round a checkpoint's linear layers to integers, in little more memory than a few rows take.

    A matrix whose rows are the layer's inputs, as in GPT-2, is read whole.

    The result is that of :func:`lightcourse.quantization.quantize_` and ``save_pretrained``, bit
    for bit, and loads with ``from_pretrained``. Killed at any moment and called again, it goes on
    after the last whole shard, and ends with the same bytes.

    Parameters
    ----------
    checkpoint : str or path
        A folder as ``save_pretrained`` leaves it: safetensors, and a configuration of a model
        that transformers has.
    out : str or path
        A folder: missing, empty, or of the same job.
    how : Compression, optional
        4 bits in groups of 128 without it.
    place : (int, int)
        This process's rank and how many there are: see :func:`environment_place`. They share a
        file system, and need no network between them. Which shards there are, and what they
        hold, does not depend on it.
    shard_bytes : int
        Of a file of the result, where a single tensor is not larger.
    show : bool
        Show a progress bar.

    Returns
    -------
    Report
        For each layer the bytes saved; what was left as it is, and why.

    Raises
    ------
    ValueError
        When the checkpoint is damaged or cannot be compressed so, or ``out`` belongs to another
        job.
    OSError
        When the disk has too little space, or the other processes stand still.
    """
    how, source = how or Compression(), open_source(checkpoint)
    out = files.checked_folder(out, "out")
    model = plan.meta_model(source.folder)
    work, skipped = plan.tasks(model, source, how)
    shards = _named(out, plan.shards(work, shard_bytes))
    _begin(out, _job(source, how, shard_bytes), place)
    _check_space(out, shards)
    _write(shards, how, place, show)
    if place[0] == 0:
        _finish(out, shards, model, source, work, how)
    saved = {t.layer: t.stored.nbytes - _size(t) for t in work if t.buffers}
    return layers.Report("compressed", "bytes saved", saved, skipped)


def _size(task):
    return sum(map(plan.nbytes, task.outputs().values()))


def _named(out, cut):
    if len(cut) == 1:
        return {out / SINGLE: cut[0]}
    return {
        out / f"model-{number:05}-of-{len(cut):05}.safetensors": tasks
        for number, tasks in enumerate(cut, 1)
    }


def _job(source, how, shard_bytes):
    note = {"source": source.fingerprint, "shard_bytes": shard_bytes} | asdict(how)
    return json.dumps(note, indent=1)


def _begin(out, job, place):
    """Let the first process mark the folder as this job's, and the others see that it is."""
    if place[0] == 0 and not (out / JOB).exists():
        if out.is_dir() and any(_foreign(path) for path in out.iterdir()):
            raise ValueError(f"out is {out}, which holds other files; an empty folder is wanted")
        _put(out / JOB, job)
    _wait(lambda: (out / JOB).exists(), lambda: 0, f"the first process to begin {out}")
    if (out / JOB).read_text(encoding="utf-8") != job:
        raise ValueError(
            f"out is {out}, which another job began: from another checkpoint, a changed one, or "
            "with other settings; delete it or name another folder"
        )


def _foreign(path):
    """Tell whether a file is not what a process killed at the very beginning has left."""
    return not path.name.startswith(f".{JOB}.")


def _put(path, text):
    files.write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def _wait(done, moved, what):
    """Wait until something is done, as long as what ``moved`` returns keeps changing."""
    last, since = moved(), time.monotonic()
    while not done():
        time.sleep(0.05)
        now = moved()
        if now != last:
            last, since = now, time.monotonic()
        if time.monotonic() - since > PATIENCE:
            raise OSError(f"waited {PATIENCE} s for {what}: is it still running?")


def _check_space(out, shards):
    needed = sum(sum(map(_size, tasks)) for path, tasks in shards.items() if not path.exists())
    free = shutil.disk_usage(out).free + sum(map(_begun, shards))
    if free < needed:
        raise OSError(f"out is {out}, with {free:,} bytes free; {needed:,} are wanted")


def _bytes(path):
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _begun(path):
    return sum(map(_bytes, parts(path)))


def _write(shards, how, place, show):
    """Write those of this process's shards that are not there yet, without what a kill has left."""
    rank, ranks = place
    own = [path for path in list(shards)[rank::ranks] if not path.exists()]
    _remove(part for path in own for part in parts(path))
    total = sum(task.stored.nbytes for path in own for task in shards[path])
    with bar(total=total, unit="B", unit_scale=True, desc="compressing", show=show) as progress:
        for path in own:
            write_shard(path, shards[path], how, progress.update)


def _remove(paths):
    for path in paths:
        path.unlink(missing_ok=True)


def _finish(out, shards, model, source, work, how):
    """Wait for the others, verify every file, and write what makes the folder a model."""

    def moved():
        return [_bytes(path) + _begun(path) for path in shards]

    _wait(lambda: all(path.exists() for path in shards), moved, "the other processes' shards")
    for path in shards:
        _verify(path)
    _copy_rest(source, out)
    if len(shards) > 1:
        _put(out / INDEX, _index(shards))
    plan.configuration(model, work, source, how)
    _remove(part for path in shards for part in parts(path))
    _remove(out.glob(".*." + 32 * "[0-9a-f]"))  # files' own, of a first process that was killed
    _put(out / "config.json", model.config.to_json_string())


def _verify(path):
    try:
        verify(path)
    except ValueError as error:
        path.unlink(missing_ok=True)
        raise ValueError(f"{error}; it was removed: the same command writes it again") from error


def _index(shards):
    placed = {
        name: path.name for path, tasks in shards.items() for t in tasks for name in t.outputs()
    }
    total = sum(_size(task) for tasks in shards.values() for task in tasks)
    note = {"metadata": {"total_size": total}, "weight_map": dict(sorted(placed.items()))}
    return json.dumps(note, indent=2) + "\n"


def _copy_rest(source: Source, out: Path) -> None:
    """Copy the tokenizer and what else is small: no weights in any form."""
    weights = {".safetensors", ".h5", ".msgpack", ".onnx", ".gguf", *PICKLES}
    for path in sorted(source.folder.iterdir()):
        known = path.name in ("config.json", INDEX, JOB) or path.name.startswith(".")
        index = path.name.endswith(".index.json")
        if path.is_file() and not (known or index or path.suffix in weights):
            files.write_atomically(
                out / path.name, lambda temporary, path=path: shutil.copyfile(path, temporary)
            )
