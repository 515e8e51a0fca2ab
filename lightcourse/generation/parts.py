"""What a jitted model is made of, read from a model of transformers, or refused by name."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from lightcourse.programs.parts import (
    ACTIVATIONS,
    Norm,
    check,
    check_bare,
    check_config,
    floats,
    norm,
    product,
)


@dataclass(frozen=True)
class Block:
    """One layer: what it reads by, and the modules that multiply.

    ``read`` holds the projections of queries, keys and values, or one for all three; ``up``
    what widens, a gate and its input, or one.
    """

    norm: Norm
    read: list[nn.Module]
    out: nn.Module
    scaling: float
    second_norm: Norm
    up: list[nn.Module]
    activation: str
    down: nn.Module


@dataclass(frozen=True)
class Parts:
    """A causal language model: its blocks, the final norm, the output layer, the sizes.

    ``embed`` takes ids and positions, int64 of shape (n, t), and returns (n, t, width).
    ``turns`` holds cos and sin, a row for each position of the window; None without rotation.
    """

    embed: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    blocks: list[Block]
    norm: Norm
    output: nn.Module
    width: int
    heads: int
    key_heads: int
    size: int
    turns: tuple[np.ndarray, np.ndarray] | None
    vocabulary: int


def read(model: nn.Module) -> Parts:
    """Return the parts of a model; raise ``ValueError`` for what is not known."""
    name = type(model).__name__
    if name not in FAMILIES:
        raise ValueError(f"model is a {name}; one of {', '.join(FAMILIES)} is wanted")
    if model.training:
        raise ValueError("model is in training mode; model.eval() is wanted")
    check_bare(model)
    return FAMILIES[name](model)


def llama(model: nn.Module) -> Parts:
    """Return the parts of a Llama: rotary positions, SwiGLU, RMSNorm, grouped queries."""
    config = model.config
    check_config(config, "hidden_act", ("silu",))
    check_config(config, "sliding_window", (None,))
    family = type(model).__name__.removesuffix("ForCausalLM")
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    blocks = [
        _llama_block(model, f"model.layers.{i}", family) for i in range(config.num_hidden_layers)
    ]
    return Parts(
        embed=lambda ids, positions: model.model.embed_tokens(ids),
        blocks=blocks,
        norm=norm(model, "model.norm", f"{family}RMSNorm"),
        output=product(model, "lm_head"),
        width=config.hidden_size,
        heads=config.num_attention_heads,
        key_heads=config.num_key_value_heads,
        size=size,
        turns=_turns(model, config),
        vocabulary=config.vocab_size,
    )


def _llama_block(model, name, family):
    attention = check(
        model.get_submodule(f"{name}.self_attn"), f"{family}Attention", f"{name}.self_attn"
    )
    check(model.get_submodule(f"{name}.mlp"), f"{family}MLP", f"{name}.mlp")
    kind = f"{family}RMSNorm"
    return Block(
        norm=norm(model, f"{name}.input_layernorm", kind),
        read=[product(model, f"{name}.self_attn.{part}_proj") for part in "qkv"],
        out=product(model, f"{name}.self_attn.o_proj"),
        scaling=attention.scaling,
        second_norm=norm(model, f"{name}.post_attention_layernorm", kind),
        up=[product(model, f"{name}.mlp.{part}_proj") for part in ("gate", "up")],
        activation="silu",
        down=product(model, f"{name}.mlp.down_proj"),
    )


def _turns(model, config):
    """Return the rotations of all positions, as the model itself computes them."""
    kind = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default")
    if kind not in ("default", "linear", "llama3"):  # others change with the text's length
        raise ValueError(f"rope_type is {kind!r}; default, linear or llama3 is wanted")
    positions = torch.arange(config.max_position_embeddings)[None]
    with torch.no_grad():
        cos, sin = model.model.rotary_emb(torch.zeros(1), positions)
    return floats(cos[0]), floats(sin[0])


def gpt2(model: nn.Module) -> Parts:
    """Return the parts of a GPT-2: learned positions, GELU, LayerNorm, one matrix for q, k, v."""
    config, body = model.config, model.transformer
    check_config(config, "activation_function", tuple(ACTIVATIONS)[1:])
    check_config(config, "add_cross_attention", (False,))
    return Parts(
        embed=lambda ids, positions: body.wte(ids) + body.wpe(positions),
        blocks=[_gpt2_block(model, f"transformer.h.{i}") for i in range(config.n_layer)],
        norm=norm(model, "transformer.ln_f", "LayerNorm"),
        output=product(model, "lm_head"),
        width=config.n_embd,
        heads=config.n_head,
        key_heads=config.n_head,
        size=config.n_embd // config.n_head,
        turns=None,
        vocabulary=config.vocab_size,
    )


def _gpt2_block(model, name):
    attention = check(model.get_submodule(f"{name}.attn"), "GPT2Attention", f"{name}.attn")
    check(model.get_submodule(f"{name}.mlp"), "GPT2MLP", f"{name}.mlp")
    return Block(
        norm=norm(model, f"{name}.ln_1", "LayerNorm"),
        read=[product(model, f"{name}.attn.c_attn")],
        out=product(model, f"{name}.attn.c_proj"),
        scaling=attention.scaling,
        second_norm=norm(model, f"{name}.ln_2", "LayerNorm"),
        up=[product(model, f"{name}.mlp.c_fc")],
        activation=ACTIVATIONS[model.config.activation_function],
        down=product(model, f"{name}.mlp.c_proj"),
    )


FAMILIES = {
    "LlamaForCausalLM": llama,
    "MistralForCausalLM": llama,
    "Qwen2ForCausalLM": llama,
    "GPT2LMHeadModel": gpt2,
}
