"""Models as files that other programs run."""

from lightcourse.deployment.onnx_contents import OnnxContents, onnx_summary
from lightcourse.deployment.onnx_files import export_decoder, export_encoder
from lightcourse.deployment.onnx_quantizers import (
    onnx_quantize_blocks,
    onnx_quantize_dynamic,
    onnx_quantize_static,
)
from lightcourse.deployment.onnx_sessions import OnnxDecoder, open_onnx

__all__ = [
    "OnnxContents",
    "OnnxDecoder",
    "export_decoder",
    "export_encoder",
    "onnx_quantize_blocks",
    "onnx_quantize_dynamic",
    "onnx_quantize_static",
    "onnx_summary",
    "open_onnx",
]
