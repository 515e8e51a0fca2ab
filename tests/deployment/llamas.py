"""Quantized Llamas for several tests."""

from lightcourse import models, quantization

HOW = {
    "Q8_0": {"bits": 8},
    "Q4_0": {"bits": 4},
    "Q4_1": {"bits": 4, "symmetric": False},
}


def quantized(kind, model=None, **more):
    """Quantize a model, the tiny student if none is given, so that it fits a kind of GGUF."""
    model = models.load_tiny_lm("student") if model is None else model
    if kind != "F16":
        quantization.quantize_(model, group_size=32, **HOW[kind], **more)
    return model
