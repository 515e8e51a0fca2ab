"""Cases and answers as text, so that a function can be asked in another process.

:func:`answer` is all that runs beside a learner's function: it knows neither the right answer
nor a way to it. What it returns is data, never a pickle: numbers, strings, tuples, lists,
tensors and arrays of numbers; of anything else only the type's name goes through.
"""

import base64
import contextlib
import io
import json
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

# The largest case or answer of any exercise takes 17 thousand letters.
MOST_LETTERS = 2**22
DEEPEST = 20  # containers inside each other
NUMBERS = ("bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64")
TENSORS = (*NUMBERS, "bfloat16")


@dataclass(frozen=True)
class Other:
    """What stands for a value that is no number, string, tuple, list, tensor or array."""

    type_name: str


def encode(value) -> str:
    """Return ``value`` as letters of base64 (RFC 4648) that hold JSON (RFC 8259).

    Raises
    ------
    ValueError
        When that would be more than ``MOST_LETTERS`` letters.
    """
    text = base64.b64encode(json.dumps(_plain(value)).encode()).decode()
    if len(text) > MOST_LETTERS:
        raise ValueError(f"{len(text)} letters; at most {MOST_LETTERS} are sent")
    return text


def decode(text: str):
    """Return the value that :func:`encode` wrote; nothing in ``text`` is ever run.

    Raises
    ------
    ValueError
        When ``text`` is too long, or none of what ``encode`` writes.
    """
    if len(text) > MOST_LETTERS:
        raise ValueError(f"{len(text)} letters; at most {MOST_LETTERS} are read")
    try:
        return _value(json.loads(base64.b64decode(text, validate=True)))
    # torch raises a RuntimeError for an empty tensor whose other sizes overflow.
    except (TypeError, KeyError, OverflowError, RuntimeError, ValueError) as error:
        raise ValueError(f"no value in these {len(text)} letters: {error}") from error


def _plain(value):
    """Return what JSON can write: containers and arrays as a pair of their kind and content."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (tuple, list)):
        return {"tuple" if isinstance(value, tuple) else "list": [_plain(entry) for entry in value]}
    if _is_tensor(value):
        return _plain_tensor(value)
    if isinstance(value, (np.ndarray, np.generic)) and value.dtype.name in NUMBERS:
        return {"array": [value.dtype.name, list(value.shape), _letters(value.tobytes())]}
    return {"other": type(value).__name__[:80]}


def _is_tensor(value):
    """Tell a tensor; where nobody has imported torch, nothing is one."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def _plain_tensor(tensor):
    import torch

    name = str(tensor.dtype).removeprefix("torch.")
    if name not in TENSORS or tensor.layout != torch.strided:
        return {"other": f"{name} tensor"}
    # A copy: where a dimension has one entry, contiguous() leaves strides that view() refuses.
    plain = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
    data = plain.reshape(-1).view(torch.uint8).numpy().tobytes()
    return {"tensor": [name, list(tensor.shape), _letters(data)]}


def _letters(data):
    return base64.b64encode(data).decode()


def _value(plain, depth=0):
    if depth > DEEPEST:
        raise ValueError(f"more than {DEEPEST} containers inside each other")
    if not isinstance(plain, dict):
        if isinstance(plain, list):
            raise ValueError("a bare list")
        return plain
    ((kind, content),) = plain.items()
    if kind in ("tuple", "list"):
        return {"tuple": tuple, "list": list}[kind](_value(entry, depth + 1) for entry in content)
    if kind == "other":
        return Other(str(content)[:80])
    return {"tensor": _tensor, "array": _array}[kind](*content)


def _array(name, shape, letters):
    dtype = np.dtype(NUMBERS[NUMBERS.index(name)])
    data = _checked(letters, shape, dtype.itemsize)
    return np.frombuffer(data, dtype).reshape(shape)


def _tensor(name, shape, letters):
    import torch

    dtype = getattr(torch, TENSORS[TENSORS.index(name)])
    data = _checked(letters, shape, dtype.itemsize)
    if not data:
        return torch.empty(shape, dtype=dtype, device="cpu")
    if name == "bool":  # a byte that is neither 0 nor 1 is no truth value
        return torch.frombuffer(data, dtype=torch.uint8).bool().reshape(shape)
    return torch.frombuffer(data, dtype=dtype).reshape(shape)


def _checked(letters, shape, item_size):
    """Return the bytes of an array after a look at whether they fill its shape."""
    data = bytearray(base64.b64decode(letters, validate=True))
    if not all(type(size) is int and size >= 0 for size in shape) or len(shape) > 16:
        raise ValueError(f"shape {shape}")
    if math.prod(shape) * item_size != len(data):
        raise ValueError(f"{len(data)} bytes for shape {shape}")
    return data


def answer(function: Callable, text: str) -> str:
    """Call a learner's function on one case; return its answer, both as :func:`encode` writes.

    Parameters
    ----------
    function : callable
        What it prints is swallowed; what it raises, ``exit()`` included, is told.
    text : str
        The case: a tuple of arguments.

    Returns
    -------
    str
        One of ``("answer", answer, arguments after the call)``, ``("raised", what)`` and
        ``("no function", type's name)``.
    """
    if not callable(function):
        return encode(("no function", type(function).__name__))
    case = decode(text)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            return encode(("answer", function(*case), case))
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return encode(("raised", _told(error)))


def _told(error):
    try:
        return f"{type(error).__name__}: {error}"[:1000]
    except Exception:
        return type(error).__name__
