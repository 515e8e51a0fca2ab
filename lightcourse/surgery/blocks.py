"""Blocks whose inner units can go: feed-forward blocks with neurons, attentions with heads.

Known by the names of their layers: BERT, GPT-2, Llama and whatever is built like them. GPT-2
makes queries, keys and values by one matrix, in three slices.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn

from lightcourse import layers

# Layers that make the neurons or heads, and the one that reads them, below one module.
FEED_FORWARD = [
    ("intermediate.dense", "output.dense"),  # BERT
    ("gate_proj", "up_proj", "down_proj"),  # Llama
    ("c_fc", "c_proj"),  # GPT-2
]
ATTENTION = [
    ("self.query", "self.key", "self.value", "output.dense"),
    ("q_proj", "k_proj", "v_proj", "o_proj"),
    ("c_attn", "c_proj"),  # GPT-2
]


@dataclass(frozen=True)
class Block:
    """The names of the layers that make a block's units and of the one that reads them.

    Parameters
    ----------
    makers : tuple of str
        Each makes all units, a slice of equal size for each one.
    reader : str
        Its inputs are the units.
    units : int
        How many can go one by one.
    fused : int
        How often a maker makes all units, one time behind the other: GPT-2's as queries,
        keys and values.
    """

    makers: tuple[str, ...]
    reader: str
    units: int
    fused: int = 1


def feed_forwards(model: nn.Module) -> dict[str, Block]:
    """Return the feed-forward blocks by name; their units are neurons.

    Raises
    ------
    ValueError
        When the model has none of a known kind.
    """
    return {
        name: Block(makers, reader, width(model, makers[0]))
        for name, makers, reader in matches(model, FEED_FORWARD)
    } or _refuse(model, FEED_FORWARD, "feed-forward block")


def attentions(model: nn.Module) -> dict[str, Block]:
    """Return the attentions by name; their units are key heads, which query heads may share.

    Raises
    ------
    ValueError
        When the model has none of a known kind.
    """
    return known_attentions(model) or _refuse(model, ATTENTION, "attention")


def known_attentions(model: nn.Module) -> dict[str, Block]:
    """Return the attentions by name, as :func:`attentions`; none where there is none."""
    blocks = {}
    for name, makers, reader in matches(model, ATTENTION):
        if size := head_size(model.get_submodule(name)):
            fused = 3 if len(makers) == 1 else 1
            keys = width(model, makers[-1]) // fused
            blocks[name] = Block(makers, reader, keys // size, fused)
    return blocks


def matches(
    model: nn.Module, kinds: Iterable[tuple[str, ...]]
) -> list[tuple[str, tuple[str, ...], str]]:
    """Return name, makers and reader of each block of some kinds, such as ``FEED_FORWARD``.

    Only of blocks whose layers own their weights alone: those of others cannot shrink.
    """
    linear = layers.linear_layers(model).keys() - layers.shared_layers(model)
    found = {}
    for name, module in model.named_modules():
        for kind in kinds:
            paths = [f"{name}.{part}".lstrip(".") for part in kind]
            if all(path in linear for path in paths) and _as_in_gpt2(module, kind):
                found[name] = paths
    return [(name, tuple(paths[:-1]), paths[-1]) for name, paths in found.items()]


def width(model: nn.Module, path: str) -> int:
    """Return the number of outputs of a linear layer."""
    return layers.weight_matrix(model.get_submodule(path)).shape[0]


def _refuse(model, kinds, what):
    names = " or ".join(", ".join(kind) for kind in kinds)
    raise ValueError(
        f"model is a {type(model).__name__} without a known {what}; linear layers that own their "
        f"weights, called {names} are wanted"
    )


def _as_in_gpt2(module, kind):
    """Tell whether a fused layer holds queries, keys, values, each of all heads in their order.

    Others of its name hold keys and values alone, or one key for all heads.
    """
    if kind[0] != "c_attn":
        return True
    made, read = (layers.weight_matrix(getattr(module, part)).shape for part in kind)
    thirds = layers.is_conv1d(module.c_attn) and made[0] == 3 * read[1]
    return thirds and hasattr(module, "split_size") and hasattr(module, "num_heads")


def head_size(attention: nn.Module) -> int | None:
    """Return how many of an attention's outputs are one head's, where it tells."""
    inner = getattr(attention, "self", None)  # BERT's
    return getattr(attention, "head_dim", None) or getattr(inner, "attention_head_size", None)


def has_own_head_size(config: object) -> bool:
    """Tell whether a configuration gives a head's size, or may, beside ``hidden_size``."""
    return hasattr(config, "num_key_value_heads")  # Llama's kind: BERT and GPT-2 have none
