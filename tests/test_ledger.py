"""The ledger keeps controls beside their methods, in text and HTML."""

import pytest

from lightcourse import metrics


@pytest.fixture
def ledger():
    ledger = metrics.Ledger("accuracy")
    ledger.add("as it came", 90_000_000, 0.75)
    ledger.add("pruned <50%>", 90_000_000, 0.74, latency=metrics.Latency(0.0123, 0.001, 20, 1))
    ledger.add("8 bits", 60_000_000, 0.751)
    ledger.add("random", 90_000_000, 0.5, control_of="pruned <50%>")
    return ledger


def test_controls_stand_below_their_method(ledger):
    assert [row.name for row in ledger.ordered()] == [
        "as it came",
        "pruned <50%>",
        "random",
        "8 bits",
    ]
    lines = str(ledger).splitlines()
    assert lines[3].startswith("  control: random") and "12.3 ms" in lines[2]
    assert len({len(line) for line in lines}) == 1


def test_html_has_every_row_and_escapes_names(ledger):
    html = ledger._repr_html_()
    assert html.count("<tr") == 5 and "pruned &lt;50%&gt;" in html


def test_names_are_unique_and_controls_need_their_method(ledger):
    with pytest.raises(ValueError, match="'8 bits' stands in the ledger already"):
        ledger.add("8 bits", 1, 0.5)
    with pytest.raises(ValueError, match="control_of is 'nothing'"):
        ledger.add("x", 1, 0.5, control_of="nothing")
    with pytest.raises(KeyError, match="the ledger holds"):
        ledger["y"]
    assert ledger["8 bits"].quality == 0.751
