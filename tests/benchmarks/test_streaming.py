"""A checkpoint larger than the memory that is allowed: the benchmark, on layers of a toy's size."""

import sys

import pytest

from benchmarks import streaming


@pytest.mark.skipif(sys.platform != "linux", reason="the limits and the peak are Linux's")
def test_it_measures_and_reports(tmp_path):
    found = streaming.measure(tmp_path, layers=1, hidden=256)
    assert found["shards"] == 2
    assert 0.2 < found["ways"]["4 bits in groups of 128"]["written"] / found["bytes"] < 0.5
    assert all(0 < way["grown"] < way["peak"] for way in found["ways"].values())
    text = "\n".join(streaming.compose({"machine": {}, "date": "2026-11-28", "streaming": found}))
    assert "| plain read |" in text
    assert all(f"| {way} |" in text for way in streaming.WAYS)
