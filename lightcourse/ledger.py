"""The ledger: variants of one model side by side, each with its control."""

from dataclasses import dataclass, field
from html import escape


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


def _with_spread(latency):
    return f"{latency.median * 1e3:.1f} ms ± {latency.spread * 1e3 / 2:.1f}"


@dataclass(repr=False)
class Ledger:
    """Rows of model variants: bytes stored, parameters trained, latency, quality.

    Prints as a table, and shows as HTML in a notebook; :func:`lightcourse.plots.ledger` draws
    quality against bytes.

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
            latency = _with_spread(row.latency) if row.latency else "–"
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
