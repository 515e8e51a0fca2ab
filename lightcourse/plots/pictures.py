"""Pictures of things: matrices, parts of a whole, bytes, integers with their scales."""

import torch

from lightcourse.plots.palette import COLOURS

FILLS = (*COLOURS, "#F0E442")  # Wong's yellow too: on white it is no line, but a fill


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
            style = {"facecolor": FILLS[kind % len(FILLS)], "alpha": 0.35, "edgecolor": "white"}
            ax.add_patch(Rectangle((column, row), 1, 1, linewidth=2, **style))
            ax.text(column + 0.5, row + 0.5, str(text), ha="center", va="center", fontsize=11)
    ax.set(xlim=(0, columns), ylim=(rows, 0), xticks=[], yticks=[], title=title)
    ax.set_frame_on(False)
    return ax


def integer_grid(q, scale, ax=None):
    """Draw a matrix of integers, cell by cell, and beside it the scales that they share.

    Parameters
    ----------
    q : Tensor of integers, shape (rows, columns)
    scale : Tensor of floats
        Of one number, of shape (rows,) or (rows, 1), or (rows, groups): integers with one
        scale share a colour, and the scale stands at the row's end on that colour. More than eight
        scales begin with the first colour again.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ValueError
        When the scales do not divide the matrix.
    """
    import matplotlib.pyplot as plt

    rows, columns = q.shape
    kinds, scales = _shared(q, torch.as_tensor(scale))
    size = 1.5 + 0.5 * columns + 0.9 * scales.shape[1], 0.6 + 0.36 * rows
    ax = ax or plt.subplots(figsize=size, layout="constrained")[1]
    byte_grid(q.tolist(), kinds.tolist(), ax=ax)
    _write_scales(ax, scales, kinds, columns)
    ax.set_xlim(0, columns + 0.4 + 1.8 * scales.shape[1])
    return ax


def _shared(q, scale):
    """Return which scale each integer has, by number, and the scales with one line a row."""
    rows, columns = q.shape
    scales = scale.reshape(1, 1) if scale.numel() == 1 else scale.reshape(len(scale), -1)
    lines, groups = scales.shape
    if lines not in (1, rows) or columns % groups:
        raise ValueError(
            f"scale has shape {tuple(scale.shape)} for integers of shape {(rows, columns)}; one "
            "number, one for each row, or equal groups in each row are wanted"
        )
    numbers = torch.arange(lines * groups).reshape(lines, groups)
    return numbers.repeat_interleave(columns // groups, dim=1).expand(rows, -1), scales


def _write_scales(ax, scales, kinds, columns):
    """Write each scale behind its integers; one for all stands in the middle."""
    lines, groups = scales.shape
    for line in range(lines):
        height = line + 0.5 if lines == len(kinds) else len(kinds) / 2
        for group in range(groups):
            colour = FILLS[(line * groups + group) % len(FILLS)]
            text = f"× {float(scales[line, group]):.3g}"
            place = columns + 0.4 + 1.8 * group, height
            box = {"facecolor": colour, "alpha": 0.35, "edgecolor": "none", "pad": 3}
            ax.text(*place, text, va="center", fontsize=11, bbox=box)


def bytes_moved(parts: dict[str, dict[str, float]], ax=None):
    """Draw what one call reads from memory and writes to it, a bar for each way to compute.

    Parameters
    ----------
    parts : dict of str to dict of str to float
        From the name of a way to its bytes: what is moved, and how much of it.

    Returns
    -------
    matplotlib.axes.Axes
    """
    megabytes = {
        way: {name: count / 1e6 for name, count in moved.items()} for way, moved in parts.items()
    }
    ax = stacked_bars(megabytes, "MB moved by one call", ax)
    for place, moved in enumerate(megabytes.values()):
        total = sum(moved.values())
        ax.text(total, place, f" {total:.1f}", va="center", fontsize=11)
    ax.margins(x=0.1)
    return ax
