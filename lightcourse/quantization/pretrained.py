"""Quantized models as transformers saves and loads them, registered in its own way.

``import lightcourse`` is all that ``from_pretrained`` of such a checkpoint needs. Its
``config.json`` names each layer that stores integers, and its safetensors files hold the
integers as they lie in memory.
"""

import copy
import re

import torch
from torch import nn
from transformers.quantizers.auto import register_quantization_config, register_quantizer
from transformers.quantizers.base import HfQuantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from lightcourse import layers
from lightcourse.integers import IntegerMatrix, integer_matrices
from lightcourse.quantization.saved import built, dtype_name, noted

METHOD = "lightcourse"


@register_quantization_config(METHOD)
class LightcourseConfig(QuantizationConfigMixin):
    """What ``config.json`` tells of the layers that store integers.

    Parameters
    ----------
    layers : dict of str to dict
        For each such layer or table its kind, settings, and its buffers' dtypes and shapes.
    shared : dict of str to str
        From a buffer that is no tensor of its own to the one it shares.
    dtype : str, optional
        The model's, when it was saved.
    """

    def __init__(self, layers=None, shared=None, dtype=None, **_):
        self.quant_method = METHOD
        self.layers, self.shared, self.dtype = layers or {}, shared or {}, dtype


@register_quantizer(METHOD)
class LightcourseQuantizer(HfQuantizer):
    """Asked by transformers before it saves a changed model, and while it loads a quantized one."""

    requires_calibration = True  # so transformers says: quantize_ first, not from_pretrained(…)

    def is_serializable(self):
        """Say yes: what cannot be saved is refused by name, a moment later."""
        return True

    @property
    def is_trainable(self):
        """Say yes: a LoRA trains beside the integers."""
        return True

    def get_state_dict_and_metadata(self, model):
        """Let the configuration describe the model as it is now; return what to write."""
        _check_describable(model)
        state = model.state_dict()
        found = integer_matrices(model)
        inside = {f"{n}.{buffer}" for n, m in found.items() for buffer in m.state_dict()}
        shared = {n: o for n, o in layers.shared_tensors(state).items() if n in inside}
        if found:
            described = {name: layer_note(module) for name, module in found.items()}
            self.quantization_config = LightcourseConfig(described, shared, dtype_name(model.dtype))
            model.config.quantization_config = self.quantization_config
        elif hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
        kept = {name: tensor for name, tensor in state.items() if name not in shared}
        return kept | {stumbling_block(name): torch.zeros(1) for name in list(found)[:1]}, {}

    def _process_model_before_weight_loading(self, model, **_):
        """Put empty layers of integers where the checkpoint has full ones."""
        described, shared = _as_named_in(model, self.quantization_config)
        tied = getattr(model, "all_tied_weights_keys", {})
        _check_ties(tied, described)
        for name, note in described.items():
            module = _empty(note)
            if note["dtype"] == self.quantization_config.dtype:
                module.dtype = model.dtype  # what from_pretrained(dtype=…) makes of the rest
            for buffer in module.state_dict():
                if f"{name}.{buffer}" in shared:  # in no file, hence not missing there
                    module._non_persistent_buffers_set.add(buffer)
            layers.replace_(model, name, module)
        model.all_tied_weights_keys = {
            one: other for one, other in tied.items() if one.rpartition(".")[0] not in described
        }
        blocks = {re.escape(stumbling_block(name)) for name in self.quantization_config.layers}
        ignored = set(model._keys_to_ignore_on_load_unexpected or ())
        model._keys_to_ignore_on_load_unexpected = ignored | blocks
        return model

    def _process_model_after_weight_loading(self, model, **_):
        """Let what was one tensor be one again."""
        described, shared = _as_named_in(model, self.quantization_config)
        _check_filled(model, described, shared)
        for name, owner in shared.items():
            module, _, buffer = name.rpartition(".")
            module = model.get_submodule(module)
            module._non_persistent_buffers_set.discard(buffer)
            module._buffers[buffer] = model.get_buffer(owner)
        model.is_quantized = False  # as before it was saved: it may move, and train a LoRA
        return model

    def _dequantize(self, model, dtype=None):
        from lightcourse.quantization.verbs import dequantize_

        dequantize_(model)
        return model.to(dtype)


def stumbling_block(name):
    """Return the key of a tensor that only those trip over who do not know our layers.

    Without lightcourse, transformers ignores the ``quantization_config`` and would fill the
    matrices at random. A ``weight`` of the wrong shape makes it raise instead.
    """
    return f"{name}.weight"


def _as_named_in(model, config):
    """Return a checkpoint's notes on layers and shared buffers by the names they have here.

    A base model lacks the prefix that the same layers have below a head, and some heads.
    """
    prefix, known = f"{model.base_model_prefix}.", dict(model.named_modules(remove_duplicate=False))
    here = {}
    for name in config.layers:
        forms = (name, prefix + name, name.removeprefix(prefix))
        here[name] = next((form for form in forms if form in known), None)
    if config.layers and not any(here.values()):
        first = next(iter(config.layers))
        raise ValueError(f"the checkpoint is one of another model: this one has no {first}")
    described = {here[name]: note for name, note in config.layers.items() if here[name]}
    pairs = [[key.rpartition(".") for key in pair] for pair in config.shared.items()]
    return described, {
        f"{here[one]}.{buffer}": f"{here[other]}.{buffer}"
        for (one, _, buffer), (other, _, _) in pairs
        if here[one] and here[other]
    }


def _check_ties(tied, described):
    """Raise where a layer of floats would have to share the integers of another."""
    for one, other in tied.items():
        head, table = one.rpartition(".")[0], other.rpartition(".")[0]
        if table in described and head not in described:
            raise ValueError(
                f"{head} shares its weight with {table}, of which the checkpoint holds integers; "
                "save the model with that head, or leave the table out of quantize_"
            )


def _check_filled(model, described, shared):
    """Raise where the files lacked integers that the configuration promises."""
    if hasattr(model, "hf_device_map"):
        return  # spread over devices: the tensors that transformers marked are gone
    for name in described:
        for buffer, tensor in model.get_submodule(name).named_buffers():
            filled = getattr(tensor, "_is_hf_initialized", False)
            if not filled and f"{name}.{buffer}" not in shared:
                raise ValueError(
                    f"the checkpoint holds no {name}.{buffer}, though its config.json describes "
                    "it: files are damaged, or of a model in floating point that was made from a "
                    "quantized one's configuration; save the model again"
                )


def layer_note(module: IntegerMatrix) -> dict:
    """Return what ``config.json`` tells of a layer: kind, settings, buffers."""
    tensors = module.named_buffers()
    kinds = {name: [dtype_name(tensor.dtype), list(tensor.shape)] for name, tensor in tensors}
    return noted(module) | {"buffers": kinds}


def _empty(note):
    """Return a layer as it was described, with nothing in it."""
    buffers = {
        name: torch.empty(shape, dtype=getattr(torch, dtype), device="meta")
        for name, (dtype, shape) in note["buffers"].items()
    }
    return built(note, buffers)


def _check_describable(model):
    """Raise where ``from_pretrained`` would build another model from the configuration."""
    config = copy.deepcopy(model.config)
    config.__dict__.pop("quantization_config", None)
    with torch.device("meta"):
        plain = type(model)(config)
    wanted, found = _shapes(plain), _shapes(model)
    for name, shape in found.items():
        if wanted.get(name) != shape:
            raise ValueError(_undescribed(model, name, shape, wanted.get(name)))
    for name, stack in plain.named_modules():
        if isinstance(stack, nn.ModuleList) and len(stack) != len(model.get_submodule(name)):
            raise ValueError(_undescribed(model, name, len(model.get_submodule(name)), len(stack)))
    tied = _ties(plain)
    for name, owner in _ties(model).items():
        if tied.get(name, name) != tied.get(owner, owner):
            raise ValueError(
                f"{name} is one tensor with {owner} here, which no configuration tells; save the "
                "model with save_pruned or save_quantized, which keep it one"
            )


def _ties(model):
    """Return by name the first name of each parameter that stands in a model twice."""
    first, named = {}, list(model.named_parameters(remove_duplicate=False))
    owners = {name: first.setdefault(id(parameter), name) for name, parameter in named}
    return {name: owner for name, owner in owners.items() if name != owner}


def _shapes(model):
    """Return the shape of each tensor by name, integers standing for the floats they replaced."""
    shapes, inside = {}, set()
    for name, module in model.named_modules():
        if isinstance(module, IntegerMatrix):
            inside |= {f"{name}.{buffer}" for buffer in module.state_dict()}
            shapes[f"{name}.weight"] = tuple(module.shape)
        elif layers.is_conv1d(module):
            inside.add(f"{name}.weight")
            shapes[f"{name}.weight"] = tuple(layers.weight_matrix(module).shape)
    state = model.state_dict()
    return shapes | {n: tuple(tensor.shape) for n, tensor in state.items() if n not in inside}


def _undescribed(model, name, found, wanted):
    if "lora_" in name or "ia3_" in name or ".base." in name:
        return (
            f"{name} belongs to an adapter, which save_pretrained would write under names that no "
            "from_pretrained reads; merge_lora_ it first, or save the adapter with save_lora"
        )
    if name.endswith((".step", ".input_step", ".input_zero_point")):
        return f"{name} belongs to a layer that trains on the grid; convert_qat_ the model first"
    if wanted is None and name.endswith((".left.weight", ".right.weight")):
        return (
            f"{name} belongs to a factored layer, which no configuration tells; use save_factored"
        )
    return (
        f"{name} is {found} here and {wanted} in the model that this {type(model).__name__}'s "
        "configuration describes: from_pretrained would fill it at random; save it with "
        "save_pruned or save_quantized instead"
    )
