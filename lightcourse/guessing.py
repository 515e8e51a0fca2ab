"""What a learner guessed, beside what was measured or computed."""

import math
from numbers import Integral


def compare(guess: object, measured: object, unit: str = "", how: str = "measured") -> None:
    """Print what was measured and how far a guess was from it.

    Parameters
    ----------
    guess : number, str or ...
        What the learner wrote; ``...`` while nothing is written.
    measured : number or str
        A whole number is shown whole, any other with three digits at least.
    unit : str
        What numbers are counted in.
    how : str
        What was done to get it: "computed", where nothing was measured.

    Examples
    --------
    >>> compare(..., 90.868, "MB")
    measured: 90.9 MB (no guess yet)
    >>> compare(22.5, 90.868, "MB")
    measured: 90.9 MB; your guess, 22.5 MB, is 75% too small
    >>> compare("faster", "slower")
    measured: slower; your guess was: faster
    >>> compare(..., 8, "rows", how="computed")
    computed: 8 rows (no guess yet)
    """
    print(f"{how}: {_shown(measured, unit)}{_verdict(guess, measured, unit)}")


def _verdict(guess, measured, unit):
    if guess is ...:
        return " (no guess yet)"
    if isinstance(measured, str):
        right = str(guess).strip().casefold() == measured.casefold()
        return ", as you guessed" if right else f"; your guess was: {guess}"
    try:
        distance = _distance(float(guess), float(measured))
    except (TypeError, ValueError):
        return f"; your guess {guess!r} is no number: write one, such as {_shown(measured, '')}"
    return f"; your guess, {_shown(guess, unit)}, is {distance}"


def _distance(guess, measured):
    """Say how far off: as a ratio where both have one sign, else as a difference."""
    if math.isclose(guess, measured, rel_tol=0.05):
        return "right within 5 %"
    size = "small" if guess < measured else "large"
    if guess * measured <= 0:
        return f"{_shown(abs(guess - measured), '')} too {size}"
    if abs(guess - measured) < abs(measured):
        return f"{abs(guess - measured) / abs(measured):.0%} too {size}"
    return f"{guess / measured:.1f} times too {size}"


def _shown(value, unit):
    if isinstance(value, str):
        return value
    if isinstance(value, Integral):
        digits = f"{value:,d}"
    else:
        digits = f"{value:,.1f}" if abs(value) >= 100 else f"{value:#.3g}"
    return f"{digits} {unit}".rstrip()
