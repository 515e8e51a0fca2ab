"""What pruning does to a matrix and to a stack of layers, and how zeros can be written down."""

from collections.abc import Collection, Sequence

import torch

from lightcourse.plots.palette import COLOURS
from lightcourse.plots.pictures import byte_grid

BLUE, GREEN, GREY = 0, 2, 6


def pruning_steps(weight: torch.Tensor, mask: torch.Tensor):
    """Draw one small matrix as weights, as scores, as a mask and as what is left.

    Parameters
    ----------
    weight : Tensor of shape (rows, columns)
    mask : Tensor of bool, of the same shape
        True = keep. Removed weights stand in grey cells.

    Returns
    -------
    ndarray of matplotlib.axes.Axes
        Four.
    """
    import matplotlib.pyplot as plt

    rows, columns = weight.shape
    size = 1 + 2 * columns, 0.8 + 0.35 * rows
    axes = plt.subplots(1, 4, figsize=size, layout="constrained")[1]
    steps = {
        "the weights": weight,
        "score: their size": weight.abs(),
        "mask: keep the larger": mask.int(),
        "pruned": weight.masked_fill(~mask, 0),
    }
    chosen = [[BLUE if keep else GREY for keep in row] for row in mask.tolist()]
    for ax, (title, matrix) in zip(axes, steps.items(), strict=True):
        kinds = [[BLUE] * columns] * rows if matrix is weight else chosen
        byte_grid(_texts(matrix), kinds, title, ax)
    return axes


def sparse_formats(weight: torch.Tensor):
    """Draw a small matrix with zeros as it is stored dense, as CSR, and as mask and values.

    Parameters
    ----------
    weight : Tensor of float32, shape (rows, columns)
        At least a quarter of it is zero.

    Returns
    -------
    ndarray of matplotlib.axes.Axes
        Three; each title counts the bytes (with indices of 4 bytes).
    """
    import matplotlib.pyplot as plt

    (dense,) = _texts(weight.reshape(1, -1))
    csr = weight.to_sparse_csr()
    values, columns, starts = _texts([csr.values(), csr.col_indices(), csr.crow_indices()])
    bits = _texts([weight.flatten() != 0])[0]
    indices, mask = 4 * (len(columns) + len(starts)), -(-len(bits) // 8)
    forms = {
        f"dense: {4 * len(dense)} bytes": {"values": dense},
        f"CSR: {4 * len(values) + indices} bytes": {
            "values": values,
            "columns": columns,
            "row starts": starts,
        },
        f"mask and values: {mask + 4 * len(values)} bytes": {"bits": bits, "values": values},
    }
    heights = {"height_ratios": [1 + len(form) for form in forms.values()]}
    size = {"figsize": (1.5 + 0.5 * len(dense), 4.2), "gridspec_kw": heights}
    axes = plt.subplots(3, 1, layout="constrained", **size)[1]
    for ax, (title, form) in zip(axes, forms.items(), strict=True):
        kinds = [[BLUE if name == "values" else GREEN] * len(form[name]) for name in form]
        byte_grid(list(form.values()), kinds, title, ax)
        ax.set(xlim=(0, len(dense)), yticks=[row + 0.5 for row in range(len(form))])
        ax.set_yticklabels(list(form))
        ax.tick_params(length=0)
    return axes


def layer_bars(values: Sequence[float], ylabel: str, chosen: Collection[int] = (), ax=None):
    """Draw one bar for each layer of a deep model, on a logarithmic axis.

    Parameters
    ----------
    values : sequence of float
        One for each layer, above 0.
    ylabel : str
    chosen : collection of int
        Layers that stand out, hatched: those that are to go.

    Returns
    -------
    matplotlib.axes.Axes
    """
    import matplotlib.pyplot as plt

    ax = ax or plt.subplots(figsize=(8, 3.2), layout="constrained")[1]
    for layer, value in enumerate(values):
        style = {"color": COLOURS[1], "hatch": "//"} if layer in chosen else {"color": COLOURS[0]}
        ax.bar(layer, value, edgecolor="white", linewidth=0, **style)
    ax.set(xlabel="layer", ylabel=ylabel, yscale="log")
    ax.grid(alpha=0.3, axis="y")
    return ax


def _texts(rows):
    """Return numbers as short texts."""
    return [[f"{float(value) + 0.0:.3g}" for value in row] for row in rows]  # no -0
