"""ONNX Runtime's own ways to quantize a file of floats: what ours are compared with."""

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from lightcourse import asking, files
from lightcourse.deployment.onnx_packages import existing, quiet, require


def onnx_quantize_dynamic(source: str | os.PathLike, path: str | os.PathLike) -> Path:
    """Quantize to 8 bits: a scale for each row of weights, and for all inputs of a call.

    Parameters
    ----------
    source : str or path
        An ONNX file of floats.
    path : str or path
        The file to write, whole or not at all.

    Returns
    -------
    Path

    Raises
    ------
    ValueError
        When there is no such file, or ``path`` is that of a folder.
    ModuleNotFoundError
        When onnx or onnxruntime is not installed.
    """
    source, path = _checked(source, path)
    from onnxruntime.quantization import QuantType, quantize_dynamic

    how = {"per_channel": True, "weight_type": QuantType.QInt8}
    return _write(source, path, lambda ready, new: quantize_dynamic(ready, new, **how))


def onnx_quantize_static(
    source: str | os.PathLike, path: str | os.PathLike, batches: Iterable[dict]
) -> Path:
    """Quantize products and tables to 8 bits, their inputs on grids that are fixed beforehand.

    Parameters
    ----------
    source, path
        As in :func:`onnx_quantize_dynamic`.
    batches : iterable of dict
        Texts that tell how far each range reaches: tensors by the names of the file's inputs.
        Others, such as ``token_type_ids``, are left out.

    Returns
    -------
    Path

    Raises
    ------
    ValueError, ModuleNotFoundError
        As :func:`onnx_quantize_dynamic`; or when there is no batch, or one is no dict.
    """
    source, path = _checked(source, path)
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    given = _Batches(source, list(asking.inputs_of_each(batches)))
    how = {"quant_format": QuantFormat.QDQ, "per_channel": True}
    # Quick on x86, where int8 twice, its default, is 20 times slower.
    how |= {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
    # Not sums, whose ranges a mask stretches to -1e38, nor norms.
    how |= {"op_types_to_quantize": ["MatMul", "Gemm", "Gather"]}
    return _write(source, path, lambda ready, new: quantize_static(ready, new, given, **how))


def onnx_quantize_blocks(source: str | os.PathLike, path: str | os.PathLike) -> Path:
    """Quantize weights to 4 bits in blocks of 32, inputs to 8 while it runs.

    Parameters, result and errors are those of :func:`onnx_quantize_dynamic`.
    """
    source, path = _checked(source, path)
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    def quantize(ready, new):
        import onnx

        how = {"block_size": 32, "is_symmetric": True, "accuracy_level": 4}
        quantizer = MatMulNBitsQuantizer(onnx.load(ready), **how)
        quantizer.process()
        quantizer.model.save_model_to_file(str(new))

    return _write(source, path, quantize)


class _Batches:
    """Hands over one batch at each call, then None, as ONNX Runtime asks for them."""

    def __init__(self, source, batches):
        import onnx

        names = [entry.name for entry in onnx.load(source).graph.input]
        self.left = iter({name: batch[name].numpy() for name in names} for batch in batches)

    def get_next(self):
        return next(self.left, None)


def _checked(source, path):
    require("onnx", "onnxruntime")
    return existing(source), files.checked_path(path)


def _write(source, path, quantize):
    """Let ONNX Runtime tidy a file, then quantize it."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as folder, quiet():
        ready = Path(folder) / "ready.onnx"
        # Symbolic shapes are no use here: it fails where texts may be as long as they like.
        quant_pre_process(source, ready, skip_symbolic_shape=True)
        return files.write_atomically(path, lambda new: quantize(ready, new))
