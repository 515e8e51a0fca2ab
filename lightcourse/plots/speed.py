"""Times, and what a machine can do at most."""

from lightcourse.plots.palette import COLOURS


def call_times(seconds: list[float], ax=None):
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
    ax.set(xlabel="call", ylabel="milliseconds", ylim=(0, max(times) * 1.3))
    ax.legend(loc="upper right", fontsize=12)
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
    corners = [peak / bandwidth for bandwidth, peak in machines.values()]
    x = np.geomspace(min(seen) / 4, max(*seen, *corners) * 4, 200)
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
