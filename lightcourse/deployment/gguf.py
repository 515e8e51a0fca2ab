"""Llamas as GGUF files, which llama.cpp and the programs around it run."""

import copy
import os
from pathlib import Path

import numpy as np
import torch
from torch import nn

from lightcourse import files, layers
from lightcourse.deployment import blocks, gguf_metadata
from lightcourse.integers import integer_matrices
from lightcourse.quantization import QuantizedEmbedding, QuantizedLinear

KINDS = ("F16", "Q8_0", "Q4_0", "Q4_1")
TABLE, OUTPUT = "model.embed_tokens", "lm_head"


def save_gguf(
    model: nn.Module, tokenizer: object, path: str | os.PathLike, kind: str = "F16"
) -> Path:
    """Write a Llama and its tokenizer to one GGUF file, atomically, and return its path.

    A quantized model's integers are written as they are; see
    :func:`lightcourse.deployment.blocks.of_integers` for what float16 scales cost. How our
    layers treat their inputs (``activations``) is not in the file: llama.cpp always rounds
    inputs to 8 bits in groups of 32 where weights are integers, and to float16 where they are
    float16.

    Parameters
    ----------
    model : transformers.LlamaForCausalLM
        Such as ``models.load_tiny_lm("teacher")`` and ``models.load_smollm2()``; unchanged.
    tokenizer : transformers.PreTrainedTokenizerFast
        Byte-level BPE, with as many tokens as the model.
    path : str or path
        Usually ends in ``.gguf``.
    kind : {"F16", "Q8_0", "Q4_0", "Q4_1"}
        Of the linear layers. A model in floats is rounded here, by ggml's rule; its table of
        tokens has 16 bits in F16 and 8 in all others. A model that was quantized already has
        the kind that its integers fit: 8 bits ``"Q8_0"``, 4 bits ``"Q4_0"``, 4 bits with zero
        points ``"Q4_1"``; next to 4 bits some layers, and the table, may have 8. What it kept in
        floats becomes float16. Norms are float32.

    Returns
    -------
    Path

    Raises
    ------
    ValueError
        When the model is no Llama as its configuration describes it (a LoRA, blocks of
        different shapes, biases), integers do not fit the kind, a width or ``group_size`` is
        no multiple of 32, float16 does not hold a value, or the tokenizer is of another kind.
        Nothing is written then.

    Notes
    -----
    The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
    """
    path = files.checked_path(path)
    if kind not in KINDS:
        raise ValueError(f"kind is {kind!r}; one of {KINDS} is wanted")
    model = layers.plainly_named(model)
    config = _checked_config(model)
    metadata = gguf_metadata.of_model(config, kind) | gguf_metadata.of_tokenizer(tokenizer, config)
    tensors = _tensors(model, kind)
    return files.write_atomically(path, lambda file: _write(file, path.stem, metadata, tensors))


def _checked_config(model):
    """Return the configuration, or raise where llama.cpp's Llama computes something else."""
    config = getattr(model, "config", None)
    if getattr(config, "model_type", None) != "llama" or type(model).__name__ != "LlamaForCausalLM":
        raise ValueError(f"model is a {type(model).__name__}; a LlamaForCausalLM is wanted")
    if config.hidden_act != "silu":
        raise ValueError(f"model has hidden_act {config.hidden_act!r}; 'silu' is wanted")
    if config.rope_parameters["rope_type"] != "default":
        rope = config.rope_parameters["rope_type"]
        raise ValueError(f"model has rotary positions of type {rope!r}; 'default' is wanted")
    return config


def _tensors(model, kind):
    """Return all tensors of the file: a name, the array and its kind each."""
    import gguf

    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, model.config.num_hidden_layers)
    found = []
    for name, module in _parts(model).items():
        new = names.get_name(name) + ".weight"
        try:
            array, own = _encoded(name, module, kind, bool(integer_matrices(model)))
        except ValueError as error:
            raise ValueError(f"layer {name}: {error}") from error
        found.append((new, _in_pairs(name, array, model.config), own))
    if kind not in {own for *_, own in found}:  # all have 8 bits, where 4 were asked for
        raise ValueError(f"kind is {kind!r}, which no layer has; kind='Q8_0' is wanted")
    return found


def _parts(model):
    """Return the modules that hold weights, by name; a tied output layer is not among them."""
    with torch.device("meta"):
        plain = type(model)(copy.deepcopy(model.config))
    found = {}
    for name, wanted in plain.named_modules():
        if "weight" in wanted._parameters and not (name == OUTPUT and _is_tied(model)):
            found[name] = _checked(name, model, wanted)
    return found


def _checked(name, model, wanted):
    """Return the module of that name, or raise where it is not what the configuration says."""
    try:
        module = model.get_submodule(name)
    except AttributeError:
        raise ValueError(f"model has no {name}, which its configuration describes") from None
    if type(module) not in (type(wanted), QuantizedLinear, QuantizedEmbedding):
        kind, plain = type(module).__name__, type(wanted).__name__
        raise ValueError(f"layer {name} is a {kind}; a {plain}, or one of integers, is wanted")
    shapes = [tuple(getattr(one, "shape", one.weight.shape)) for one in (module, wanted)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"layer {name} has shape {shapes[0]}; its configuration's {shapes[1]} is wanted: a "
            "file tells one shape for all blocks"
        )
    if getattr(module, "bias", None) is not None:
        raise ValueError(f"layer {name} has a bias; none is wanted")
    return module


def _is_tied(model):
    output, table = model.get_submodule(OUTPUT), model.get_submodule(TABLE)
    held = [getattr(one, "qweight", None) for one in (output, table)]
    if held[0] is None and held[1] is None:
        return output.weight is table.weight
    return held[0] is held[1]


def _encoded(name, module, kind, quantized):
    """Return a module's weight as it stands in the file, and its kind."""
    if isinstance(module, QuantizedLinear | QuantizedEmbedding):
        fits = blocks.kind_of(module)
        if kind == "F16" or fits not in (kind, "Q8_0"):
            raise ValueError(
                f"its integers fit {fits}, but kind is {kind!r}; kind={fits!r} is wanted, or "
                "quantization.dequantize_(model) first"
            )
        return blocks.of_integers(module), fits
    own = _kind_of_floats(name, module, kind, quantized)
    return blocks.of_floats(module.weight, own), own


def _kind_of_floats(name, module, kind, quantized):
    if module.weight.ndim == 1:
        return "F32"
    if quantized or kind == "F16":  # what was left in floats there was left on purpose
        return "F16"
    return "Q8_0" if name in (TABLE, OUTPUT) else kind


def _in_pairs(name, array, config):
    """Order the rows of queries and keys as llama.cpp's rotary positions want them.

    Hugging Face turns row i of a head together with row i + d/2, llama.cpp with its neighbour.
    A row of blocks holds its scales, which so move along.
    """
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    count = heads.get(name.rpartition(".")[2])
    if count is None:
        return array
    order = np.arange(len(array)).reshape(count, 2, -1).swapaxes(1, 2).ravel()
    return array[order]


def _write(file, name, metadata, tensors):
    import gguf

    writer = gguf.GGUFWriter(file, "llama")
    try:
        for key, value in {"general.name": name, **metadata}.items():
            _add(writer, key, value)
        for name, array, kind in tensors:
            writer.add_tensor(name, array, raw_dtype=gguf.GGMLQuantizationType[kind])
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()


def _add(writer, key, value):
    add = {
        bool: writer.add_bool,
        int: writer.add_uint32,
        float: writer.add_float32,
        str: writer.add_string,
        list: writer.add_array,
    }
    add[type(value)](key, value)


def gguf_summary(path: str | os.PathLike) -> dict:
    """Return what a GGUF file holds, whoever wrote it.

    Returns
    -------
    dict
        ``version`` of the format; ``metadata``, a dict of values by key, in which a list stands
        as its length; ``tensors``, a list of ``(name, shape, kind, bytes)``, a shape as torch
        tells it, rows first; ``alignment``, ``data_offset`` (where the tensors begin) and
        ``bytes`` of the file.

    Raises
    ------
    ValueError
        When it is no GGUF file.
    OSError
        When there is no such file.
    """
    import gguf

    path = files.checked_path(path)
    reader = gguf.GGUFReader(path)
    own = {key: field for key, field in reader.fields.items() if not key.startswith("GGUF.")}
    return {
        "version": int(reader.fields["GGUF.version"].contents()),
        "metadata": {key: _value(field) for key, field in own.items()},
        "tensors": [
            (t.name, tuple(t.shape.tolist()[::-1]), t.tensor_type.name, int(t.n_bytes))
            for t in reader.tensors
        ],
        "alignment": int(reader.alignment),
        "data_offset": int(reader.data_offset),
        "bytes": path.stat().st_size,
    }


def _value(field):
    import gguf

    return len(field.data) if field.types[0] == gguf.GGUFValueType.ARRAY else field.contents()
