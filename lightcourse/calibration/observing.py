"""One run of a model over a text, in which hooks fold what each layer is given."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from lightcourse import asking, layers


def observe_inputs(
    model: nn.Module,
    batches: Iterable[dict],
    observed: Mapping[str, nn.Module],
    fold: Callable[[object, torch.Tensor], object],
) -> dict[str, object]:
    """Fold all inputs of some linear layers into one state a layer.

    Parameters
    ----------
    model : nn.Module
        Runs once over the batches, in evaluation mode, without gradients; unchanged.
    batches : iterable of dict
        Keyword arguments for the model; ``labels`` are left out. Tokens where
        ``attention_mask`` is 0 do not count.
    observed : mapping of str to nn.Module
        The layers, such as :func:`choose_layers` returns them.
    fold : callable
        ``fold(state, rows)`` returns the new state. ``rows`` are a batch's inputs as float32
        of shape (tokens, inputs), one at least; ``state`` is None at first.

    Returns
    -------
    dict of str to state
        For each layer that ran.

    Raises
    ------
    ValueError
        When there is no batch, one is no dict, a token is outside of the vocabulary, no layer
        saw an input, an input is not finite, or the model lies on ``meta``.
    """
    model = layers.inside(model)
    states, asked = {}, {}
    hooks = [
        layer.register_forward_pre_hook(_folder(name, states, asked, fold))
        for name, layer in observed.items()
    ]
    run_hooked(model, batches, hooks, asked)
    if not states:
        raise ValueError("model ran, but no linear layer saw an input; its own layers are wanted")
    return states


def choose_layers(
    model: nn.Module, found: Mapping[str, nn.Module], names: Iterable[str] | None
) -> dict[str, nn.Module]:
    """Return of the layers ``found`` in a model those that ``names`` names, or all.

    Raises
    ------
    ValueError
        When there are none at all, or ``names`` holds an unknown one.
    """
    if not found:
        raise ValueError(f"model is a {type(model).__name__} without a linear layer to measure")
    names = list(found) if names is None else set(names)
    if unknown := sorted(set(names) - set(found)):
        raise ValueError(f"names holds {unknown}, which are no linear layers of this model")
    return {name: layer for name, layer in found.items() if name in names}


def _folder(name, states, asked, fold):
    def observe(_, inputs):
        rows = inputs[0].reshape(-1, inputs[0].shape[-1]).float()
        tokens = asked["inputs"].get("attention_mask")
        # A layer behind the pooling sees one row a text: padding is gone there already.
        if tokens is not None and tokens.numel() == len(rows):
            rows = rows[tokens.flatten().bool()]
        if not torch.isfinite(rows).all():
            raise ValueError(f"the inputs of {name} hold NaN or infinity; finite ones are wanted")
        if len(rows):
            states[name] = fold(states.get(name), rows)

    return observe


@torch.no_grad()
def run_hooked(
    model: nn.Module, batches: Iterable[dict], hooks: Iterable[RemovableHandle], asked: dict
) -> None:
    """Run a model once over batches while hooks watch it, and remove the hooks.

    Parameters
    ----------
    model : nn.Module
        Runs in evaluation mode, without gradients.
    batches : iterable of dict
        Keyword arguments for the model; ``labels`` are left out.
    hooks : iterable of torch.utils.hooks.RemovableHandle
        Registered already; removed whatever happens.
    asked : dict
        Its entry ``"inputs"`` tells the hooks what the model is asked at the time.

    Raises
    ------
    ValueError
        When there is no batch, one is no dict, or a token is outside of the vocabulary.
    """
    try:
        with layers.evaluating(model), checking_ids(model):
            for asked["inputs"] in asking.inputs_of_each(batches):
                model(**asked["inputs"])
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def checking_ids(model: nn.Module) -> Iterator[None]:
    """Raise ``ValueError`` where a model looks up what a table of it does not have.

    torch's own error names neither the table nor the id.
    """
    hooks = [
        table.register_forward_pre_hook(_checker(name))
        for name, table in layers.embedding_tables(model).items()
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _checker(name):
    def check(table, inputs):
        ids, last = inputs[0], table.num_embeddings - 1
        if not ids.numel():
            raise ValueError(f"batches holds no token for {name}; at least one is wanted")
        if not 0 <= ids.min() <= ids.max() <= last:
            raise ValueError(
                f"batches asks {name} for ids {ids.min()}..{ids.max()}; 0 to {last} is wanted"
            )

    return check
