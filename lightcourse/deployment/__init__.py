"""From a model to what other programs and devices run: files of other formats, and budgets."""

from lightcourse.deployment.budgets import (
    DEVICES,
    Device,
    calls_a_charge,
    fits,
    seconds_a_call,
)
from lightcourse.deployment.cards import ModelCard
from lightcourse.deployment.gguf import gguf_summary, save_gguf
from lightcourse.deployment.onnx_contents import OnnxContents, onnx_summary
from lightcourse.deployment.onnx_files import export_decoder, export_encoder
from lightcourse.deployment.onnx_quantizers import (
    onnx_quantize_blocks,
    onnx_quantize_dynamic,
    onnx_quantize_static,
)
from lightcourse.deployment.onnx_sessions import OnnxDecoder, open_onnx
from lightcourse.deployment.pickles import holds_pickle

__all__ = [
    "DEVICES",
    "Device",
    "ModelCard",
    "OnnxContents",
    "OnnxDecoder",
    "calls_a_charge",
    "export_decoder",
    "export_encoder",
    "fits",
    "gguf_summary",
    "holds_pickle",
    "onnx_quantize_blocks",
    "onnx_quantize_dynamic",
    "onnx_quantize_static",
    "onnx_summary",
    "open_onnx",
    "save_gguf",
    "seconds_a_call",
]
