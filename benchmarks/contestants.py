"""Who competes in which discipline."""

from functools import partial

from benchmarks import patterns
from benchmarks.peers import (
    ggml,
    onnx_runtime,
    ours,
    sparse_rows,
    torch_dynamic,
    torch_float,
    torchao_linear,
)

W8, W4, SPARSE = "W8A8", "W4A8", "sparse"
W8A8 = {
    "lightcourse": ours.w8a8,
    "torch fp32": torch_float.fp32,
    "torch bf16": torch_float.bf16,
    "torch dynamic, x86": torch_dynamic.x86,
    "torch dynamic, oneDNN": torch_dynamic.onednn,
    "ONNX Runtime dynamic": onnx_runtime.dynamic_int8,
    "ggml Q8_0": ggml.q8_0,
    "torchao int8": torchao_linear.int8,
}
W4A8 = {
    "lightcourse": ours.w4a8,
    "torch fp32": torch_float.fp32,
    "torch bf16": torch_float.bf16,
    "ONNX Runtime MatMulNBits": onnx_runtime.four_bits,
    "ggml Q4_0": ggml.q4_0,
    "ggml Q4_K": ggml.q4_k,
    "ggml Q4_K, repacked": ggml.q4_k_repacked,
    "torchao 8da4w": torchao_linear.int4,
}
SPARSITIES = (0.5, 0.75, 0.9)
UNSTRUCTURED, TWO_OF_FOUR, BLOCKS = "one by one", "2 of 4", "16x4 blocks"
CSR = {"torch CSR": sparse_rows.torch_csr, "SciPy CSR": sparse_rows.scipy_csr}


SCATTERED = {sparsity: partial(patterns.unstructured, sparsity=sparsity) for sparsity in SPARSITIES}


def _sparse():
    """Yield name, pattern and function; the library's dense kernel is what sparsity must beat."""
    yield "lightcourse", patterns.dense, ours.w8a8
    for sparsity, pattern in SCATTERED.items():
        yield f"{UNSTRUCTURED} {sparsity}", pattern, ours.sparse
    yield TWO_OF_FOUR, patterns.two_of_four, ours.sparse
    for sparsity in SPARSITIES:
        yield f"{BLOCKS} {sparsity}", partial(patterns.blocks, sparsity=sparsity), ours.sparse
    for name, function in CSR.items():
        for sparsity, pattern in SCATTERED.items():
            yield f"{name} {sparsity}", pattern, function


# From a discipline to (name, which weights are kept, function); bytes that a weight takes.
DISCIPLINES = {
    W8: [(name, patterns.dense, function) for name, function in W8A8.items()],
    W4: [(name, patterns.dense, function) for name, function in W4A8.items()],
    SPARSE: list(_sparse()),
}
BYTES = {W8: 1.0, W4: 0.5 + 2 / ours.GROUP, SPARSE: 1.0}
