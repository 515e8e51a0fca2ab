"""One run of a model over a text, in which hooks fold what each layer is given."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn

from lightcourse import asking, layers


@torch.no_grad()
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
    states, counted = {}, {}
    hooks = [
        layer.register_forward_pre_hook(_folder(name, states, counted, fold))
        for name, layer in observed.items()
    ]
    try:
        _run(model, batches, counted)
    finally:
        for hook in hooks:
            hook.remove()
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


def _folder(name, states, counted, fold):
    def observe(_, inputs):
        rows = inputs[0].reshape(-1, inputs[0].shape[-1]).float()
        tokens = counted["tokens"]
        # A layer behind the pooling sees one row a text: padding is gone there already.
        if tokens is not None and tokens.numel() == len(rows):
            rows = rows[tokens.flatten().bool()]
        if not torch.isfinite(rows).all():
            raise ValueError(f"the inputs of {name} hold NaN or infinity; finite ones are wanted")
        if len(rows):
            states[name] = fold(states.get(name), rows)

    return observe


def _run(model, batches, counted):
    """Run the model over all batches; ``counted`` tells the hooks which tokens are real."""
    with layers.evaluating(model), checking_ids(model):
        for inputs in asking.inputs_of_each(batches):
            counted["tokens"] = inputs.get("attention_mask")
            model(**inputs)


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
