"""Variants of one model as points: quality against the bytes that are stored."""

import math
from itertools import pairwise

from lightcourse.ledger import Ledger
from lightcourse.plots.labels import apart
from lightcourse.plots.palette import COLOURS

GREY = "#666666"


def ledger(variants: Ledger, ax=None):
    """Draw quality against megabytes stored.

    Full circles are methods, each in a colour; open grey ones are controls, tied to
    their method by a dotted line.

    Parameters
    ----------
    variants : Ledger
        With one row at least.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ValueError
        When the ledger is empty.
    """
    import matplotlib.pyplot as plt

    if not variants.rows:
        raise ValueError("variants is a ledger without rows; one row at least is wanted")
    ax = ax or plt.subplots(figsize=(8, 4.5), layout="constrained")[1]
    methods = [row.name for row in variants.rows if not row.control_of]
    for row in variants.ordered():
        index = methods.index(row.control_of or row.name)
        _draw(ax, variants, row, COLOURS[index % len(COLOURS)])
    widest = max(map(_megabytes, variants.rows))
    left = min(0, min(map(_megabytes, variants.rows)) - widest * 0.6)  # names stand there
    ax.set(xlabel="stored, MB", ylabel=variants.measure, xlim=(left, widest * 1.5))
    ax.set_xticks([tick for tick in ax.get_xticks() if 0 <= tick <= widest * 1.5])
    ax.margins(y=0.12)
    ax.grid(alpha=0.3)
    columns = _columns(variants.rows, widest / 10)
    for rows, side in zip(columns, _sides(columns), strict=True):
        _label(ax, rows, side * widest * 0.05)
    return ax


def _columns(rows, gap):
    """Return rows in columns, from left to right; between two of them is a gap in megabytes."""
    columns = []
    for row in sorted(rows, key=_megabytes):
        if not columns or _megabytes(row) - _megabytes(columns[-1][-1]) > gap:
            columns.append([])
        columns[-1].append(row)
    return columns


def _sides(columns):
    """Return on which side each column has its names: left (-1) or right (1), the wider gap."""
    gaps = [_megabytes(after[0]) - _megabytes(before[-1]) for before, after in pairwise(columns)]
    sides = []
    for left, right in pairwise([math.inf, *gaps, math.inf]):
        taken = sides[-1:] == [1]  # by the names of the column before
        sides.append(-1 if left > right and not taken else 1)
    return sides


def _megabytes(row):
    return row.stored / 1e6


def _draw(ax, variants, row, colour):
    x = _megabytes(row)
    if row.control_of:
        method = variants[row.control_of]
        ends = [_megabytes(method), x], [method.quality, row.quality]
        ax.plot(*ends, ":", color=colour, linewidth=1, zorder=1)
        ax.plot(x, row.quality, "o", markerfacecolor="white", color=GREY, markersize=7)
    else:
        ax.plot(x, row.quality, "o", color=colour, markersize=9)


def _label(ax, rows, away):
    """Name points in one column, ``away`` to their left (below 0) or right; none overlap."""
    rows = sorted(rows, key=lambda row: row.quality)
    low, high = ax.get_ylim()
    heights = apart([row.quality for row in rows], (high - low) * 0.06)
    edge = (max if away > 0 else min)(map(_megabytes, rows), default=0)
    for row, height in zip(rows, heights, strict=True):
        ax.annotate(
            row.name,
            (_megabytes(row), row.quality),
            (edge + away, height),
            ha="left" if away > 0 else "right",
            va="center",
            fontsize=9,
            color=GREY if row.control_of else "black",
            style="italic" if row.control_of else "normal",
            arrowprops={"arrowstyle": "-", "color": "#999999", "linewidth": 0.6, "shrinkB": 4},
        )
