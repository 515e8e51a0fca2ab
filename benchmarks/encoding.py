"""MiniLM encodes 32 texts of 128 tokens: who does it in which time, and how alike."""

import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import nn

from benchmarks import timing
from benchmarks.silence import silence
from lightcourse import data, encoding, kernels, models, quantization

TEXTS, TOKENS = 32, 128


def batch() -> dict:
    """Return 32 passages of speeches, cut to 128 tokens each."""
    tokenizer = models.load_minilm_tokenizer()
    texts = [text for text in data.load_speeches("test")["text"] if len(text) > 2000][:TEXTS]
    texts += texts[: TEXTS - len(texts)]
    limits = {"max_length": TOKENS, "truncation": True, "padding": "max_length"}
    return dict(tokenizer(texts, return_tensors="pt", **limits))


def pooled(outputs, mask) -> np.ndarray:
    """Return the mean over each text's tokens, scaled to length 1."""
    outputs = torch.as_tensor(outputs)
    vectors = (outputs * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    return nn.functional.normalize(vectors).numpy()


def fp32(inputs, threads):
    """Run the model as it is."""
    return _torch(models.load_minilm(), inputs, threads)


def bf16(inputs, threads):
    """Run the model in bfloat16."""
    call = _torch(models.load_minilm().to(torch.bfloat16), inputs, threads)
    return lambda: call().float()


def dynamic_x86(inputs, threads):
    """Run torch's dynamic int8, a scale a channel."""
    return _torch(dynamic(models.load_minilm(), "x86"), inputs, threads)


def dynamic_onednn(inputs, threads):
    """Run torch's dynamic int8 with oneDNN."""
    return _torch(dynamic(models.load_minilm(), "onednn"), inputs, threads)


def ours_w8a8(inputs, threads):
    """Run our jitted encoder, 8 bits."""
    model = models.load_minilm()
    quantization.quantize_(model, bits=8, activations=8)
    return _ours(model, inputs, threads)


def ours_w4a8(inputs, threads):
    """Run our jitted encoder, 4 bits in groups of 32."""
    model = models.load_minilm()
    quantization.quantize_(model, bits=4, group_size=32, activations=8)
    return _ours(model, inputs, threads)


def onnx_fp32(inputs, threads):
    """Export to ONNX and run it."""
    return _onnx(_exported(), inputs, threads)


def onnx_int8(inputs, threads):
    """Export to ONNX, quantize dynamically, a scale a channel, and run it."""
    return _onnx(_quantized(), inputs, threads)


ENCODERS = {
    "lightcourse W8A8": ours_w8a8,
    "lightcourse W4A8": ours_w4a8,
    "torch fp32": fp32,
    "torch bf16": bf16,
    "torch dynamic, x86": dynamic_x86,
    "torch dynamic, oneDNN": dynamic_onednn,
    "ONNX Runtime fp32": onnx_fp32,
    "ONNX Runtime dynamic": onnx_int8,
}


def prepare(state, encoder, threads):
    """Load an encoder; return the texts' vectors and the seconds of one call."""
    inputs = batch()
    call = encoder(inputs, threads)
    vectors = pooled(call(), inputs["attention_mask"])
    state["contestant"] = timing.Contestant([call], settle=threads > 1)
    return vectors, state["contestant"].estimate


def take_a_turn(state):
    """Return the seconds of one turn's calls."""
    return state["contestant"].take_a_turn()


def dynamic(model, engine):
    """Quantize a model's linear layers as torch.ao does, with a scale a channel."""
    from torch.ao.quantization import per_channel_dynamic_qconfig, quantize_dynamic

    torch.backends.quantized.engine = engine
    with silence():  # it announces that it will be removed
        return quantize_dynamic(model, {nn.Linear: per_channel_dynamic_qconfig})


def _torch(model, inputs, threads):
    def call():
        torch.set_num_threads(threads)
        return model(**inputs).last_hidden_state

    return call


def _ours(model, inputs, threads):
    encoder = encoding.jit(model)

    def call():
        torch.set_num_threads(threads)
        kernels.set_threads(threads)
        return encoder(**inputs).last_hidden_state

    return call


class _Encoder(nn.Module):
    """The model with tensors for arguments and for its result, as the exporter wants it."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, *inputs):
        ids, mask, types = inputs
        outputs = self.model(input_ids=ids, attention_mask=mask, token_type_ids=types)
        return outputs.last_hidden_state


def _arguments(inputs):
    return tuple(inputs[key] for key in ("input_ids", "attention_mask", "token_type_ids"))


@cache
def _folder():
    return tempfile.TemporaryDirectory()  # until the program ends


@cache
def _exported():
    path = Path(_folder().name) / "minilm.onnx"
    with silence(), torch.no_grad():
        model = _Encoder(models.load_minilm())
        torch.onnx.export(model, _arguments(batch()), path, dynamo=True, verbose=False)
    return path


@cache
def _quantized():
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.shape_inference import quant_pre_process

    ready, small = (_exported().with_stem(stem) for stem in ("ready", "int8"))
    with silence():
        quant_pre_process(_exported(), ready)
        quantize_dynamic(ready, small, per_channel=True, weight_type=QuantType.QInt8)
    return small


def _onnx(path, inputs, threads):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]
    arrays = [tensor.numpy() for tensor in _arguments(inputs)]
    feed = dict(zip(names, arrays, strict=True))
    return lambda: session.run(None, feed)[0]
