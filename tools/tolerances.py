"""Figures that differ between processors: nbval compares them within what their cell states.

Whatever is learned, or summed in floats, may fall on the other side of a rounding boundary on
another processor, and no number of digits is safe from that. A cell that prints such figures
says so in its metadata, which py:percent carries:

``# %% atol=0.02``
    A measured number may be off by 0.02, and ``7.1%`` by two points.
``# %% rtol=0.05``
    A measured number may be off by 5 % of its size.
``# %% clock=true``
    What a clock said is any number: one before a unit of time, of speed or of energy.

A measured number is one with a decimal point, an exponent or a percent sign; beside its
tolerance it may be off by one unit in the last digit that is shown. All else is compared as
nbval does: text, whole numbers, order, how many numbers there are and how many digits they
have. Only blanks may vary in such a cell, since they fill columns up.
"""

import re

KEYS = ("atol", "rtol", "clock")
NUMBER = r"(?<![\w.])[-+]?\d+(?:,\d{3})*(?:\.\d+)?(?:e[-+]?\d+)?"
TIMES = "ns|µs|ms|s|times|% of the time|mJ|J"  # joules, too, come from a clock or a meter
UNITS = f"{TIMES}|tokens/s|GB/s|(?:billion )?operations/s|operations/byte"
FIGURE = re.compile(rf"({NUMBER}(?: ?%)?)(?![\w.]*\d)")
CLOCK = re.compile(rf"{NUMBER} ?(?:{UNITS})(?![\w/])(?: ± {NUMBER})?")
PARTS = re.compile(r"(?P<size>[-+]?[\d,]+(?:\.(?P<decimals>\d+))?)(?:e(?P<power>[-+]\d+))?")


def agree(
    reference: str, answer: str, atol: float = 0.0, rtol: float = 0.0, clock: bool = False
) -> bool:
    """Tell whether two texts are the same but for measured numbers that nearly are.

    Parameters
    ----------
    reference, answer : str
        What a cell printed when it was committed, and what it prints now.
    atol, rtol, clock
        As the cell states them; see above. Without any of them texts must be equal.

    Examples
    --------
    >>> agree("accuracy 0.713 of 3 runs", "accuracy 0.715 of 3 runs", atol=0.01)
    True
    >>> agree("accuracy 0.713 of 3 runs", "accuracy 0.715 of 4 runs", atol=0.01)
    False
    """
    if not (atol or rtol or clock):
        return reference == answer
    if clock:
        reference, answer = CLOCK.sub("◷", reference), CLOCK.sub("◷", answer)
    ours, theirs = FIGURE.split(reference), FIGURE.split(answer)
    if [_squeezed(text) for text in ours[::2]] != [_squeezed(text) for text in theirs[::2]]:
        return False
    pairs = zip(ours[1::2], theirs[1::2], strict=True)
    return all(_near(one, other, atol, rtol) for one, other in pairs)


def _squeezed(text):
    return re.sub(" +", " ", text).rstrip(" ")


def _near(one, other, atol, rtol):
    """Tell whether two numbers are the same, or measured and near enough."""
    if one == other:
        return True
    a, b = PARTS.match(one), PARTS.match(other)
    percent = one.endswith("%")
    alike = percent == other.endswith("%") and len(a["decimals"] or "") == len(b["decimals"] or "")
    if not (atol or rtol) or not is_measured(one) or not alike:
        return False
    x, y = _value(a), _value(b)
    allowed = atol * (100 if percent else 1) + rtol * abs(x) + max(_unit(a), _unit(b))
    return abs(x - y) <= allowed * (1 + 1e-9)  # 1e-9: decimal fractions are no binary ones


def is_measured(figure: str) -> bool:
    """Tell whether a number, as it is written, is a measured one."""
    return bool(re.search("[.e%]", figure))


def _value(parts):
    return float(parts["size"].replace(",", "")) * 10.0 ** int(parts["power"] or 0)


def _unit(parts):
    return 10.0 ** (int(parts["power"] or 0) - len(parts["decimals"] or ""))


def stated(cell) -> dict:
    """Return the tolerances that a notebook's cell states, by name."""
    return {key: cell.metadata[key] for key in KEYS if key in cell.metadata}


class Figures(str):
    """A text that is equal to another one where :func:`agree` says so."""

    def __new__(cls, text, tolerances):
        """Take the tolerances along."""
        made = super().__new__(cls, text)
        made.tolerances = tolerances
        return made

    def __eq__(self, other):
        return agree(str(self), str(other), **self.tolerances)

    def __ne__(self, other):
        return not self == other

    __hash__ = str.__hash__


def pytest_itemcollected(item):
    """Let nbval see the texts of a cell that states tolerances as :class:`Figures`."""
    cell = getattr(item, "cell", None)
    if tolerances := stated(cell) if cell else {}:
        item.sanitize = lambda text: Figures(text, tolerances) if isinstance(text, str) else text
