"""The ledger: variants of one model side by side, each with its control."""

from dataclasses import dataclass, field
from html import escape

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


@dataclass
class Row:
    """One variant of a model.

    Parameters
    ----------
    name : str
    stored : int
        Bytes of what is stored.
    trained : int
        Parameters that were trained to get here.
    quality : float
        In the ledger's measure.
    latency : Latency, optional
        The time of one call; may be entered later.
    control_of : str, optional
        The row that this one is the negative control of.
    """

    name: str
    stored: int
    trained: int
    quality: float
    latency: object = None
    control_of: str | None = None


@dataclass(repr=False)
class Ledger:
    """Rows of model variants: bytes stored, parameters trained, latency, quality.

    Prints as a table, shows as HTML in a notebook, and draws quality against bytes.

    Parameters
    ----------
    measure : str
        What the quality column holds, such as "accuracy".

    Examples
    --------
    >>> ledger = Ledger("accuracy")
    >>> row = ledger.add("as it came", stored=90_000_000, quality=0.75)
    >>> print(ledger)
    variant     stored trained latency accuracy
    as it came 90.0 MB       0       –    0.750
    """

    measure: str
    rows: list[Row] = field(default_factory=list)

    def add(
        self,
        name: str,
        stored: int,
        quality: float,
        trained: int = 0,
        latency: object = None,
        control_of: str | None = None,
    ) -> Row:
        """Add a row and return it; arguments are those of :class:`Row`.

        Raises
        ------
        ValueError
            When the name is taken, or ``control_of`` names no row.
        """
        names = [row.name for row in self.rows]
        if name in names:
            raise ValueError(f"name {name!r} stands in the ledger already; another is wanted")
        if control_of is not None and control_of not in names:
            raise ValueError(f"control_of is {control_of!r}; one of {names} is wanted")
        row = Row(name, stored, trained, quality, latency, control_of)
        self.rows.append(row)
        return row

    def __getitem__(self, name: str) -> Row:
        """Return the row called ``name``."""
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(f"{name!r}; the ledger holds {[row.name for row in self.rows]}")

    def ordered(self) -> list[Row]:
        """Return the rows with each control right below the row that it controls."""
        controls = [row for row in self.rows if row.control_of]
        return [
            row
            for method in self.rows
            if not method.control_of
            for row in [method, *(c for c in controls if c.control_of == method.name)]
        ]

    def _cells(self):
        yield ["variant", "stored", "trained", "latency", self.measure]
        for row in self.ordered():
            latency = f"{row.latency.median * 1e3:.1f} ms" if row.latency else "–"
            name = f"  control: {row.name}" if row.control_of else row.name
            stored = f"{row.stored / 1e6:.1f} MB"
            yield [name, stored, f"{row.trained:,}", latency, f"{row.quality:.3f}"]

    def __str__(self):
        table = list(self._cells())
        widths = [max(len(line[column]) for line in table) for column in range(5)]
        return "\n".join(
            line[0].ljust(widths[0])
            + "".join(
                " " + cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)
            )
            for line in table
        )

    __repr__ = __str__

    def _repr_html_(self):
        head, *body = self._cells()
        cells = "".join(f"<th>{escape(cell)}</th>" for cell in head)
        lines = [f"<tr>{cells}</tr>"]
        for row, line in zip(self.ordered(), body, strict=True):
            style = ' style="color:#666;font-style:italic"' if row.control_of else ""
            first = f'<td style="text-align:left">{escape(line[0])}</td>'
            rest = "".join(f"<td>{escape(cell)}</td>" for cell in line[1:])
            lines.append(f"<tr{style}>{first}{rest}</tr>")
        return f"<table>{''.join(lines)}</table>"

    def figure(self, ax=None):
        """Draw quality against megabytes stored and return the ``Axes``.

        Full circles are methods, each in a colour; open grey ones are controls, tied to
        their method by a dotted line.
        """
        import matplotlib.pyplot as plt

        ax = ax or plt.subplots(figsize=(8, 4.5), layout="constrained")[1]
        methods = [row.name for row in self.rows if not row.control_of]
        for row in self.ordered():
            index = methods.index(row.control_of or row.name)
            self._draw(ax, row, COLOURS[index % len(COLOURS)])
        ax.set(xlabel="stored, MB", ylabel=self.measure, xlim=(0, self._widest() * 1.4))
        ax.margins(y=0.12)
        ax.grid(alpha=0.3)
        middle = (self._widest() + min(row.stored for row in self.rows) / 1e6) / 2
        self._label(ax, [row for row in self.rows if row.stored / 1e6 < middle], -1)
        self._label(ax, [row for row in self.rows if row.stored / 1e6 >= middle], 1)
        return ax

    def _widest(self):
        return max(row.stored for row in self.rows) / 1e6

    def _draw(self, ax, row, colour):
        x = row.stored / 1e6
        if row.control_of:
            method = self[row.control_of]
            ends = [method.stored / 1e6, x], [method.quality, row.quality]
            ax.plot(*ends, ":", color=colour, linewidth=1, zorder=1)
            ax.plot(x, row.quality, "o", markerfacecolor="white", color="#666666", markersize=7)
        else:
            ax.plot(x, row.quality, "o", color=colour, markersize=9)

    def _label(self, ax, rows, side):
        """Name points in a column on their left (-1) or right (1), none above another."""
        rows = sorted(rows, key=lambda row: row.quality)
        low, high = ax.get_ylim()
        heights = _apart([row.quality for row in rows], (high - low) * 0.06)
        edge = (max if side > 0 else min)((row.stored / 1e6 for row in rows), default=0)
        for row, height in zip(rows, heights, strict=True):
            ax.annotate(
                row.name,
                (row.stored / 1e6, row.quality),
                (edge + side * self._widest() * 0.07, height),
                ha="left" if side > 0 else "right",
                va="center",
                fontsize=9,
                color="#666666" if row.control_of else "black",
                style="italic" if row.control_of else "normal",
                arrowprops={"arrowstyle": "-", "color": "#999999", "linewidth": 0.6, "shrinkB": 4},
            )


def _apart(heights, gap):
    """Move sorted heights so that neighbours differ by ``gap`` at least, around their middle."""
    spread = []
    for height in heights:
        spread.append(max(height, spread[-1] + gap) if spread else height)
    excess = sum(spread) - sum(heights)
    return [height - excess / max(1, len(heights)) for height in spread]
