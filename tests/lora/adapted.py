"""Toys with adapters that do something."""

import torch

from lightcourse import lora
from tests import toys


def shaken(model):
    """Give every update a value, as training would."""
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_b" in name:
            parameter.data.normal_(std=0.1)
    return model


def two_adapters(family="bert"):
    """Return a model with the adapters first and second, and the logits it has with each."""
    model = toys.ALL[family]()
    answers = {None: toys.logits(model)}
    ends = {"bert": ["query", "dense"], "gpt2": ["c_attn"], "llama": ["q_proj", "up_proj"]}[family]
    for number, adapter in enumerate(["first", "second"]):
        lora.add_lora_(model, 2 + number, 4.0, ends if number else None, adapter=adapter)
        torch.manual_seed(number)
        for layer in model.modules():
            if getattr(layer, "adapter", None) == adapter:
                layer.lora_b.data.normal_(std=0.2)
        answers[adapter] = toys.logits(model)
    return model, answers
