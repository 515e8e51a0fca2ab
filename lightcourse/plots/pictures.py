"""Pictures of things: matrices, parts of a whole, bytes, how a model comes to be."""

import torch

from lightcourse.plots.palette import COLOURS


def weight_maps(panels: dict[str, torch.Tensor]):
    """Draw small weight matrices side by side, on one scale of colours.

    Blue is negative, red is positive, white near zero; an exact zero is a grey cell.

    Parameters
    ----------
    panels : dict of str to Tensor of shape (rows, columns)
        From the title of a panel to its matrix.

    Returns
    -------
    ndarray of matplotlib.axes.Axes
        One for each panel.
    """
    import matplotlib.pyplot as plt
    import numpy as np

    width = 2.6 * len(panels)
    figure, axes = plt.subplots(
        1, len(panels), figsize=(width, 2.9), layout="constrained", squeeze=False
    )
    limit = max(float(matrix.abs().max()) for matrix in panels.values())
    colours = plt.get_cmap("RdBu_r").with_extremes(bad="#BBBBBB")
    for ax, (title, matrix) in zip(axes[0], panels.items(), strict=True):
        values = np.ma.masked_equal(matrix.detach().numpy(), 0)
        ax.imshow(values, cmap=colours, vmin=-limit, vmax=limit)
        ax.set_title(title, fontsize=11)
        ax.set(xticks=[], yticks=[])
    return axes[0]


def stacked_bars(parts: dict[str, dict[str, float]], unit: str, ax=None):
    """Draw one horizontal bar for each thing, cut into its parts.

    Parameters
    ----------
    parts : dict of str to dict of str to float
        From a bar's name to its parts: name and size.
    unit : str
        What a size is counted in; the label of the axis.

    Returns
    -------
    matplotlib.axes.Axes
    """
    import matplotlib.pyplot as plt

    ax = ax or plt.subplots(figsize=(8, 0.7 + 0.6 * len(parts)), layout="constrained")[1]
    names = list(dict.fromkeys(part for bar in parts.values() for part in bar))
    left = dict.fromkeys(parts, 0.0)
    for index, name in enumerate(names):
        sizes = [bar.get(name, 0.0) for bar in parts.values()]
        colour = COLOURS[index % len(COLOURS)]
        ax.barh(list(parts), sizes, left=list(left.values()), color=colour, label=name)
        left = {bar: left[bar] + size for bar, size in zip(parts, sizes, strict=True)}
    ax.invert_yaxis()
    ax.set_xlabel(unit)
    ax.legend(ncols=len(names), loc="lower center", bbox_to_anchor=(0.5, 1), frameon=False)
    return ax


def byte_grid(labels: list[list], kinds: list[list[int]], title: str = "", ax=None):
    """Draw a grid of labelled cells: bytes in memory, or the bits of a byte.

    Parameters
    ----------
    labels : list of list
        What stands in each cell, row by row.
    kinds : list of list of int
        The cells of one kind share a colour.
    title : str

    Returns
    -------
    matplotlib.axes.Axes
    """
    import matplotlib.pyplot as plt
    from matplotlib.patches import Rectangle

    rows, columns = len(labels), len(labels[0])
    size = 1 + 0.55 * columns, 0.7 + 0.3 * rows
    ax = ax or plt.subplots(figsize=size, layout="constrained")[1]
    for row, (texts, colours) in enumerate(zip(labels, kinds, strict=True)):
        for column, (text, kind) in enumerate(zip(texts, colours, strict=True)):
            style = {"facecolor": COLOURS[kind % len(COLOURS)], "alpha": 0.35, "edgecolor": "white"}
            ax.add_patch(Rectangle((column, row), 1, 1, linewidth=2, **style))
            ax.text(column + 0.5, row + 0.5, str(text), ha="center", va="center", fontsize=11)
    ax.set(xlim=(0, columns), ylim=(rows, 0), xticks=[], yticks=[], title=title)
    ax.set_frame_on(False)
    return ax


def training_stages(ax=None):
    """Draw how a task model comes to be: plain text, pretraining, base model, fine-tuning.

    Returns
    -------
    matplotlib.axes.Axes
    """
    import matplotlib.pyplot as plt

    ax = ax or plt.subplots(figsize=(11, 4.2), layout="constrained")[1]
    plain, process, model = "#EEEEEE", COLOURS[5], COLOURS[4]
    _box(ax, 0, 1, "plain text\nwithout labels\n\nbillions of words", plain)
    _box(ax, 1, 1, "PRETRAINING\nguess hidden words\nall weights trained\n\nonce, long", process)
    _box(ax, 2, 1, "base model\n\nknows language,\nhas no task", model)
    _box(ax, 3, 1, "FINE-TUNING\nmatch the labels\nall weights, or few\n\noften, short", process)
    _box(ax, 4, 1, "task model\n\nanswers\none question", model)
    _box(ax, 3, 0, "labelled examples\n\nhundreds to\nthousands", plain)
    for column in range(4):
        _arrow(ax, (column + 0.42, 1), (column + 0.58, 1))
    _arrow(ax, (3, 0.42), (3, 0.58))
    ax.text(0.35, 0.05, "encoder:  the [MASK] barked  →  dog\nreads both sides", fontsize=12)
    ax.text(0.35, -0.37, "decoder:  the dog  →  barked\nreads the left side only", fontsize=12)
    _arrow(ax, (1, 0.38), (1, 0.58))
    ax.set(xlim=(-0.5, 4.5), ylim=(-0.5, 1.5))
    ax.axis("off")
    return ax


def _box(ax, x, y, text, colour):
    from matplotlib.patches import FancyBboxPatch

    frame = {"boxstyle": "round,pad=0.02", "edgecolor": "black", "facecolor": colour, "alpha": 0.6}
    ax.add_patch(FancyBboxPatch((x - 0.4, y - 0.38), 0.8, 0.76, **frame))
    ax.text(x, y, text, ha="center", va="center", fontsize=11)


def _arrow(ax, start, end):
    ax.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "linewidth": 2, "color": "black"})
