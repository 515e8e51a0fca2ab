"""MiniLM as files for other programs: one function a file.

Masks, mean and length are part of every graph, so that a program without Python needs to bring
nothing but the ids and the mask of a sentence.
"""

from pathlib import Path

import numpy as np
import torch
from torch import nn

from lightcourse import files, models, quantization

TEXTS = "The library opens at nine in the morning.", "How do I bring back a book that is overdue?"
TOKENS = 16
HIDDEN = -1e9  # is added to the scores of padding


def sentences() -> np.ndarray:
    """Return ids and mask of each text, int64 of shape (texts, 2, 1, tokens)."""
    limits = {"max_length": TOKENS, "truncation": True, "padding": "max_length"}
    found = models.load_minilm_tokenizer()(list(TEXTS), return_tensors="np", **limits)
    pairs = np.stack([found["input_ids"], found["attention_mask"]], axis=1)
    return pairs.reshape(
        len(TEXTS), 2, 1, TOKENS
    )  # [:, :, None] has strides of 0, which some refuse


class Sentence(nn.Module):
    """From ids and mask to the mean over the real tokens, scaled to length 1."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, ids, mask):
        mask = mask.to(torch.float32)
        # From a mask of integers transformers computes indices, of which PT2E makes floats.
        scores = (1.0 - mask)[:, None, None, :] * HIDDEN
        hidden = self.model(input_ids=ids, attention_mask=scores).last_hidden_state
        return nn.functional.normalize((hidden * mask[..., None]).sum(1))


def floats():
    """Return MiniLM, and a sentence to export it with."""
    return Sentence(models.load_minilm()).eval(), tuple(map(torch.from_numpy, sentences()[0]))


def _quantized():
    model = models.load_minilm()
    quantization.quantize_(model, bits=8, activations=8)
    return model


def weights(path):
    """Save the weights alone: torch needs transformers for the rest."""
    files.save_tensors(models.load_minilm().state_dict(), path)


def integers(path):
    """Save our integers alone."""
    quantization.save_quantized(_quantized(), path)


def onnx(path):
    """Export to ONNX."""
    _export(*floats(), path)


def onnx_integers(path):
    """Export our integers to ONNX."""
    _export(Sentence(_quantized()).eval(), floats()[1], path)


def _export(module, inputs, path):
    how = {"dynamo": True, "verbose": False, "external_data": False}
    torch.onnx.export(module, inputs, path, input_names=["ids", "mask"], **how)


def executorch(path):
    """Lower to ExecuTorch's XNNPACK."""
    _lower(torch.export.export(*floats()), path)


def executorch_integers(path):
    """Quantize the linear layers for XNNPACK, inputs by the row as they come, and lower them."""
    from executorch.backends.xnnpack.quantizer import xnnpack_quantizer
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    module, inputs = floats()
    how = xnnpack_quantizer.get_symmetric_quantization_config(is_per_channel=True, is_dynamic=True)
    quantizer = xnnpack_quantizer.XNNPACKQuantizer()
    quantizer.set_operator_type(torch.ops.aten.linear.default, how)
    prepared = prepare_pt2e(torch.export.export(module, inputs).module(), quantizer)
    prepared(*inputs)  # a weight's range is looked up when it is read
    _lower(torch.export.export(convert_pt2e(prepared), inputs), path)


def _lower(exported, path):
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    lowered = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()])
    Path(path).write_bytes(lowered.to_executorch().buffer)


def openvino(path):
    """Convert as OpenVINO does by itself: weights are stored in 16 bits."""
    import openvino

    openvino.save_model(_converted(), path)


def openvino_integers(path):
    """Convert, weights and tables in 8 bits."""
    import nncf
    import openvino

    openvino.save_model(nncf.compress_weights(_converted()), path)


def _converted():
    import openvino

    module, inputs = floats()
    shapes = [openvino.PartialShape(list(given.shape)) for given in inputs]
    return openvino.convert_model(module, example_input=inputs, input=shapes)


def litert(path):
    """Convert to LiteRT's format."""
    import litert_torch

    litert_torch.convert(*floats()).export(path)
