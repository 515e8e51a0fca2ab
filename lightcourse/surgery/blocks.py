"""Blocks whose inner units can go: feed-forward blocks with neurons, attentions with heads.

Known by the names of their layers: BERT, Llama and whatever is built like them; GPT-2's
neurons too, but not its heads (one matrix makes queries, keys and values).
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
    """

    makers: tuple[str, ...]
    reader: str
    units: int


def feed_forwards(model: nn.Module) -> dict[str, Block]:
    """Return the feed-forward blocks by name; their units are neurons.

    Raises
    ------
    ValueError
        When the model has none of a known kind.
    """
    found = _found(model, FEED_FORWARD, "feed-forward block")
    return {name: Block(makers, reader, width(model, makers[0])) for name, makers, reader in found}


def attentions(model: nn.Module) -> dict[str, Block]:
    """Return the attentions by name; their units are key heads, which query heads may share.

    Raises
    ------
    ValueError
        When the model has none of a known kind.
    """
    blocks = {}
    for name, makers, reader in _found(model, ATTENTION, "attention"):
        heads = width(model, makers[1]) // _head_size(model.get_submodule(name))
        blocks[name] = Block(makers, reader, heads)
    return blocks


def matches(
    model: nn.Module, kinds: Iterable[tuple[str, ...]]
) -> list[tuple[str, tuple[str, ...], str]]:
    """Return name, makers and reader of each block of some kinds, such as ``FEED_FORWARD``.

    Only of blocks whose layers own their weights alone: those of others cannot shrink.
    """
    linear = layers.linear_layers(model).keys() - layers.shared_layers(model)
    found = {}
    for name, _ in model.named_modules():
        for kind in kinds:
            paths = [f"{name}.{part}".lstrip(".") for part in kind]
            if all(path in linear for path in paths):
                found[name] = paths
    return [(name, tuple(paths[:-1]), paths[-1]) for name, paths in found.items()]


def width(model: nn.Module, path: str) -> int:
    """Return the number of outputs of a linear layer."""
    return layers.weight_matrix(model.get_submodule(path)).shape[0]


def _found(model, kinds, what):
    if found := matches(model, kinds):
        return found
    raise ValueError(
        f"model is a {type(model).__name__} without a known {what}; linear layers "
        f"called {' or '.join(', '.join(kind) for kind in kinds)} are wanted"
    )


def _head_size(attention):
    return (
        attention.head_dim if hasattr(attention, "head_dim") else attention.self.attention_head_size
    )
