"""What a teacher says of each class."""

from lightcourse.plots.palette import COLOURS


def class_bars(said: dict[str, list[float]], classes: list[str], title: str = "", ax=None):
    """Draw the probabilities of all classes as bars, a group of bars for each class.

    Parameters
    ----------
    said : dict of str to list of float
        From a label, such as ``"T = 2"``, to one probability for each class.
    classes : list of str
        Their names, drawn from top to bottom.
    title : str

    Returns
    -------
    matplotlib.axes.Axes
    """
    import matplotlib.pyplot as plt

    ax = ax or plt.subplots(figsize=(8, 0.8 + 0.36 * len(classes)), layout="constrained")[1]
    thick = 0.8 / len(said)
    for index, (label, values) in enumerate(said.items()):
        places = [place + thick * (index - (len(said) - 1) / 2) for place in range(len(classes))]
        style = {"color": COLOURS[index % len(COLOURS)], "hatch": ["", "//", ".."][index % 3]}
        ax.barh(places, values, thick, label=label, edgecolor="white", linewidth=0, **style)
    ax.set(xlabel="probability", xlim=(0, 1), yticks=range(len(classes)), title=title)
    ax.set_yticklabels(classes)
    ax.invert_yaxis()
    ax.grid(alpha=0.3, axis="x")
    ax.legend(fontsize=11, loc="lower right", frameon=False)
    return ax
