"""What is stored, and how much of it is zeros."""

from torch import nn

from lightcourse import layers


def sparsity(model: nn.Module) -> float:
    """Return the fraction of exact zeros among all weight matrices but embedding tables.

    Those of linear layers, where they store integers too (an integer at its zero point is a
    zero); and those that are no layer's, such as the experts of a mixture: whoever prunes the
    linear layers alone sees here how little of such a model that is. An output layer that is
    tied to a table counts as the table.

    Raises
    ------
    ValueError
        When the model has no such matrix.
    """
    model = layers.inside(model)
    weights = [layer.weight for layer in layers.linear_layers(model).values()]
    weights += [m.weight for m in layers.integer_layers(model).values()]
    weights += [model.get_parameter(name) for name in layers.other_matrices(model)]
    if not weights:
        raise ValueError(f"model is a {type(model).__name__} without a weight matrix")
    zeros = sum(int((weight == 0).sum()) for weight in weights)
    return zeros / sum(weight.numel() for weight in weights)


def size_in_bytes(model: nn.Module) -> int:
    """Return the bytes of everything that the model's ``state_dict`` would store.

    Real buffers as they are held, packed integers and scales included; a tensor that two
    modules share counts once.
    """
    state = model.state_dict(keep_vars=True).values()
    # On meta all tensors lie at 0: there the objects tell which are shared.
    tensors = {id(t) if t.is_meta else (t.data_ptr(), t.nbytes): t.nbytes for t in state}
    return sum(tensors.values())
