"""The figures that come back: one function each, which draws into ``Axes`` and returns them."""

import torch

from lightcourse.ledger import COLOURS


def weights(panels: dict[str, torch.Tensor]):
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


def shares(parts: dict[str, dict[str, float]], unit: str, ax=None):
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


def stages(ax=None):
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


def curves(lines: dict[str, dict[float, float]], xlabel: str, ylabel: str, ax=None):
    """Draw one line with markers for each thing, over an axis of doubling steps.

    Parameters
    ----------
    lines : dict of str to dict of float to float
        From a line's name to its points: x and y. The name stands at the line's end.
    xlabel, ylabel : str

    Returns
    -------
    matplotlib.axes.Axes
    """
    import matplotlib.pyplot as plt

    ax = ax or plt.subplots(figsize=(8, 4), layout="constrained")[1]
    for index, (name, points) in enumerate(lines.items()):
        x, y = list(points), list(points.values())
        colour, marker = COLOURS[index % len(COLOURS)], "os^Dv"[index % 5]
        ax.plot(x, y, marker=marker, color=colour, linewidth=2, markersize=8)
        ax.annotate(f"  {name}", (x[-1], y[-1]), color=colour, va="center", fontsize=12)
    ticks = sorted({x for points in lines.values() for x in points})
    ax.set_xscale("log", base=2)
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.set(xlabel=xlabel, ylabel=ylabel, xlim=(ticks[0] * 0.8, ticks[-1] * 4))
    ax.grid(alpha=0.3)
    return ax


def roofline(machines: dict[str, tuple[float, float]], work: dict[str, float], ax=None):
    """Draw the most that machines can compute, over the operations done for each byte read.

    Williams et al. 2009, "Roofline", CACM 52(4): the roof is the smaller of the machine's
    peak and of bandwidth x intensity.

    Parameters
    ----------
    machines : dict of str to (float, float)
        From a name to bandwidth in bytes a second and peak in operations a second.
    work : dict of str to float
        From a name to operations for each byte; drawn as vertical lines.

    Returns
    -------
    matplotlib.axes.Axes
    """
    import matplotlib.pyplot as plt
    import numpy as np

    ax = ax or plt.subplots(figsize=(9, 4.8), layout="constrained")[1]
    x = np.geomspace(min(work.values()) / 4, max(work.values()) * 4, 200)
    for index, (name, (bandwidth, peak)) in enumerate(machines.items()):
        roof = np.minimum(bandwidth * x, peak) / 1e9
        style = {"color": COLOURS[index], "linestyle": ("-", "--", "-.")[index % 3]}
        ax.loglog(x, roof, linewidth=2.5, label=name, **style)
    for name, intensity in work.items():
        ax.axvline(intensity, color="#666666", linestyle=":", linewidth=1.5)
        place = {"xycoords": ("data", "axes fraction"), "rotation": 90, "ha": "right", "va": "top"}
        ax.annotate(f"{name} ", (intensity, 0.98), fontsize=11, **place)
    ax.set(xlabel="operations for each byte read", ylabel="billion operations a second, at most")
    ax.set_ylim(top=max(peak for _, peak in machines.values()) / 1e9 * 100)
    ax.legend(loc="lower right", fontsize=11)
    ax.grid(alpha=0.3)
    return ax


def calls(seconds: list[float], ax=None):
    """Draw the time of every single call, in order, and their median.

    Parameters
    ----------
    seconds : list of float

    Returns
    -------
    matplotlib.axes.Axes
    """
    import statistics

    import matplotlib.pyplot as plt

    ax = ax or plt.subplots(figsize=(8, 3.6), layout="constrained")[1]
    times = [1e3 * second for second in seconds]
    median = statistics.median(times)
    ax.plot(range(1, len(times) + 1), times, "o", color=COLOURS[0], markersize=6)
    ax.axhline(median, color=COLOURS[1], linewidth=2, label=f"median {median:.1f} ms")
    ax.set(xlabel="call", ylabel="milliseconds", ylim=(0, max(times) * 1.15))
    ax.legend(loc="upper right", fontsize=12)
    ax.grid(alpha=0.3)
    return ax
