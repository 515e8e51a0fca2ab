"""What the kernels are meant to reach, and whether they did."""

import math
import statistics

from benchmarks import tables
from benchmarks.contestants import W4, W8

FLOATS = ("torch fp32", "torch bf16")


def judge(records) -> list[tuple[str, str, str, bool]]:
    """Return for each expectation what it says, what is wanted, what was found, and whether."""
    found = []
    for threads in sorted({r["threads"] for r in records}):
        here = tables.select(records, threads=threads)
        name = f"{threads} thread{'s' * (threads > 1)}"
        claims = _eight_bits(tables.select(here, discipline=W8))
        claims += _four_bits(tables.select(here, discipline=W4))
        found += [(f"{claim}, {name}", *rest) for claim, *rest in claims]
    return found


def table(records) -> str:
    """Return the expectations as a table in markdown."""
    rows = [
        (claim, wanted, found, "yes" if reached else "**no**")
        for claim, wanted, found, reached in judge(records)
    ]
    return tables.markdown(["expectation", "wanted", "found", "reached"], rows)


def _eight_bits(records):
    if not records:
        return []
    many = [r for r in records if r["rows"] >= 128]
    return [
        _every_cell(records),
        _least("W8A8, nearest peer's geometric mean at M ≥ 128", 1.1, nearest(many)),
        _least("W8A8, nearest peer's geometric mean at M = 1", 1.5, nearest(_single(records))),
        _error("W8A8, error against the best quantized peer's", records, None),
        _least("W8A8, part of the int8 peak at M ≥ 128 (median)", 0.88, _fraction(many)),
        _least("W8A8, part of stream reading at M = 1 (median)", 0.90, _fraction(_single(records))),
        _linear(many),
    ]


def _four_bits(records):
    if not any("ggml Q4_0" in r["times"] for r in records):
        return []
    ratio = tables.geometric_mean(tables.peer_ratios(records, "ggml Q4_0"))
    return [
        _least("W4A8, geometric mean against ggml Q4_0", 1.2, ratio),
        _error("W4A8, error against ggml Q4_0's", records, "ggml Q4_0"),
    ]


def nearest(records) -> float:
    """Return the least of the peers' geometric means: the ratio to the fastest peer."""
    means = [
        tables.geometric_mean(tables.peer_ratios(records, peer)) for peer in tables.names(records)
    ]
    return min(means, default=math.nan)


def _single(records):
    return [r for r in records if r["rows"] == 1]


def _fraction(records):
    return statistics.median(map(tables.fraction, records)) if records else math.nan


def _every_cell(records):
    ratios = [ratio for r in records for ratio in tables.ratios(r).values()]
    worst, lost = min(ratios, default=math.nan), sum(ratio < 1 for ratio in ratios)
    found = f"{worst:.2f} at worst; behind in {lost} of {len(ratios)} comparisons"
    return "W8A8, ahead of every peer in every cell", "> 1.00", found, worst > 1


def _least(claim, wanted, found):
    return claim, f"≥ {wanted:.2f}", f"{found:.2f}", found >= wanted


def _error(claim, records, peer):
    peers = [peer] if peer else [p for p in tables.names(records) if p not in FLOATS]
    ratios = [
        r["errors"][tables.OURS] / min(r["errors"][p] for p in peers if p in r["errors"])
        for r in records
        if tables.OURS in r["errors"] and any(p in r["errors"] for p in peers)
    ]
    found = tables.geometric_mean(ratios)
    return claim, "≤ 1.00", f"{found:.3f}", found <= 1.0


def _linear(records):
    slope = tables.linearity(records)
    found = f"time ~ (N·K·M)^{slope:.3f}"
    return "W8A8, cost linear in N·K·M at M ≥ 128", "0.95 to 1.05", found, 0.95 <= slope <= 1.05
