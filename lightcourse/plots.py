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


def curves(lines: dict[str, dict[float, float | list[float]]], xlabel: str, ylabel: str, ax=None):
    """Draw one line with markers for each thing, over an axis of doubling steps.

    Parameters
    ----------
    lines : dict of str to dict of float to float
        From a line's name to its points: x and y. Where y is a list, one value for each
        seed, the line goes through the means, in a band from the lowest to the highest. The
        name stands at the line's end.
    xlabel, ylabel : str

    Returns
    -------
    matplotlib.axes.Axes
    """
    import matplotlib.pyplot as plt
    import numpy as np

    ax = ax or plt.subplots(figsize=(8, 4), layout="constrained")[1]
    for index, (name, points) in enumerate(lines.items()):
        x, values = list(points), [np.atleast_1d(value) for value in points.values()]
        y = [value.mean() for value in values]
        colour, marker = COLOURS[index % len(COLOURS)], "os^Dv"[index % 5]
        ax.plot(x, y, marker=marker, color=colour, linewidth=2, markersize=8)
        if any(len(value) > 1 for value in values):
            low, high = [v.min() for v in values], [v.max() for v in values]
            ax.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
        ax.annotate(f"  {name}", (x[-1], y[-1]), color=colour, va="center", fontsize=12)
    ticks = sorted({x for points in lines.values() for x in points})
    ax.set_xscale("log", base=2)
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.set(xlabel=xlabel, ylabel=ylabel, xlim=(ticks[0] * 0.8, ticks[-1] * 4))
    ax.grid(alpha=0.3)
    return ax


def roofline(
    machines: dict[str, tuple[float, float]],
    work: dict[str, float] | None = None,
    ax=None,
    points: dict[str, list[tuple[float, float]]] | None = None,
):
    """Draw the most that machines can compute, over the operations done for each byte read.

    Williams et al. 2009, "Roofline", CACM 52(4): the roof is the smaller of the machine's
    peak and of bandwidth x intensity.

    Parameters
    ----------
    machines : dict of str to (float, float)
        From a name to bandwidth in bytes a second and peak in operations a second.
    work : dict of str to float, optional
        From a name to operations for each byte; drawn as vertical lines.
    points : dict of str to list of (float, float), optional
        From a name to what it was seen to reach: operations for each byte, and operations
        a second.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ValueError
        When there is neither work nor a point.
    """
    import matplotlib.pyplot as plt
    import numpy as np

    work, points = work or {}, points or {}
    seen = [*work.values(), *(intensity for dots in points.values() for intensity, _ in dots)]
    if not seen:
        raise ValueError("work and points are empty; at least one of them is wanted")
    ax = ax or plt.subplots(figsize=(9, 4.8), layout="constrained")[1]
    x = np.geomspace(min(seen) / 4, max(seen) * 4, 200)
    for index, (name, (bandwidth, peak)) in enumerate(machines.items()):
        roof = np.minimum(bandwidth * x, peak) / 1e9
        style = {"color": COLOURS[index], "linestyle": ("-", "--", "-.")[index % 3]}
        ax.loglog(x, roof, linewidth=2.5, label=name, **style)
    for name, intensity in work.items():
        ax.axvline(intensity, color="#666666", linestyle=":", linewidth=1.5)
        place = {"xycoords": ("data", "axes fraction"), "rotation": 90, "ha": "right", "va": "top"}
        ax.annotate(f"{name} ", (intensity, 0.98), fontsize=11, **place)
    _dots(ax, points, len(machines))
    ax.set(xlabel="operations for each byte read", ylabel="billion operations a second, at most")
    headroom = 100 if work else 3  # the names of the vertical lines stand above the roof
    ax.set_ylim(top=max(peak for _, peak in machines.values()) / 1e9 * headroom)
    ax.legend(loc="lower right", fontsize=11)
    ax.grid(alpha=0.3)
    return ax


def _dots(ax, points, index):
    for name, dots in points.items():
        x, y = zip(*dots, strict=True) if dots else ((), ())
        style = {"color": COLOURS[index % len(COLOURS)], "marker": "os^DvPX*"[index % 8]}
        ax.plot(x, [rate / 1e9 for rate in y], linestyle="", alpha=0.75, label=name, **style)
        index += 1


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


def sparsity_curves(lines: dict[str, dict[float, list[float]]], ylabel: str, ax=None):
    """Draw one line for each thing over the share of zeros, with a band over its seeds.

    Parameters
    ----------
    lines : dict of str to dict of float to list of float
        From a line's name to its points: a sparsity, and one value for each seed. The line
        goes through the means, the band from the lowest to the highest.
    ylabel : str
        Its axis is logarithmic.

    Returns
    -------
    matplotlib.axes.Axes
    """
    import statistics

    import matplotlib.pyplot as plt

    ax = ax or plt.subplots(figsize=(8, 4.2), layout="constrained")[1]
    for index, (name, points) in enumerate(lines.items()):
        x = [100 * sparsity for sparsity in points]
        style = {"color": COLOURS[index % len(COLOURS)], "marker": "os^DvPX"[index % 7]}
        mean = [statistics.fmean(values) for values in points.values()]
        ax.plot(x, mean, linewidth=2, markersize=8, label=name, **style)
        low, high = map(min, points.values()), map(max, points.values())
        ax.fill_between(x, list(low), list(high), color=style["color"], alpha=0.2, linewidth=0)
    ax.set(xlabel="zeros, % of the weights", ylabel=ylabel, yscale="log")
    _plain_numbers(ax.yaxis)
    ax.legend(fontsize=11, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    ax.grid(alpha=0.3, which="both")
    return ax


def _plain_numbers(axis):
    """Let a logarithmic axis say 200, not 2 × 10²."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    axis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
    axis.set_major_formatter(StrMethodFormatter("{x:,g}"))
    axis.set_minor_formatter(NullFormatter())


def seeds(rows: dict[str, list[float]], xlabel: str, ax=None):
    """Draw one row for each thing, and in it one dot for each seed.

    Parameters
    ----------
    rows : dict of str to list of float
        From a row's name to its values; drawn from top to bottom.
    xlabel : str
        Its axis is logarithmic.

    Returns
    -------
    matplotlib.axes.Axes
    """
    import matplotlib.pyplot as plt

    ax = ax or plt.subplots(figsize=(8, 1 + 0.42 * len(rows)), layout="constrained")[1]
    for place, values in enumerate(rows.values()):
        for seed, value in enumerate(values):
            style = {"marker": "os^DvPX"[seed % 7], "color": COLOURS[seed % len(COLOURS)]}
            label = None if place else f"seed {seed}"
            ax.plot(value, place, linestyle="", markersize=9, alpha=0.8, label=label, **style)
    ax.set(xlabel=xlabel, xscale="log", yticks=range(len(rows)), yticklabels=list(rows))
    _plain_numbers(ax.xaxis)
    ax.invert_yaxis()
    ax.legend(fontsize=11)
    ax.grid(alpha=0.3)
    return ax


def trade_off(
    points: dict[str, list[tuple[float, float]]], xlabel: str, ylabel: str, start=None, ax=None
):
    """Draw what each thing gained against what it cost, one dot for each seed.

    Parameters
    ----------
    points : dict of str to list of (float, float)
        From a name to its x and y, one pair for each seed.
    xlabel, ylabel : str
    start : (float, float), optional
        Where all of them began; drawn as a star.

    Returns
    -------
    matplotlib.axes.Axes
    """
    import matplotlib.pyplot as plt

    ax = ax or plt.subplots(figsize=(9, 4.2), layout="constrained")[1]
    for index, (name, pairs) in enumerate(points.items()):
        style = {"color": COLOURS[index % len(COLOURS)], "marker": "os^DvPX"[index % 7]}
        ax.plot(*zip(*pairs, strict=True), linestyle="", markersize=9, label=name, **style)
    if start:
        ax.plot(*start, linestyle="", marker="*", markersize=16, color="#666666", label="before")
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.legend(fontsize=11, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    ax.grid(alpha=0.3)
    return ax


def cells(labels: list[list], kinds: list[list[int]], title: str = "", ax=None):
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
