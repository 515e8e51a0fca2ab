"""Curves and dots: one value against another, with a mark for each seed."""

from lightcourse.plots.labels import apart
from lightcourse.plots.palette import COLOURS


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
    ends = []
    for index, (name, points) in enumerate(lines.items()):
        x, values = list(points), [np.atleast_1d(value) for value in points.values()]
        y = [value.mean() for value in values]
        colour, marker = COLOURS[index % len(COLOURS)], "os^Dv"[index % 5]
        ax.plot(x, y, marker=marker, color=colour, linewidth=2, markersize=8)
        if any(len(value) > 1 for value in values):
            low, high = [v.min() for v in values], [v.max() for v in values]
            ax.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
        ends.append((y[-1], x[-1], name, colour))
    _name_ends(ax, sorted(ends))
    ticks = sorted({x for points in lines.values() for x in points})
    ax.set_xscale("log", base=2)
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.set(xlabel=xlabel, ylabel=ylabel, xlim=(ticks[0] * 0.8, ticks[-1] * 4))
    ax.grid(alpha=0.3)
    return ax


def _name_ends(ax, ends):
    """Write each line's name at its end: none covers another."""
    low, high = ax.get_ylim()
    gap = (high - low) * 0.07
    heights = apart([y for y, *_ in ends], gap)
    ax.set_ylim(min(low, heights[0] - gap), max(high, heights[-1] + gap))
    for height, (_, x, name, colour) in zip(heights, ends, strict=True):
        ax.annotate(f"  {name}", (x, height), color=colour, va="center", fontsize=12)


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
    percent = {name: {100 * s: y for s, y in points.items()} for name, points in lines.items()}
    return _bands(percent, "zeros, % of the weights", ylabel, ax)


def bits_curves(lines: dict[str, dict[float, list[float]]], ylabel: str, ax=None):
    """Draw one line for each thing over the bits that a weight takes, scales included.

    Parameters
    ----------
    lines : dict of str to dict of float to list of float
        From a line's name to its points: bits, and one value for each seed, as in
        :func:`sparsity_curves`.
    ylabel : str
        Its axis is logarithmic.

    Returns
    -------
    matplotlib.axes.Axes
    """
    return _bands(lines, "bits for each weight, scales included", ylabel, ax)


def bits_panels(panels: dict[str, dict[str, dict[float, list[float]]]], ylabel: str):
    """Draw :func:`bits_curves` side by side, over one vertical axis.

    Parameters
    ----------
    panels : dict of str to lines
        From a panel's title to its lines.
    ylabel : str

    Returns
    -------
    ndarray of matplotlib.axes.Axes
        One for each panel.
    """
    import matplotlib.pyplot as plt

    size = {"figsize": (4.6 * len(panels) + 1, 4), "layout": "constrained"}
    axes = plt.subplots(1, len(panels), sharey=True, squeeze=False, **size)[1][0]
    for ax, (title, lines) in zip(axes, panels.items(), strict=True):
        bits_curves(lines, ylabel, ax).set_title(title)
        if ax is not axes[-1]:
            ax.get_legend().remove()
        if ax is not axes[0]:
            ax.set_ylabel("")
    return axes


def seed_dots(rows: dict[str, list[float]], xlabel: str, ax=None, each: str = "seed"):
    """Draw one row for each thing, and in it one dot for each seed.

    Parameters
    ----------
    rows : dict of str to list of float
        From a row's name to its values; drawn from top to bottom.
    xlabel : str
        Its axis is logarithmic.
    each : str
        What the legend calls a dot, where it stands for something else than a seed.

    Returns
    -------
    matplotlib.axes.Axes
    """
    import matplotlib.pyplot as plt

    ax = ax or plt.subplots(figsize=(8, 1 + 0.42 * len(rows)), layout="constrained")[1]
    for place, values in enumerate(rows.values()):
        for seed, value in enumerate(values):
            style = {"marker": "os^DvPX"[seed % 7], "color": COLOURS[seed % len(COLOURS)]}
            label = None if place else f"{each} {seed}"
            ax.plot(value, place, linestyle="", markersize=9, alpha=0.8, label=label, **style)
    ax.set(xlabel=xlabel, xscale="log", yticks=range(len(rows)), yticklabels=list(rows))
    _plain_numbers(ax.xaxis)
    ax.set_ylim(len(rows) - 0.5, -0.5)  # half a row more, so that no dot is cut
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


def _bands(lines, xlabel, ylabel, ax):
    """Draw lines through means, in bands from the lowest to the highest value."""
    import statistics

    import matplotlib.pyplot as plt

    ax = ax or plt.subplots(figsize=(8, 4.2), layout="constrained")[1]
    for index, (name, points) in enumerate(lines.items()):
        style = {"color": COLOURS[index % len(COLOURS)], "marker": "os^DvPX"[index % 7]}
        mean = [statistics.fmean(values) for values in points.values()]
        ax.plot(list(points), mean, linewidth=2, markersize=8, label=name, **style)
        low, high = ([end(values) for values in points.values()] for end in (min, max))
        ax.fill_between(list(points), low, high, color=style["color"], alpha=0.2, linewidth=0)
    ax.set(xlabel=xlabel, ylabel=ylabel, yscale="log")
    _plain_numbers(ax.yaxis)
    ax.legend(fontsize=11, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    ax.grid(alpha=0.3, which="both")
    return ax


def _plain_numbers(axis):
    """Let a logarithmic axis say 200, not 2 × 10²; and more than 1 where it ends before 3."""
    from matplotlib.ticker import AutoLocator, LogLocator, NullFormatter, StrMethodFormatter

    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)) if high > 4 * low else AutoLocator())
    axis.set_major_formatter(StrMethodFormatter("{x:,g}"))
    axis.set_minor_formatter(NullFormatter())
