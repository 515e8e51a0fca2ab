"""What a call costs in joules: from the processor's own meter, or else by a stated model."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

METERS = Path("/sys/class/powercap")
SHORTEST = 0.5  # seconds: the meter steps every millisecond or so


@dataclass(frozen=True)
class Energy:
    """The energy of one call, and how it is known.

    Parameters
    ----------
    joules, seconds : float
        Of one call, the mean over ``calls``.
    calls : int
    source : str
        In words: measured by which meter, or assumed from which watts.
    measured : bool
        False where joules are watts times seconds, and tell nothing that seconds do not.
    """

    joules: float
    seconds: float
    calls: int
    source: str
    measured: bool

    def __str__(self):
        return f"{self.joules:.3g} J in {self.seconds * 1e3:.3g} ms a call, {self.source}"


def energy(function: Callable[[], object], watts: float | None = None) -> Energy:
    """Return the energy of one call of ``function()``.

    Where the system lets us read it, the processor's own meter counts (RAPL, on Linux usually
    for the administrator only). It counts the whole processor, whoever else is busy, and what
    it would draw while idle; and neither the screen nor the power supply. Elsewhere the answer
    is ``watts`` times seconds: an assumption, and it says so.

    Parameters
    ----------
    function : callable
        Takes no argument; called again and again for half a second, after one untimed call.
    watts : float, optional
        What the machine draws while it works, from its data sheet or a meter at the socket.
        Read only where there is no meter inside.

    Raises
    ------
    ValueError
        When there is no meter and no ``watts``, or ``watts`` is no number above 0.
    """
    meters = _readable_meters()
    if watts is not None and not 0 < watts < math.inf:
        raise ValueError(f"watts is {watts}; a number above 0 is wanted")
    if watts is None and not meters:
        raise ValueError(
            f"watts is not given, and no meter can be read in {METERS}; what the machine draws "
            "while it works is wanted, in watts"
        )
    function()
    before, (seconds, calls) = [_read(meter) for meter in meters], _repeated(function)
    if not meters:
        source = f"assumed: {watts:g} W times the seconds"
        return Energy(watts * seconds / calls, seconds / calls, calls, source, False)
    used = sum(_used(meter, start) for meter, start in zip(meters, before, strict=True))
    source = f"measured: RAPL, {' and '.join(_name(meter) for meter in meters)}"
    return Energy(used / 1e6 / calls, seconds / calls, calls, source, True)


def _repeated(function):
    start, calls = time.perf_counter(), 0
    while time.perf_counter() - start < SHORTEST or not calls:
        function()
        calls += 1
    return time.perf_counter() - start, calls


def _readable_meters():
    """Return the folders of whole processors; their parts, one level below, are in these."""
    meters = [m for m in sorted(METERS.glob("intel-rapl:*")) if m.name.count(":") == 1]
    return [meter for meter in meters if _name(meter).startswith("package") and _can_read(meter)]


def _can_read(meter):
    try:
        _read(meter)
    except OSError:
        return False
    return True


def _name(meter):
    try:
        return (meter / "name").read_text().strip()
    except OSError:
        return ""


def _read(meter):
    return int((meter / "energy_uj").read_text())


def _used(meter, start):
    """Return microjoules since ``start``; the counter begins again at 0 when it is full."""
    spent = _read(meter) - start
    return spent if spent >= 0 else spent + int((meter / "max_energy_range_uj").read_text())
