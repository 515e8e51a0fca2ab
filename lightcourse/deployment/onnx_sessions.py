"""ONNX Runtime runs a file; of a causal language model it holds the cache."""

import math
import os

import numpy as np
import torch

from lightcourse import kernels
from lightcourse.deployment.onnx_packages import existing, require
from lightcourse.generation.sessions import check_window

# Our names of paths that have VNNI, which adds products of uint8 and int8 in 32 bits at once.
FULL_SUMS = {"amx", "vnni", "avxvnni"}


def open_onnx(path: str | os.PathLike, threads: int = 1):
    """Let ONNX Runtime load a file for the CPU.

    Parameters
    ----------
    path : str or path
    threads : int
        At least 1.

    Returns
    -------
    onnxruntime.InferenceSession
        What our layers became is exact on x86 processors without VNNI, too: by itself ONNX
        Runtime lets sums of two products overflow there, to be quicker.

    Raises
    ------
    ValueError
        When there is no such file, it is no ONNX file, or ``threads`` is below 1.
    ModuleNotFoundError
        When onnxruntime is not installed.
    """
    require("onnxruntime")
    from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidProtobuf

    path = existing(path)
    if not isinstance(threads, int) or threads < 1:
        raise ValueError(f"threads is {threads}; a whole number from 1 is wanted")
    exact = not FULL_SUMS & set(kernels.available())
    try:
        return _loaded(path, threads, exact)
    except InvalidProtobuf as error:
        raise ValueError(f"path is {path}, which is damaged or no ONNX file: {error}") from error
    except Fail:  # ONNX Runtime 1.32 makes tables of int8 that it quantized unsigned twice
        if not exact:
            raise
        return _loaded(path, threads, exact=False)


def _loaded(path, threads, exact):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 4
    if exact:
        options.add_session_config_entry("session.x64quantprecision", "1")
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


class OnnxDecoder:
    """A causal language model in ONNX Runtime, for :mod:`lightcourse.generation`.

    It takes a model's place in ``generate``, ``stream``, ``write`` and ``speculate``.

    Parameters
    ----------
    path : str or path
        What :func:`lightcourse.deployment.export_decoder` wrote.
    threads : int
        At least 1.

    Attributes
    ----------
    session : onnxruntime.InferenceSession
    window, vocabulary : int
        Tokens of a text, and tokens that the model knows.

    Raises
    ------
    ValueError
        As :func:`open_onnx`, or when the file is no decoder.
    ModuleNotFoundError
        When onnxruntime is not installed.
    """

    def __init__(self, path: str | os.PathLike, threads: int = 1):
        self.session = open_onnx(path, threads)
        told = self.session.get_modelmeta().custom_metadata_map
        if "window" not in told:
            raise ValueError(f"path is {path}; a file that export_decoder wrote is wanted")
        self.window = math.inf if told["window"] == "inf" else int(told["window"])
        self.vocabulary = self.session.get_outputs()[0].shape[2]

    def begin(self, mask: torch.Tensor | None = None) -> "OnnxSession":
        """Return a session that has read nothing; its first reading says how many texts."""
        return OnnxSession(self, mask)


class OnnxSession:
    """Texts that ONNX Runtime reads on; as :class:`lightcourse.generation.TorchSession`."""

    def __init__(self, decoder: OnnxDecoder, mask: torch.Tensor | None = None):
        self.decoder, self.mask, self.length = decoder, mask, 0
        self._padding = 0 if mask is None else int((~mask.bool()).sum(1).min())
        self._past = None

    def read(self, new: torch.Tensor, keep: int = 1) -> torch.Tensor:
        """Read new tokens behind those held; return the logits of the last ``keep`` positions.

        Parameters and errors are those of :meth:`lightcourse.generation.TorchSession.read`.
        """
        if not 1 <= keep <= new.shape[1]:
            raise ValueError(f"keep is {keep}; 1 to {new.shape[1]}, the new tokens, is wanted")
        after, session = self.length + new.shape[1], self.decoder.session
        check_window(after - self._padding, self.decoder.window)
        past = self._empty(len(new)) if self._past is None else self._past
        given = [_value(new.numpy()), _value(self._seen(len(new), after)), *past]
        names = [entry.name for entry in session.get_inputs()]
        logits, *self._past = session.run_with_ort_values(
            None, dict(zip(names, given, strict=True))
        )
        self.length = after
        return torch.from_numpy(logits.numpy()[:, -keep:].copy())

    def forget(self, count: int) -> None:
        """Drop the last ``count`` tokens; raise ``ValueError`` when fewer are held."""
        if not 0 <= count <= self.length:
            raise ValueError(f"count is {count}; 0 to {self.length}, the tokens held, is wanted")
        if count:
            self.length -= count
            self._past = [_value(held.numpy()[:, :, : self.length]) for held in self._past]

    def _empty(self, texts):
        shapes = [entry.shape for entry in self.decoder.session.get_inputs()[2:]]
        return [
            _value(np.empty((texts, heads, 0, width), np.float32)) for _, heads, _, width in shapes
        ]

    def _seen(self, texts, after):
        seen = np.ones((texts, after), np.int64)
        if self.mask is not None:
            known = self.mask[:, :after].numpy()
            seen[:, : known.shape[1]] = known
        return seen


def _value(array):
    from onnxruntime import OrtValue

    return OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array))
