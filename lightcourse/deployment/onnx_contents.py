"""What an ONNX file stores, and which operators it runs."""

import os
from collections import Counter
from dataclasses import dataclass

from lightcourse.deployment.onnx_packages import existing, require


@dataclass(frozen=True)
class OnnxContents:
    """What stands in an ONNX file.

    An export that dropped a quantization on its way shows here: its matrices are ``float32``.

    Parameters
    ----------
    stored : dict of str to int
        Bytes of stored numbers by their type, ``"float32"``, ``"uint8"``, …; most first.
    operators : dict of str to int
        How often each operator stands in the graph; most first.
    """

    stored: dict[str, int]
    operators: dict[str, int]

    def __str__(self):
        numbers = [f"{size / 1e6:10.3f} MB of {name}" for name, size in self.stored.items()]
        calls = [f"{count} {name}" for name, count in self.operators.items()]
        return "\n".join([*numbers, "operators: " + ", ".join(calls)])


def onnx_summary(path: str | os.PathLike) -> OnnxContents:
    """Return what an ONNX file stores, by type, and its operators.

    Parameters
    ----------
    path : str or path
        Of a file of any exporter.

    Returns
    -------
    OnnxContents

    Raises
    ------
    ValueError
        When there is no such file, or it is no ONNX file.
    ModuleNotFoundError
        When onnx is not installed.
    """
    graph = read(path).graph
    held = [*graph.initializer, *(own.t for node in graph.node for own in node.attribute)]
    stored = Counter()
    for tensor in held:
        if tensor.data_type:
            stored[_type_of(tensor)] += _bytes_of(tensor)
    operators = Counter(node.op_type for node in graph.node)
    return OnnxContents(dict(stored.most_common()), dict(operators.most_common()))


def read(path: str | os.PathLike):
    """Return an ``onnx.ModelProto``; raise ``ValueError`` where the file holds none."""
    require("onnx")
    import onnx
    from google.protobuf.message import DecodeError

    path = existing(path)
    try:
        return onnx.load(path)
    except DecodeError as error:
        raise ValueError(f"path is {path}, which is damaged or no ONNX file: {error}") from error


def _type_of(tensor):
    from onnx import TensorProto

    name = TensorProto.DataType.Name(tensor.data_type).lower()
    return {"float": "float32", "double": "float64"}.get(name, name)


def _bytes_of(tensor):
    if tensor.HasField("raw_data"):
        return len(tensor.raw_data)
    from onnx import numpy_helper

    return numpy_helper.to_array(tensor).nbytes  # single numbers, mostly
