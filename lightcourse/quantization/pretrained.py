"""Quantized models as transformers saves and loads them, registered in its own way.

``import lightcourse`` is all that ``from_pretrained`` of such a checkpoint needs. Its
``config.json`` names each layer that stores integers, and its safetensors files hold the
integers as they lie in memory.
"""

import copy

import torch
from torch import nn
from transformers.quantizers.auto import register_quantization_config, register_quantizer
from transformers.quantizers.base import HfQuantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from lightcourse import layers
from lightcourse.quantization.saved import KINDS, noted
from lightcourse.quantization.storage import IntegerMatrix

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
    """

    def __init__(self, layers=None, shared=None, **_):
        self.quant_method = METHOD
        self.layers, self.shared = layers or {}, shared or {}


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
        found = {n: m for n, m in model.named_modules() if isinstance(m, IntegerMatrix)}
        inside = {f"{n}.{buffer}" for n, m in found.items() for buffer in m.state_dict()}
        shared = {n: o for n, o in layers.shared_tensors(state).items() if n in inside}
        if found:
            described = {name: _described(module) for name, module in found.items()}
            self.quantization_config = LightcourseConfig(described, shared)
            model.config.quantization_config = self.quantization_config
        elif hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
        return {name: tensor for name, tensor in state.items() if name not in shared}, {}

    def _process_model_before_weight_loading(self, model, **_):
        """Put empty layers of integers where the checkpoint has full ones."""
        described, shared = self.quantization_config.layers, self.quantization_config.shared
        for name, note in described.items():
            module = _empty(note)
            for buffer in module.state_dict():
                if f"{name}.{buffer}" in shared:  # in no file, hence not missing there
                    module._non_persistent_buffers_set.add(buffer)
            layers.replace(model, name, module)
        tied = getattr(model, "all_tied_weights_keys", {})
        model.all_tied_weights_keys = {
            one: other for one, other in tied.items() if one.rpartition(".")[0] not in described
        }
        return model

    def _process_model_after_weight_loading(self, model, **_):
        """Let what was one tensor be one again."""
        for name, owner in self.quantization_config.shared.items():
            module, _, buffer = name.rpartition(".")
            module = model.get_submodule(module)
            module._non_persistent_buffers_set.discard(buffer)
            module._buffers[buffer] = model.get_buffer(owner)
        return model

    def _dequantize(self, model, dtype=None):
        from lightcourse.quantization.verbs import dequantize_

        dequantize_(model)
        return model.to(dtype)


def _described(module):
    tensors = {name: tensor for name, tensor in module.named_buffers() if tensor is not None}
    kinds = {name: [_name(tensor.dtype), list(tensor.shape)] for name, tensor in tensors.items()}
    return noted(module) | {"buffers": kinds}


def _name(dtype):
    return str(dtype).removeprefix("torch.")


def _empty(note):
    """Return a layer as it was described, with nothing in it."""
    buffers = {
        name: torch.empty(shape, dtype=getattr(torch, dtype), device="meta")
        for name, (dtype, shape) in note["buffers"].items()
    }
    return KINDS[note["kind"]].from_parts(note | {"dtype": getattr(torch, note["dtype"])}, buffers)


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


def _shapes(model):
    """Return the shape of each tensor by name, integers standing for the floats they replaced."""
    shapes, inside = {}, set()
    for name, module in model.named_modules():
        if isinstance(module, IntegerMatrix):
            inside |= {f"{name}.{buffer}" for buffer in module.state_dict()}
            shapes[f"{name}.weight"] = tuple(module.shape)
        elif layers.is_conv1d(module):
            inside.add(f"{name}.weight")
            shapes[f"{name}.weight"] = tuple(layers.matrix(module).shape)
    state = model.state_dict()
    return shapes | {n: tuple(tensor.shape) for n, tensor in state.items() if n not in inside}


def _undescribed(model, name, found, wanted):
    if "lora_" in name or ".base." in name:
        return (
            f"{name} belongs to a LoRA, which save_pretrained would write under names that no "
            "from_pretrained reads; merge_lora_ it first, or save the adapter with save_lora"
        )
    return (
        f"{name} is {found} here and {wanted} in the model that this {type(model).__name__}'s "
        "configuration describes: from_pretrained would fill it at random; save it with "
        "save_pruned or save_quantized instead"
    )
