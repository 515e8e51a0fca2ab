"""Numbers on a grid, and how large they are: the number line, the sizes of channels."""

from collections.abc import Sequence

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


def channel_bars(panels: dict[str, Sequence[float]], ylabel: str):
    """Draw how large each channel is, in panels over one logarithmic axis.

    Parameters
    ----------
    panels : dict of str to sequence of float
        From a panel's title to a positive value for each channel.
    ylabel : str

    Returns
    -------
    ndarray of matplotlib.axes.Axes
        One for each panel.
    """
    import matplotlib.pyplot as plt

    size = {"figsize": (3.2 * len(panels), 2.8), "layout": "constrained"}
    axes = plt.subplots(1, len(panels), sharey=True, squeeze=False, **size)[1][0]
    for ax, (title, values) in zip(axes, panels.items(), strict=True):
        ax.bar(range(len(values)), [float(value) for value in values], color=COLOURS[0], width=1)
        ax.set(title=title, xlabel="channel", yscale="log")
        ax.grid(alpha=0.3, axis="y")
    axes[0].set_ylabel(ylabel)
    return axes


def codebooks(values: Sequence[float], books: dict[str, Sequence[float]]):
    """Draw how often values occur, and below them the levels of several codebooks.

    Parameters
    ----------
    values : sequence of float
        Weights, for instance: a histogram of 100 bars.
    books : dict of str to sequence of float
        From a codebook's name to its levels, a tick for each.

    Returns
    -------
    matplotlib.axes.Axes
    """
    import matplotlib.pyplot as plt

    size = {"figsize": (9, 2.2 + 0.35 * len(books)), "layout": "constrained"}
    ratios = {"height_ratios": [2.2, 0.35 * len(books) + 0.2]}
    top, ax = plt.subplots(2, 1, sharex=True, gridspec_kw=ratios, **size)[1]
    top.hist([float(value) for value in values], bins=100, color="#999999")
    top.set(yticks=[], ylabel="weights")
    names = list(books)
    for row, name in enumerate(names):
        style = {"color": COLOURS[row % len(COLOURS)], "linewidth": 3}
        ax.vlines([float(level) for level in books[name]], -row - 0.35, -row + 0.35, **style)
    ax.set(yticks=[-row for row in range(len(names))], yticklabels=names, xlabel="value")
    ax.grid(alpha=0.3, axis="x")
    return ax
