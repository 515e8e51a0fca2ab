"""Models of transformers as ONNX files, their integers as integers."""

import copy
import os
from pathlib import Path

import torch
from torch import nn

from lightcourse import files, layers, models
from lightcourse.deployment.onnx_packages import quiet, require
from lightcourse.generation.sessions import window_of
from lightcourse.quantization import onnx_form

# Nothing in newer ones is needed, and older runtimes read this one.
OPSET = 20
# Of one protobuf message, some for the graph.
MOST_BYTES = 2**31 - 2**24


def export_encoder(model: nn.Module, path: str | os.PathLike) -> Path:
    """Write an encoder as an ONNX file that gives one vector for each text.

    The file's inputs are ``input_ids`` and ``attention_mask``, int64 of shape (batch, length),
    for any batch and length. Its output ``sentence`` is float32 of shape (batch, width): the
    mean output over the real tokens, scaled to length 1. What
    :func:`lightcourse.quantization.quantize_` made integers is stored as integers, of up to 4
    bits two in a byte.

    Parameters
    ----------
    model : nn.Module
        A model of transformers that returns ``last_hidden_state``, such as
        ``models.load_minilm()``, in float32, quantized or not. It is unchanged.
    path : str or path
        Usually ends in ``.onnx``. The file is whole or absent; missing parent folders are made.

    Returns
    -------
    Path

    Raises
    ------
    ValueError
        When ``model`` is no such model, torch cannot export it, or ``path`` is that of a folder.
    ModuleNotFoundError
        When onnx or onnxscript is not installed.
    """
    path, model = files.checked_path(path), _checked(model)
    ids = torch.zeros(2, 8, dtype=torch.int64)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    with torch.no_grad(), layers.evaluating(model):
        if not hasattr(model(**inputs), "last_hidden_state"):
            kind = type(model).__name__
            raise ValueError(
                f"model is a {kind}, which returns no last_hidden_state; a model without a head, "
                "such as load_minilm(), is wanted"
            )
        axes = dict.fromkeys(inputs, {0: "batch", 1: "length"})
        program = _exported(_Encoder(_prepared(model)), inputs, axes, list(inputs), ["sentence"])
    return _write(program, path)


def export_decoder(model: nn.Module, path: str | os.PathLike) -> Path:
    """Write a causal language model as an ONNX file, where its cache goes in and comes out.

    One graph reads a prompt, with an empty past, and then token by token. Its inputs are
    ``input_ids``, int64 of shape (batch, new); ``attention_mask``, int64 of shape (batch, past +
    new), 0 for padding, which stands on the left; and of each layer ``past_key_0`` and
    ``past_value_0``, ``past_key_1``, …, float32 of shape (batch, heads, past, width of a head).
    Its outputs are ``logits``, float32 of shape (batch, new, vocabulary), and
    ``present_key_0``, ``present_value_0``, …: the past of the next call.
    :class:`lightcourse.deployment.OnnxDecoder` makes these calls.

    Parameters
    ----------
    model : nn.Module
        A causal language model of transformers whose tokens see all that stand before, such as
        ``models.load_tiny_lm()``, in float32, quantized or not. It is unchanged.
    path : str or path
        As in :func:`export_encoder`.

    Returns
    -------
    Path

    Raises
    ------
    ValueError, ModuleNotFoundError
        As :func:`export_encoder`.
    """
    path, model = files.checked_path(path), _checked(model)
    with torch.no_grad(), layers.evaluating(model):
        past = _example_past(model)
        ids = torch.zeros(2, 3, dtype=torch.int64)
        mask = torch.ones(2, past[0].shape[2] + 3, dtype=torch.int64)
        inputs = {"input_ids": ids, "attention_mask": mask, "past": past}
        axes = {"input_ids": {0: "batch", 1: "new"}, "attention_mask": {0: "batch", 1: "total"}}
        axes["past"] = [{0: "batch", 2: "past"}] * len(past)
        names = ["input_ids", "attention_mask", *_names("past", past)]
        outputs = ["logits", *_names("present", past)]
        program = _exported(_Decoder(_prepared(model)), inputs, axes, names, outputs)
    program.model.metadata_props["window"] = str(window_of(model))
    return _write(program, path)


def _names(time, past):
    return [f"{time}_{what}_{i}" for i in range(len(past) // 2) for what in ("key", "value")]


class _Encoder(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids, attention_mask):
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
        return nn.functional.normalize(models.mean_output(self.model, inputs))


class _Decoder(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids, attention_mask, past):
        from transformers import DynamicCache

        new, cache = input_ids.shape[1], DynamicCache(list(zip(past[::2], past[1::2], strict=True)))
        output = self.model(
            input_ids=input_ids,
            attention_mask=_unseen(attention_mask, new),
            position_ids=(attention_mask.cumsum(1) - 1).clamp(min=0)[:, -new:],
            past_key_values=cache,
            use_cache=True,
        )
        return output.logits, *(
            held for layer in cache.layers for held in (layer.keys, layer.values)
        )


def _unseen(mask, new):
    """Return what is added to the scores of shape (batch, heads, new, total): 0 where seen."""
    places = torch.arange(mask.shape[1])
    seen = (places <= places[-new:, None]) & (mask[:, None, None] != 0)
    # Not -infinity: padding, which sees nothing, would become NaN.
    return torch.where(seen, 0.0, torch.finfo(torch.float32).min)


def _checked(model):
    """Return the model inside its wrappers, or raise where no file could hold it."""
    require("onnx", "onnxscript")
    from transformers import PreTrainedModel

    model = layers.inside(model)
    if not isinstance(model, PreTrainedModel):
        kind = type(model).__name__
        raise ValueError(f"model is a {kind}; a model of transformers is wanted")
    for name, held in model.named_parameters():
        if held.dtype != torch.float32 or held.device.type != "cpu":
            found = f"{held.dtype} on {held.device}"
            raise ValueError(f"model holds {name} in {found}; torch.float32 on cpu is wanted")
    size = sum(held.nbytes for held in [*model.parameters(), *model.buffers()])
    if size > MOST_BYTES:
        raise ValueError(f"model holds {size:,} bytes; one ONNX file holds {MOST_BYTES:,} at most")
    return model


def _example_past(model):
    """Return keys and values of 5 tokens in turn; raise where the cache holds anything else."""
    from transformers import DynamicCache
    from transformers.cache_utils import DynamicLayer

    if model.get_output_embeddings() is None or model.config.is_encoder_decoder:
        kind = type(model).__name__
        raise ValueError(f"model is a {kind}; a causal language model is wanted")
    cache = DynamicCache(config=model.config)
    for layer in cache.layers:
        if type(layer) is not DynamicLayer:
            kind = type(layer).__name__
            raise ValueError(f"model keeps a {kind}; tokens that see all before are wanted")
    model(input_ids=torch.zeros(2, 5, dtype=torch.int64), past_key_values=cache, use_cache=True)
    return [held for layer in cache.layers for held in (layer.keys, layer.values)]


def _prepared(model):
    """Return a copy that is quick in ONNX; but for its layers it shares all tensors."""
    shared = {id(held): held for held in [*model.parameters(), *model.buffers()]}
    model = copy.deepcopy(model, shared)
    model.set_attn_implementation("eager")  # others look for rows that see nothing: a tenth slower
    model.set_experts_implementation("batched_mm")  # of a mixture: the one that can be exported
    for layer in layers.integer_layers(model).values():
        onnx_form.prepare_(layer)
    return model


def _exported(module, inputs, axes, names, outputs):
    how = {"dynamo": True, "verbose": False, "opset_version": OPSET, "dynamic_shapes": axes}
    how |= {"kwargs": inputs, "input_names": names, "output_names": outputs}
    try:
        with quiet():
            return torch.onnx.export(module.eval(), **how)
    except torch.onnx.OnnxExporterError as error:
        kind, why = type(module.model).__name__, _first_cause(error)
        raise ValueError(f"model is a {kind}, which torch cannot export to ONNX: {why}") from error


def _first_cause(error):
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error).partition("\n")[0]


def _write(program, path):
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()  # the lines of Python that each one comes from: megabytes
    return files.write_atomically(path, lambda path: program.save(path, external_data=False))
