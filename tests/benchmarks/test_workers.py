"""Benchmarks that survive their contestants: each one in a process, failures in the table."""

import argparse
import json
import os
import signal
import time

import pytest

from benchmarks import (
    bench,
    cells,
    compare,
    end_to_end,
    generation,
    machine,
    report,
    tables,
    timing,
    workers,
)
from benchmarks.contestants import DISCIPLINES
from benchmarks.patterns import dense
from tests.benchmarks import fake_peers

pytestmark = pytest.mark.alone  # who does not answer in time is stopped
PEERS = ("right", "missing", "choosy", "wrong", "lost", "segfault", "hang", "late")
SHAPE = (8, 16)


@pytest.fixture(scope="module")
def crew():
    with workers.Crew(limit=60) as crew:
        yield crew


@pytest.fixture
def peers(monkeypatch):
    """Every kind of peer beside one that stands for ours; the machine's limits are fixed."""
    field = [("lightcourse", dense, fake_peers.right)]
    field += [(name, dense, getattr(fake_peers, name)) for name in PEERS]
    monkeypatch.setitem(DISCIPLINES, "W8A8", field)
    monkeypatch.setattr(cells, "limits", fake_limits)


def fake_limits(state, threads):
    return {"peak": 1e9, "stream": 1e9}


def is_there(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_worker_keeps_its_state_and_its_process(crew):
    (first, one), (again, two) = (crew.ask("kept", fake_peers.pid) for _ in range(2))
    other, _ = crew.ask("other", fake_peers.pid)
    assert first == again and first != other and first != os.getpid()
    assert (one, two) == (1, 2)


def test_what_raises_is_told_in_a_line_and_the_worker_lives_on(crew):
    before, _ = crew.ask("raising", fake_peers.pid)
    with pytest.raises(workers.Failed, match="^RuntimeError: first line$") as failure:
        crew.ask("raising", fake_peers.raising)
    assert not failure.value.crashed
    assert crew.ask("raising", fake_peers.pid)[0] == before


def test_who_is_killed_from_outside_is_told_and_started_anew(crew):
    before, _ = crew.ask("killed", fake_peers.pid)
    os.kill(before, signal.SIGKILL)
    with pytest.raises(workers.Failed, match=r"^crashed \(signal 9\)$") as failure:
        crew.ask("killed", fake_peers.pid)
    assert failure.value.crashed
    after, asked = crew.ask("killed", fake_peers.pid)
    assert after != before and asked == 1
    with pytest.raises(workers.Failed, match=r"^crashed \(exit status 3\)$"):
        crew.ask("killed", fake_peers.leaving)


def test_who_hangs_is_stopped_and_nobody_is_left_behind():
    with workers.Crew(limit=60) as crew:
        hanging, _ = crew.ask("hanging", fake_peers.pid)
        kept, _ = crew.ask("kept", fake_peers.pid)
        crew.limit = 0.2
        with pytest.raises(workers.Failed, match="^too slow: stopped after 0.2 s$"):
            crew.ask("hanging", sleeping)
        assert not is_there(hanging) and is_there(kept)
    assert not is_there(kept)


def sleeping(state):
    time.sleep(3600)


@pytest.mark.usefixtures("peers")
def test_a_record_has_a_figure_or_a_reason_for_each():
    with workers.Crew(limit=60) as crew:
        field = cells.Field(crew, DISCIPLINES["W8A8"], SHAPE, 1, 2)
        for name in ("hang", "right"):  # ready, so that the short limit is for the call alone
            crew.ask(name, fake_peers.pid)
        crew.ask("limits", fake_peers.pid)
        del field.contestants["hang"]
        one, many = field.compete(1, 0.1), field.compete(4, 0.1)
        field.contestants = {"hang": [dense, fake_peers.hang], "right": [dense, fake_peers.right]}
        crew.limit = 1
        slow = field.compete(4, 0.0)
    assert one["failed"] == {
        "missing": "not installed: No module named 'no_such_library'",
        "choosy": "refused: 8 inputs; a multiple of 256 is wanted",
        "wrong": one["failed"]["wrong"],
        "lost": "wrong: its error is nan of what is right",
        "late": "crashed (signal 9)",
    }
    assert one["failed"]["wrong"].startswith("wrong: its error is 1.")
    assert set(one["times"]) == set(one["errors"]) == {"lightcourse", "right", "segfault"}
    assert many["failed"]["segfault"] == "crashed (signal 11)"
    assert set(many["times"]) == {"lightcourse", "right"}  # late is let in again, and crashes
    assert slow["failed"]["hang"] == "too slow: stopped after 1 s"
    assert set(slow["times"]) == {"right"}


def test_a_table_says_why_and_the_report_lists_who():
    times = {"lightcourse": {"median": 1.0}, "good": {"median": 2.0}}
    here = {"discipline": "W8A8", "inputs": 8, "outputs": 16, "rows": 1, "threads": 1}
    here |= {"bytes": 128, "peak": float("nan"), "stream": 1e9, "times": times}
    here |= {"errors": {"lightcourse": 0.01, "good": 0.01}}
    reasons = {"bad": "crashed (signal 11)", "gone": "not installed: No module named 'gone'"}
    here["failed"] = reasons | {"slow": "too slow: stopped after 120 s"}
    line = tables.ratio_table([here]).splitlines()[2]
    assert line.endswith("| 2.00 | crashed (signal 11) | not installed | too slow |")
    result = {"date": "2026-01-02", "machine": {"processor": "Sparc (family x)"}, "records": [here]}
    text = "\n".join(report.compose(result, "figure.png"))
    assert "Sparc, 2026-01-02" in text.splitlines()[0]
    for wanted in (
        "| bad | crashed (signal 11) | 1 of 1 |",
        "| gone | not installed: No module named 'gone' | 1 of 1 |",
        "| slow | too slow: stopped after 120 s | 1 of 1 |",
    ):
        assert wanted in text
    ours = here | {"times": {"good": {"median": 2.0}}, "errors": {"good": 0.01}}
    ours["failed"] = {"lightcourse": "crashed (signal 11)"}
    assert "lightcourse crashed" in bench.progress(ours)
    assert "lightcourse | crashed (signal 11)" in "\n".join(
        report.compose(result | {"records": [ours]}, "figure.png")
    )


@pytest.mark.usefixtures("peers")
def test_results_are_saved_as_they_come_and_a_run_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "RESULTS", tmp_path)
    monkeypatch.setattr(bench, "QUICK_SHAPES", [SHAPE])
    monkeypatch.setattr(bench, "QUICK_ROWS", [1, 4, 32])
    monkeypatch.setattr(bench, "QUICK_SECONDS", 0.02)
    field = [entry for entry in DISCIPLINES["W8A8"] if entry[0] != "hang"]
    monkeypatch.setitem(DISCIPLINES, "W8A8", field)
    options = argparse.Namespace(quick=True, only=["W8A8"], threads=[1], limit=60, resume=True)
    monkeypatch.setattr(bench, "parse", lambda: options)
    monkeypatch.setattr(report, "draw", lambda records, path: None)
    seen = []

    def interrupted(record):
        seen.append(record["rows"])
        if len(seen) == 2:
            raise KeyboardInterrupt
        return ""

    monkeypatch.setattr(bench, "progress", interrupted)
    with pytest.raises(KeyboardInterrupt):
        bench.main()
    (file,) = tmp_path.glob("*.json")
    assert machine.short_name(machine.describe()) in file.name
    assert [r["rows"] for r in json.loads(file.read_text())["records"]] == [1, 4]
    assert file.with_suffix(".md").exists()
    bench.main()
    assert seen == [1, 4, 32]
    assert [r["rows"] for r in json.loads(file.read_text())["records"]] == [1, 4, 32]


def test_results_of_another_machine_are_not_added_to(tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "RESULTS", tmp_path)
    options = argparse.Namespace(quick=True, resume=True)
    stem, result = bench.begin("kernels", options)
    bench.save(f"{stem}.json", result | {"machine": {"processor": "another"}})
    with pytest.raises(SystemExit, match="another machine"):
        bench.begin("kernels", options)


@pytest.mark.parametrize(
    ("processor", "name"),
    [
        ("AMD EPYC (family/model/stepping 25/17/1)", "amd-epyc-25-17-1"),
        ("Intel(R) Xeon(R) Processor (family/model/stepping 6/207/2)", None),
        ("arm64 (family/model/stepping ?/?/?)", "arm64"),
    ],
)
def test_files_are_named_by_the_processor(processor, name):
    wanted = name or "intel-xeon-processor-6-207-2"
    assert machine.short_name({"processor": processor}) == wanted


def test_who_fails_in_a_turn_leaves_the_others_theirs():
    calls = {"good": 0, "bad": 0}

    def turn(name):
        calls[name] += 1
        if name == "bad" and calls[name] == 2:
            raise workers.Failed("crashed (signal 11)", crashed=True)
        return [1e-3, 2e-3]

    turns = {name: lambda name=name: turn(name) for name in calls}
    times, failed = timing.in_turns(turns, dict.fromkeys(calls, 1e-3), 0, least=4)
    assert calls == {"good": 4, "bad": 2}
    assert set(times) == {"good"} and times["good"]["calls"] == 8
    assert {name: failure.reason for name, failure in failed.items()} == {
        "bad": "crashed (signal 11)"
    }
    assert timing.in_turns({}, {}, 0) == ({}, {})


def test_several_machines_stand_side_by_side():
    def result(processor, ratio, more=()):
        cell = {"discipline": "W8A8", "inputs": 8, "outputs": 16, "rows": 1, "threads": 1}
        times = {"lightcourse": {"median": 1.0}}
        times |= {"peer": {"median": ratio}} if ratio else {}
        cells = [cell | {"times": times, "failed": {"peer": "crashed (signal 4)"}}, *more]
        models = {"torch fp32": {"median": 3.0}, "lightcourse W8A8": {"median": 1.5}}
        models["onnx"] = {"failed": "not installed: No module named 'onnx'"}
        return {
            "date": "2026-01-02 10:00",
            "machine": {"processor": f"{processor} (family 1)"},
            "records": cells,
            "encoding": {"1": models},
        }

    only_one = {"discipline": "W8A8", "inputs": 9, "outputs": 16, "rows": 1, "threads": 1}
    only_one |= {"times": {"lightcourse": {"median": 1.0}, "peer": {"median": 99.0}}}
    results = [result("AMD", 2.0, [only_one]), result("Intel", 0)]
    text = "\n".join(compare.compose(results))
    assert "|  | AMD, 2026-01-02 | Intel, 2026-01-02 |" in text
    assert "| peer | 2.00 | crashed (signal 4) |" in text
    assert "over the 1 cells" in text
    assert "| lightcourse W8A8 | 2.00 | 2.00 |" in text
    assert "| onnx | not installed | not installed |" in text


def test_the_committed_results_can_be_compared():
    found = [json.loads(path.read_text()) for path in sorted(bench.RESULTS.glob("*.json"))]
    text = "\n".join(compare.compose(found))
    assert all(compare.name(result) in text for result in found)


def test_whole_models_that_fail_are_rows_too():
    found = {"torch fp32": {"median": 2.0, "cosine": 1.0}, "a": {"median": 1.0, "cosine": 0.9}}
    found["b"] = {"failed": "crashed (signal 4)"}
    lines = end_to_end.encoding_table(found).splitlines()
    assert lines[2].startswith("| a | 1000 |") and "| 2.00 |" in lines[2]
    assert lines[4] == "| b | crashed (signal 4) |  |  |  |"
    one = {"token": 0.1, "prompt 64": 0.1, "prompt 512": 1.0, "perplexity": 9.0}
    one |= {"prefix": 0, "tokens": [1, 2]}
    lines = end_to_end.generation_table({"a": one, "torch fp32": {"failed": "too slow: 1"}})
    assert "| nan |" in lines and "| torch fp32 | too slow: 1 |" in lines


def test_a_generator_that_crashes_leaves_the_others_theirs(monkeypatch):
    field = {"torch fp32": fake_peers.writer, "late": fake_peers.late_writer}
    monkeypatch.setattr(generation, "GENERATORS", field | {"gone": fake_peers.no_writer})
    with workers.Crew(limit=60) as crew:
        found = end_to_end.generate(crew, 1, 2)
    assert found["torch fp32"]["tokens"] == [7] * (generation.TOKENS - 1)
    assert found["torch fp32"]["prefix"] == generation.TOKENS - 1
    assert found["torch fp32"]["perplexity"] > 1
    assert found["late"] == {"failed": "crashed (signal 11)"}
    assert found["gone"] == {"failed": "not installed: No module named 'no_such_library'"}
