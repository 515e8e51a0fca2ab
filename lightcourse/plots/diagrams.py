"""Diagrams: boxes and arrows for how a thing works."""

from lightcourse.plots.palette import COLOURS

PLAIN, PROCESS, MODEL, TRAINED = "#EEEEEE", COLOURS[5], COLOURS[4], COLOURS[2]


def training_stages(ax=None):
    """Draw how a task model comes to be: plain text, pretraining, base model, fine-tuning.

    Returns
    -------
    matplotlib.axes.Axes
    """
    ax = _canvas(ax, 5, 2)
    _box(ax, 0, 1, "plain text\nwithout labels\n\nbillions of words", PLAIN)
    _box(ax, 1, 1, "PRETRAINING\nguess hidden words\nall weights trained\n\nonce, long", PROCESS)
    _box(ax, 2, 1, "base model\n\nknows language,\nhas no task", MODEL)
    _box(ax, 3, 1, "FINE-TUNING\nmatch the labels\nall weights, or few\n\noften, short", PROCESS)
    _box(ax, 4, 1, "task model\n\nanswers\none question", MODEL)
    _box(ax, 3, 0, "labelled examples\n\nhundreds to\nthousands", PLAIN)
    for column in range(4):
        _arrow(ax, (column + 0.42, 1), (column + 0.58, 1))
    _arrow(ax, (3, 0.42), (3, 0.58))
    ax.text(0.35, 0.05, "encoder:  the [MASK] barked  →  dog\nreads both sides", fontsize=12)
    ax.text(0.35, -0.37, "decoder:  the dog  →  barked\nreads the left side only", fontsize=12)
    _arrow(ax, (1, 0.38), (1, 0.58))
    return ax


def integer_product(ax=None):
    """Draw a layer on integers: inputs are rounded, multiplied as integers, scaled at the end.

    Returns
    -------
    matplotlib.axes.Axes
    """
    ax = _canvas(ax, 4, 2)
    _box(ax, 0, 1, "inputs x\nfloats", PLAIN)
    _box(ax, 1, 1, "x_q = round(x / s)\n8-bit integers\nscale s", PROCESS)
    _box(ax, 1, 0, "weights w_q\n8-bit integers\nscales t", MODEL)
    _box(ax, 2, 1, "sum of products\nall integers,\nthe sum in 32 bits", PROCESS)
    _box(ax, 3, 1, "times s · t\nfloats", PLAIN)
    for column in range(3):
        _arrow(ax, (column + 0.42, 1), (column + 0.58, 1))
    _arrow(ax, (1.42, 0.2), (1.8, 0.58))
    ax.text(2.45, 0.1, "the long loop touches\nno float at all", fontsize=12)
    return ax


def teacher_and_student(ax=None):
    """Draw distillation: one text, two models, two losses, one of the models trained.

    Returns
    -------
    matplotlib.axes.Axes
    """
    ax = _canvas(ax, 4, 2)
    _box(ax, 0, 0.5, "one text", PLAIN)
    _box(ax, 1, 1, "TEACHER\nlarge, frozen", MODEL)
    _box(ax, 1, 0, "student\nsmall, trained", TRAINED)
    _box(ax, 2, 1, "its probabilities\nsoft targets", PLAIN)
    _box(ax, 2, 0, "its probabilities", PLAIN)
    _box(ax, 3, 1, "loss 1\nhow far from\nthe teacher?", PROCESS)
    _box(ax, 3, 0, "loss 2\nhow far from\nthe label?", PROCESS)
    _arrow(ax, (0.42, 0.6), (0.58, 0.85))
    _arrow(ax, (0.42, 0.4), (0.58, 0.15))
    for row in (0, 1):
        _arrow(ax, (1.42, row), (1.58, row))
        _arrow(ax, (2.42, row), (2.58, row))
    _arrow(ax, (2.42, 0.25), (2.65, 0.6))
    return ax


def lora_layer(inputs: int, outputs: int, rank: int, ax=None):
    """Draw a layer with LoRA: the frozen matrix, and two thin ones that are trained beside it.

    Parameters
    ----------
    inputs, outputs : int
        Of the layer.
    rank : int

    Returns
    -------
    matplotlib.axes.Axes
    """
    ax = _canvas(ax, 4, 2)
    whole, thin = inputs * outputs, rank * (inputs + outputs)
    _box(ax, 0, 0.5, f"x\n{inputs} numbers", PLAIN)
    _box(ax, 1.5, 1, f"W, frozen\n{outputs} × {inputs}\n{whole:,} numbers", MODEL)
    _box(ax, 1, 0, f"A, trained\n{rank} × {inputs}", TRAINED)
    _box(ax, 2, 0, f"B, trained\n{outputs} × {rank}", TRAINED)
    _box(ax, 3, 0.5, f"sum: y\n{outputs} numbers", PLAIN)
    _arrow(ax, (0.42, 0.65), (1.08, 1))
    _arrow(ax, (0.42, 0.35), (0.58, 0.1))
    _arrow(ax, (1.42, 0), (1.58, 0))
    _arrow(ax, (1.92, 1), (2.58, 0.65))
    _arrow(ax, (2.42, 0.1), (2.58, 0.35))
    share = f"A and B: {thin:,} numbers, {thin / whole:.1%} of W"
    ax.text(1.5, 0.48, share, ha="center", va="center", fontsize=12)
    return ax


def transformer_block(parts: dict[str, int], ax=None):
    """Draw one transformer layer: attention, then the feed-forward part, each added to what came.

    Parameters
    ----------
    parts : dict of str to int
        From the names of its parts, in the order in which a token passes them, to their
        parameters.

    Returns
    -------
    matplotlib.axes.Axes
    """
    ax = _canvas(ax, len(parts) + 2, 1)
    _box(ax, 0, 0, "in: one row\nfor each token", PLAIN)
    for column, (name, count) in enumerate(parts.items(), 1):
        _box(ax, column, 0, f"{name}\n\n{count:,}\nparameters", MODEL)
        _arrow(ax, (column - 0.58, 0), (column - 0.42, 0))
    end = len(parts) + 1
    _box(ax, end, 0, "out: rows of\nthe same shape", PLAIN)
    _arrow(ax, (end - 0.58, 0), (end - 0.42, 0))
    return ax


def _canvas(ax, columns, rows):
    """Return empty axes in which boxes stand at whole numbers."""
    import matplotlib.pyplot as plt

    size = 2.2 * columns, 0.2 + 1.7 * rows
    ax = ax or plt.subplots(figsize=size, layout="constrained")[1]
    ax.set(xlim=(-0.5, columns - 0.5), ylim=(-0.5, rows - 0.5))
    ax.axis("off")
    return ax


def _box(ax, x, y, text, colour):
    from matplotlib.patches import FancyBboxPatch

    frame = {"boxstyle": "round,pad=0.02", "edgecolor": "black", "facecolor": colour, "alpha": 0.6}
    ax.add_patch(FancyBboxPatch((x - 0.4, y - 0.38), 0.8, 0.76, **frame))
    ax.text(x, y, text, ha="center", va="center", fontsize=11)


def _arrow(ax, start, end):
    ax.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "linewidth": 2, "color": "black"})
