"""A program opens a file of MiniLM and asks it: one function a runtime.

A file turns the ids and the mask of one sentence, both (1, tokens), into its vector, (1, 384). Each
function here returns such a call, on one thread. This module itself imports NumPy alone, because

    python -m benchmarks.openers MODULE FUNCTION FILE INPUTS

is a program whose start is timed, up to its first answer.
"""

import importlib
import sys
import time

import numpy as np


def torch_float(path):
    """Build MiniLM and load its weights."""
    import torch

    from lightcourse import files

    torch.set_num_threads(1)
    model = _untrained()
    model.load_state_dict(files.load_tensors(path)[0])
    return _pooled(model.eval())


def ours(path):
    """Build MiniLM, load our integers, jit it."""
    import torch

    from lightcourse import encoding, kernels, quantization

    torch.set_num_threads(1)
    kernels.set_threads(1)
    model = _untrained()
    quantization.load_quantized_(model, path)
    return _pooled(encoding.jit(model.eval()))


def _untrained():
    from transformers import BertConfig, BertModel

    from lightcourse import assets

    return BertModel(BertConfig.from_pretrained(assets.path("minilm")), add_pooling_layer=False)


def _pooled(model):
    import torch

    from lightcourse import models

    def call(ids, mask):
        inputs = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
        return torch.nn.functional.normalize(models.embed(model, [inputs])).numpy()

    return call


def onnx_runtime(path):
    """Open a session."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda ids, mask: session.run(None, {"ids": ids, "mask": mask})[0]


def executorch(path):
    """Load a program; only under a private name can its threads be counted out."""
    import torch
    from executorch.extension.pybindings import portable_lib
    from executorch.runtime import Runtime

    portable_lib._unsafe_reset_threadpool(1)
    method = Runtime.get().load_program(path).load_method("forward")
    return lambda *inputs: method.execute([torch.from_numpy(given) for given in inputs])[0].numpy()


def openvino(path):
    """Compile for this processor; in float32, also where it would choose bfloat16."""
    import openvino

    how = {"INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "LATENCY"}
    how |= {"INFERENCE_PRECISION_HINT": "f32"}
    request = openvino.Core().compile_model(path, "CPU", how).create_infer_request()
    return lambda *inputs: request.infer(list(inputs))[0]


def litert(path):
    """Open an interpreter."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(path, num_threads=1)
    interpreter.allocate_tensors()
    places = interpreter.get_input_details()
    (result,) = interpreter.get_output_details()

    def call(*inputs):
        for place, given in zip(places, inputs, strict=True):
            interpreter.set_tensor(place["index"], given.astype(place["dtype"]))
        interpreter.invoke()
        return interpreter.get_tensor(result["index"])

    return call


def answer_once(module, function, path, inputs):
    """Open a file, answer one sentence, print when that was."""
    opener = getattr(importlib.import_module(module), function)
    opener(path)(*np.load(inputs)[0])
    print(time.time(), flush=True)


if __name__ == "__main__":
    answer_once(*sys.argv[1:])
