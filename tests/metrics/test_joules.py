"""Energy: a meter that tests turn, the model where there is none, and which of them it was."""

import math

import pytest

from lightcourse import metrics
from lightcourse.metrics import joules


@pytest.fixture
def meters(tmp_path, monkeypatch):
    """An empty folder of meters, and no long wait."""
    monkeypatch.setattr(joules, "METERS", tmp_path)
    monkeypatch.setattr(joules, "SHORTEST", 0.0)
    return tmp_path


def meter(folder, name, start, full=10**9):
    folder.mkdir()
    (folder / "name").write_text(f"{name}\n")
    (folder / "energy_uj").write_text(f"{start}\n")
    (folder / "max_energy_range_uj").write_text(f"{full}\n")
    return folder / "energy_uj"


def turned(*meters, by):
    """Return a call that moves each meter on, and begins at 0 when it is full."""

    def call():
        for one in meters:
            one.write_text(str((int(one.read_text()) + by) % 10**9))

    return call


def test_a_meter_counts_the_calls_that_were_timed(meters):
    whole = meter(meters / "intel-rapl:0", "package-0", 500)
    found = metrics.energy(turned(whole, by=3_000_000), watts=99.0)
    assert found.measured and found.joules == pytest.approx(3.0)
    assert found.source == "measured: RAPL, package-0"
    assert str(found).startswith("3 J in ")


def test_processors_add_up_parts_do_not_and_a_full_meter_begins_again(meters):
    first = meter(meters / "intel-rapl:0", "package-0", 10**9 - 5)
    second = meter(meters / "intel-rapl:1", "package-1", 0)
    part = meter(meters / "intel-rapl:0:0", "core", 0)
    other = meter(meters / "intel-rapl:2", "psys", 0)
    found = metrics.energy(turned(first, second, part, other, by=10))
    assert found.joules == pytest.approx(2e-5)
    assert found.source.endswith("package-0 and package-1")


def test_without_a_meter_watts_are_an_assumption_and_say_so(meters):
    (meters / "intel-rapl:0").mkdir()  # one that nobody may read
    (meters / "intel-rapl:0" / "name").write_text("package-0")
    found = metrics.energy(lambda: None, watts=20.0)
    assert not found.measured and found.calls >= 1
    assert found.joules == pytest.approx(20 * found.seconds)
    assert "assumed: 20 W times the seconds" in str(found)


def test_it_goes_on_until_there_is_something_to_read(meters, monkeypatch):
    monkeypatch.setattr(joules, "SHORTEST", 0.02)
    calls = []
    found = metrics.energy(lambda: calls.append(1), watts=1.0)
    assert found.calls == len(calls) - 1 > 10
    assert found.seconds * found.calls >= 0.02


@pytest.mark.parametrize("watts", [0, -5, math.nan, math.inf])
def test_watts_that_are_none_are_refused(meters, watts):
    with pytest.raises(ValueError, match=f"watts is {watts}"):
        metrics.energy(lambda: None, watts)


def test_without_a_meter_and_without_watts_it_asks(meters):
    with pytest.raises(ValueError, match="watts is not given, and no meter can be read"):
        metrics.energy(lambda: None)
