"""ONNX Runtime: dynamic int8 (``quantize_dynamic``) and 4-bit blocks (``MatMulNBits``)."""

import tempfile
from pathlib import Path

import numpy as np


def dynamic_int8(weight, threads, copies):
    """Quantize weights a channel and activations a tensor to 8 bits."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "int8.onnx"
        options = {"DefaultTensorType": 1}
        quantize_dynamic(
            _matmul(weight),
            path,
            per_channel=True,
            weight_type=QuantType.QInt8,
            extra_options=options,
        )
        model = _read(path)
    return _sessions(model, threads, copies)


def four_bits(weight, threads, copies):
    """Quantize weights to 4 bits in blocks of 32; multiply with int8 activations."""
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    quantizer = MatMulNBitsQuantizer(
        _matmul(weight), block_size=32, is_symmetric=True, accuracy_level=4
    )
    quantizer.process()
    return _sessions(quantizer.model.model, threads, copies)


def _matmul(weight):
    from onnx import TensorProto, helper, numpy_helper

    outputs, inputs = weight.shape
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "weight"], ["y"], "matmul")],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", inputs])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", outputs])],
        [numpy_helper.from_array(np.ascontiguousarray(weight.T), "weight")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def _read(path):
    import onnx

    return onnx.load(path)


def _sessions(model, threads, copies):
    sessions = [_session(_perturbed(model, i), threads) for i in range(copies)]

    def bind(x):
        return [_bound(session, x) for session in sessions]

    return bind


def _perturbed(model, shift):
    """Turn the largest initializer by ``shift`` bytes: equal ones might be stored once."""
    largest = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    data = largest.raw_data
    largest.raw_data = data[shift:] + data[:shift]
    serialized = model.SerializeToString()
    largest.raw_data = data
    return serialized


def _session(serialized, threads):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(serialized, options, providers=["CPUExecutionProvider"])


def _bound(session, x):
    """Return a call that reads and writes fixed memory, and returns the output's array."""
    from onnxruntime import OrtValue

    outputs = session.get_outputs()[0].shape[1]
    y = OrtValue.ortvalue_from_numpy(np.empty((len(x), outputs), np.float32))
    binding = session.io_binding()
    source = OrtValue.ortvalue_from_numpy(x)
    binding.bind_ortvalue_input("x", source)
    binding.bind_ortvalue_output("y", y)

    def call(kept=source):  # the binding reads its memory, and does not keep it
        session.run_with_iobinding(binding)
        return y

    return call
