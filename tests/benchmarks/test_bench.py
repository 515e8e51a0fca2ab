"""The benchmarks' arithmetic: ratios, means, errors, fractions, break-even, tables, patterns."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import (
    break_even,
    cells,
    expectations,
    generation,
    machine,
    patterns,
    report,
    tables,
    timing,
)
from tests.benchmarks import fake_peers


def record(ours=1.0, peer=2.0, **changes):
    """A cell in which we need one second and the peer two."""
    times = {"lightcourse": {"median": ours}, "peer": {"median": peer}}
    errors = {"lightcourse": 0.01, "peer": 0.02}
    found = {"discipline": "W8A8", "inputs": 10, "outputs": 20, "rows": 128, "threads": 1}
    return (
        found
        | {"bytes": 200, "peak": 1e5, "stream": 400, "times": times, "errors": errors}
        | changes
    )


def test_a_ratio_is_the_peers_time_over_ours():
    assert tables.ratios(record(ours=0.5, peer=2.0)) == {"peer": 4.0}


def test_the_geometric_mean_of_a_ratio_and_its_inverse_is_one():
    assert tables.geometric_mean([4.0, 0.25]) == pytest.approx(1)
    assert tables.geometric_mean([8.0, 2.0]) == pytest.approx(4)
    assert math.isnan(tables.geometric_mean([]))


def test_the_limit_is_reading_for_one_row_and_the_peak_for_many():
    assert tables.rate(record()) == 2 * 10 * 20 * 128
    assert tables.fraction(record()) == pytest.approx(0.512)
    assert tables.fraction(record(rows=1)) == pytest.approx(200 / 400)


def test_the_error_is_relative_to_the_mean_size():
    exact = np.array([[1.0, -3.0]])
    assert cells.relative_error(exact, exact) == 0
    assert cells.relative_error(exact + [[0.5, -0.5]], exact) == pytest.approx(0.25)


def test_errors_compare_each_contestant_with_its_own_weight():
    found, given = [], []
    for pattern in (patterns.dense, lambda weight: weight / 2):
        state = {}
        cells.prepare(
            state, pattern, lambda w, *_: given.append(w) or fake_peers.right(w, 1, 1), (3, 4), 1, 1
        )
        found.append(cells.bind(state, 2, 1, 1)[0])
        assert state["weight"] is given[-1]
    assert found == pytest.approx([0, 0], abs=1e-6)
    state["weight"] = given[0]
    assert cells.bind(state, 2, 1, 1)[0] == pytest.approx(0.5, abs=1e-6)


def test_copies_exceed_the_cache_but_not_all_memory():
    assert cells.count_copies(4096 * 4096) * 4096 * 4096 > 32 * 2**20
    assert cells.count_copies(1) == cells.MOST_COPIES
    assert cells.count_copies(2**40) == 1


def test_a_table_has_a_line_for_each_cell_and_marks_losses():
    lines = tables.ratio_table([record(), record(rows=1, peer=0.5)]).splitlines()
    assert [line.split(" | ")[-1].strip(" |") for line in lines] == [
        *("peer", "---", "2.00", "**0.50**"),
        *("1.00", "**0.50**", "2.00"),
    ]
    assert "geometric mean" in lines[4] and "M = 1" in lines[5]


def test_an_absent_peer_keeps_its_column():
    alone = record()
    alone["times"] = {"lightcourse": {"median": 1.0}}
    assert "absent" in tables.ratio_table([record(), alone]).splitlines()[3]


def test_losses_come_worst_first():
    lines = tables.losses([record(peer=0.9), record(peer=3.0), record(peer=0.5, rows=8)])
    assert len(lines) == 2 and "M = 8" in lines[0] and "0.90" in lines[1]


def test_linearity_is_the_exponent():
    linear = [record(ours=rows * 1e-3, rows=rows) for rows in (128, 512)]
    square = [record(ours=rows**2 * 1e-3, rows=rows) for rows in (128, 512)]
    assert tables.linearity(linear) == pytest.approx(1)
    assert tables.linearity(square) == pytest.approx(2)
    assert math.isnan(tables.linearity(linear[:1]))


@pytest.mark.parametrize(
    ("speedups", "wanted"),
    [
        ({0.5: 0.5, 0.75: 2.0, 0.9: 4.0}, 0.625),
        ({0.5: 1.2, 0.9: 4.0}, 0.0),
        ({0.5: 0.2, 0.9: 0.9}, math.inf),
    ],
    ids=["between", "at once", "never"],
)
def test_sparsity_pays_where_the_speed_up_crosses_one(speedups, wanted):
    assert break_even.crossing(speedups) == pytest.approx(wanted)


def test_expectations_tell_reached_from_missed():
    judged = {claim.split(",")[1].strip(): ok for claim, _, _, ok in expectations.judge([record()])}
    assert judged["ahead of every peer in every cell"]
    assert not judged["part of the int8 peak at M ≥ 128 (median)"]
    behind = expectations.judge([record(peer=0.9)])
    assert not behind[0][-1] and "behind in 1 of 1" in behind[0][2]


def test_a_report_names_machine_absent_peers_and_losses():
    result = {"date": "2026-01-02 10:00", "machine": {"cores": "2"}, "absent": {"ggml": "missing"}}
    text = "\n".join(report.compose(result | {"records": [record(peer=0.5)]}, "figure.png"))
    for wanted in (
        "2026-01-02",
        "| cores | 2 |",
        "ggml (missing)",
        "Behind in 1 of 1",
        "figure.png",
    ):
        assert wanted in text


def test_patterns_remove_what_they_say():
    weight = np.random.default_rng(0).standard_normal((64, 32)).astype(np.float32)
    for pruned, kept in [
        (patterns.unstructured(weight, 0.75), 0.25),
        (patterns.two_of_four(weight), 0.5),
        (patterns.blocks(weight, 0.5), 0.5),
    ]:
        assert (pruned != 0).mean() == pytest.approx(kept, abs=0.01)
        assert (pruned[pruned != 0] == weight[pruned != 0]).all()
    assert ((patterns.two_of_four(weight).reshape(-1, 4) != 0).sum(1) == 2).all()
    grid = patterns.blocks(weight, 0.5).reshape(4, 16, 8, 4).transpose(0, 2, 1, 3).reshape(32, 64)
    assert set((grid != 0).sum(1)) == {0, 64}


def test_each_turn_opens_with_an_untimed_call(monkeypatch):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock.now)
    made = {"a": 0, "b": 0}

    def call(name):
        made[name] += 1
        clock.now += 2**-10  # exact, as often as it is added

    field = {n: timing.Contestant([lambda n=n: call(n)] * 3, settle=False) for n in made}
    turns = {name: contestant.take_a_turn for name, contestant in field.items()}
    estimates = {name: contestant.estimate for name, contestant in field.items()}
    found, _ = timing.in_turns(turns, estimates, 0, least=3)
    # 3 copies touched, 3 to estimate, then 3 turns of 1 untimed and 2 timed calls
    assert made == {"a": 15, "b": 15} and found["a"]["calls"] == 6
    assert found["a"]["median"] == 2**-10 and found["a"]["spread"] == 0


def test_texts_agree_until_they_part():
    assert generation.common_prefix([1, 2, 3, 4], [1, 2, 9, 4]) == 2
    assert generation.common_prefix([1, 2], [1, 2]) == 2


def test_the_machine_is_described_even_where_nothing_is_installed(monkeypatch):
    monkeypatch.setattr(machine, "LIBRARIES", ("no-such-distribution",))
    described = machine.describe()
    assert described["no-such-distribution"] == "absent" and described["cores"] != "0"
