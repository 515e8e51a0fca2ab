"""The header of a safetensors file, read without the file's numbers, and held against its size.

The file begins with the header's length (8 bytes), the header (JSON) and the numbers. Whoever
believed the header before looking at it would allocate what it says.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path

SIZES = {
    "BOOL": 1,
    "U8": 1,
    "I8": 1,
    "F8_E4M3": 1,
    "F8_E8M0": 1,
    "I16": 2,
    "F16": 2,
    "BF16": 2,
    "I32": 4,
    "F32": 4,
    "I64": 8,
}
# A whole MiniLM's has 12,000 bytes, with a note for each of its layers 20,000.
MOST_HEADER = 2**20
# Once unpacked; MiniLM has 22.6 million.
MOST_NUMBERS = 60_000_000
KIND = "submission"
NOTES = {"layers", "ranks", "shapes", "shared"}


@dataclass(frozen=True)
class Header:
    """What a file says of itself, and keeps.

    Parameters
    ----------
    tensors : dict of str to dict
        ``dtype``, ``shape`` and ``data_offsets`` by name.
    notes : dict
        Of :mod:`lightcourse.capstone.stored`.
    """

    tensors: dict[str, dict]
    notes: dict


def read_header(path: Path) -> Header:
    """Return a file's header, once all that it says fits into the file, and fills it.

    Raises
    ------
    ValueError
        With a sentence for the file's author.
    """
    size = path.stat().st_size
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or not 2 <= length <= size - 8:
            raise _bad(f"its header would have {length:,} bytes, and the file has {size:,}")
        if length > MOST_HEADER:
            raise _bad(f"its header has {length:,} bytes; at most {MOST_HEADER:,} are read")
        found = _parsed(file.read(length))
    metadata = found.pop("__metadata__", {})
    _check_filled(found, size - 8 - length)
    header = Header(found, _notes(metadata))
    _check_numbers(header)
    return header


def _bad(why):
    return ValueError(f"model.safetensors is none of a submission: {why}")


def _parsed(data):
    try:
        found = json.loads(data.decode("utf-8"), object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise _bad(f"its header is no JSON ({str(error)[:100]})") from error
    if not isinstance(found, dict):
        raise _bad("its header is no object")
    return found


def _once(pairs):
    """Return a dict, in which two readers could not see two different values of one key."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands there twice")
    return found


def _check_filled(tensors, room):
    """Raise where tensors overlap, leave a hole, or end elsewhere than the file does."""
    place = 0
    try:
        for name, told in sorted(tensors.items(), key=lambda pair: pair[1]["data_offsets"]):
            start, end = told["data_offsets"]
            wanted = _count(told["shape"]) * SIZES[told["dtype"]]
            if start != place or end - start != wanted:
                raise _bad(
                    f"its header tells of {name[:100]!r} with {wanted:,} bytes at {place:,}, and "
                    f"gives it {end - start:,} at {start:,}"
                )
            place = end
    except (KeyError, TypeError) as error:
        raise _bad(f"its header tells of a tensor without {error}") from error
    if place != room:
        raise _bad(f"its header tells of {place:,} bytes of numbers, and there are {room:,}")


def _count(shape):
    if not isinstance(shape, list) or len(shape) > 8:
        raise TypeError("a shape")
    if not all(type(side) is int and 0 <= side < 2**40 for side in shape):
        raise TypeError("sides of whole numbers")
    return math.prod(shape)


def _notes(metadata):
    if not isinstance(metadata, dict) or KIND not in metadata:
        raise _bad(f"its header has no {KIND!r}; a file of capstone.save_submission is wanted")
    try:
        notes = json.loads(metadata[KIND], object_pairs_hook=_once)
    except (ValueError, TypeError, RecursionError) as error:
        raise _bad(f"its notes are no JSON ({str(error)[:100]})") from error
    if not isinstance(notes, dict) or notes.keys() != NOTES:
        raise _bad(f"its notes are none of {sorted(NOTES)}")
    if not all(isinstance(notes[part], dict) for part in NOTES):
        raise _bad("its notes are no objects")
    return notes


def _check_numbers(header):
    """Raise where masks do not fit what they stand for, or all would be too much to unpack."""
    total = sum(_count(told["shape"]) for told in header.tensors.values())
    # Of two integers a byte each becomes a number: at most eight of a byte, of one bit each.
    total += sum(8 * t["data_offsets"][1] - 8 * t["data_offsets"][0] for t in _integers(header))
    for name, shape in header.notes["shapes"].items():
        mask = header.tensors.get(f"{name}:mask", {"shape": [-1]})["shape"]
        try:
            count = _count(shape)
        except TypeError as error:
            raise _bad(f"its notes give {name[:100]!r} no {error}") from error
        if mask != [-(-count // 8)]:
            raise _bad(f"{name[:100]!r} would have {count:,} numbers, and its mask is {mask}")
        total += count
    if total > MOST_NUMBERS:
        raise _bad(f"it stands for {total:,} numbers; at most {MOST_NUMBERS:,} are unpacked")


def _integers(header):
    return [t for name, t in header.tensors.items() if name.endswith(".qweight")]
