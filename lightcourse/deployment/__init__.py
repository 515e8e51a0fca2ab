"""From a model to what other programs, devices and clusters run: files, budgets, forecasts."""

from lightcourse.deployment.budgets import (
    DEVICES,
    Device,
    calls_a_charge,
    fits,
    seconds_a_call,
)
from lightcourse.deployment.cards import ModelCard
from lightcourse.deployment.clusters import (
    Cluster,
    Step,
    all_reduce_seconds,
    data_parallel_seconds,
    idle_share,
    pipeline_seconds,
    ring_bytes,
    seconds_by_way,
    sharded_data_seconds,
    tensor_parallel_seconds,
)
from lightcourse.deployment.forecasts import (
    METHODS,
    Method,
    gpt_neox_20b,
    stored_bytes,
    token_bytes,
)
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
    "Cluster",
    "DEVICES",
    "Device",
    "METHODS",
    "Method",
    "ModelCard",
    "OnnxContents",
    "OnnxDecoder",
    "Step",
    "all_reduce_seconds",
    "calls_a_charge",
    "data_parallel_seconds",
    "export_decoder",
    "export_encoder",
    "fits",
    "gguf_summary",
    "gpt_neox_20b",
    "holds_pickle",
    "idle_share",
    "onnx_quantize_blocks",
    "onnx_quantize_dynamic",
    "onnx_quantize_static",
    "onnx_summary",
    "open_onnx",
    "pipeline_seconds",
    "ring_bytes",
    "save_gguf",
    "seconds_a_call",
    "seconds_by_way",
    "sharded_data_seconds",
    "stored_bytes",
    "tensor_parallel_seconds",
    "token_bytes",
]
