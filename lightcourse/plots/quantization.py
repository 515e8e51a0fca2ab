"""Figures of numbers on a grid: the number line, the stairs, what a range cuts off."""

import torch

from lightcourse.plots.palette import COLOURS


def number_line(x, scale: float, zero_point: int, quant_min: int, quant_max: int, ax=None):
    """Draw real numbers above, the grid of integers below, and where each number goes.

    Parameters
    ----------
    x : sequence of float
    scale : float
        Distance of two neighbours of the grid.
    zero_point : int
        The integer that stands for 0.
    quant_min, quant_max : int
        The ends of the grid: what lies beyond them is moved there.

    Returns
    -------
    matplotlib.axes.Axes
    """
    import matplotlib.pyplot as plt

    ax = ax or plt.subplots(figsize=(9, 2.6), layout="constrained")[1]
    for q in range(quant_min, quant_max + 1):
        real = (q - zero_point) * scale
        ax.plot([real, real], [-0.12, 0.12], color="#666666", linewidth=2)
        ax.annotate(f"{q}", (real, -0.2), ha="center", va="top", fontsize=13)
        ax.annotate(f"{real:g}", (real, -0.62), ha="center", va="top", fontsize=10)
    for value in x:
        q = min(max(round(value / scale) + zero_point, quant_min), quant_max)
        near = abs((q - zero_point) * scale - value) <= scale / 2 + 1e-9
        style = {"arrowstyle": "->", "color": COLOURS[0 if near else 1], "linewidth": 2}
        ax.annotate("", ((q - zero_point) * scale, 0.12), (value, 0.95), arrowprops=style)
        ax.plot(value, 1, "o" if near else "s", color=style["color"], markersize=10)
        ax.annotate(f"{value:g}", (value, 1.15), ha="center", fontsize=12)
    ax.axhline(0, color="#666666", linewidth=1)
    ax.set(ylim=(-1.1, 1.6), yticks=[-0.73, -0.32, 1], yticklabels=["real", "integer", "number"])
    ax.set(xticks=[], frame_on=False)
    return ax


def staircase(scale: float, zero_point: int, quant_min: int, quant_max: int):
    """Draw what each real number becomes, and beside it the error.

    Parameters
    ----------
    scale, zero_point, quant_min, quant_max
        As in :func:`number_line`.

    Returns
    -------
    ndarray of matplotlib.axes.Axes
        The stairs; the error, with lines at ±scale / 2.
    """
    import matplotlib.pyplot as plt

    low, high = ((q - zero_point) * scale for q in (quant_min, quant_max))
    x = torch.linspace(low - 1.5 * scale, high + 1.5 * scale, 2001)
    q = ((x / scale).round() + zero_point).clamp(quant_min, quant_max)
    back = (q - zero_point) * scale
    axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")[1]
    axes[0].plot(x, x, color="#999999", linewidth=1)
    axes[0].plot(x, back, color=COLOURS[0], linewidth=2)
    axes[1].plot(x, back - x, color=COLOURS[1], linewidth=2)
    for end in (-scale / 2, scale / 2):
        axes[1].axhline(end, color="#666666", linestyle="--")
    axes[0].set(xlabel="real number", ylabel="what is read back")
    axes[1].set(xlabel="real number", ylabel="error")
    for ax in axes:
        ax.grid(alpha=0.3)
    return axes


def clipping(x: torch.Tensor, ranges: dict[str, tuple[float, float]], ax=None):
    """Draw how often each size of number occurs, and the ends of ranges.

    Parameters
    ----------
    x : Tensor of floats
    ranges : dict of str to (float, float)
        From a range's name to its low and its high end, drawn as two vertical lines.

    Returns
    -------
    matplotlib.axes.Axes
        The axis of counts is logarithmic, so that single numbers show.
    """
    import matplotlib.pyplot as plt

    ax = ax or plt.subplots(figsize=(8, 3.4), layout="constrained")[1]
    ax.hist(x.detach().flatten().numpy(), bins=120, color="#BBBBBB")
    for index, (name, ends) in enumerate(ranges.items()):
        style = {"color": COLOURS[index % len(COLOURS)], "linestyle": ("-", "--", ":")[index % 3]}
        for place, end in enumerate(ends):
            ax.axvline(float(end), linewidth=2.5, label=None if place else name, **style)
    ax.set(yscale="log", xlabel="weight", ylabel="how many")
    ax.legend(fontsize=11, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return ax


def error_parts(parts: dict[str, dict[float, float]], ax=None):
    """Draw the parts of an error over the share of the full range that a grid covers.

    Parameters
    ----------
    parts : dict of str to dict of float to float
        From a part's name to its points: a share, 1 for the full range, and an error in
        percent.

    Returns
    -------
    matplotlib.axes.Axes
    """
    import matplotlib.pyplot as plt

    ax = ax or plt.subplots(figsize=(8, 3.6), layout="constrained")[1]
    for index, (name, points) in enumerate(parts.items()):
        style = {"color": COLOURS[index % len(COLOURS)], "marker": "os^Dv"[index % 5]}
        line = ("--", "-.", "-")[index % 3]
        ax.plot(list(points), list(points.values()), line, label=name, linewidth=2, **style)
    ax.set(xlabel="share of the full range", ylabel="squared error, %")
    ax.legend(fontsize=11, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    ax.grid(alpha=0.3)
    return ax
