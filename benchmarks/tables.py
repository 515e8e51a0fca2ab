"""From records to tables: ratios, fractions of the machine's limits, geometric means."""

import math
import statistics
from collections import Counter

OURS = "lightcourse"


def geometric_mean(values) -> float:
    """Return the n-th root of the product; NaN where there is no value."""
    values = list(values)
    return math.exp(statistics.fmean(map(math.log, values))) if values else math.nan


def median(record, name) -> float:
    """Return a contestant's median in seconds; NaN where it did not take part."""
    return record["times"].get(name, {"median": math.nan})["median"]


def ratios(record) -> dict[str, float]:
    """Return for each peer its time divided by ours: above 1 we are faster."""
    if OURS not in record["times"]:
        return {}
    ours = median(record, OURS)
    return {name: median(record, name) / ours for name in record["times"] if name != OURS}


def rate(record, name=OURS) -> float:
    """Return operations a second: a multiplication and an addition for each weight and row."""
    return 2 * record["inputs"] * record["outputs"] * record["rows"] / median(record, name)


def fraction(record, name=OURS) -> float:
    """Return the part of the limit that is reached: stream reading at M = 1, else the peak."""
    if record["rows"] == 1:
        return record["bytes"] / median(record, name) / record["stream"]
    return rate(record, name) / record["peak"]


def names(records) -> list[str]:
    """Return the peers in the order in which they appear, those that failed behind them."""
    who = [n for record in records for n in record["times"]]
    who += [n for record in records for n in failed(record)]
    return [n for n in dict.fromkeys(who) if n != OURS]


def failed(record) -> dict[str, str]:
    """Return who took no part in a record, and why; results of before 2026-12 do not say."""
    return record.get("failed", {})


def select(records, **wanted):
    """Return the records whose fields have these values."""
    return [r for r in records if all(r[key] == value for key, value in wanted.items())]


def markdown(header, rows) -> str:
    """Return a table in markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def ratio_table(records) -> str:
    """Return one line a record: our time, the fraction reached, and each peer's time over ours."""
    peers = names(records)
    header = ["K x N", "M", "ours, ms", "Gop/s", "of limit", *peers]
    rows = []
    for r in records:
        found = ratios(r)
        ours = [f"{1e3 * median(r, OURS):.3f}", f"{rate(r) / 1e9:.0f}", f"{fraction(r):.0%}"]
        shape = f"{r['inputs']} x {r['outputs']}"
        theirs = (marked(found[p]) if p in found else reason(r, p) for p in peers)
        rows.append([shape, r["rows"], *ours, *theirs])
    return markdown(header, [*rows, *mean_rows(records, peers)])


def mean_rows(records, peers):
    """Yield the geometric means over all records, over M = 1, and over M >= 128."""
    parts = {
        "all": records,
        "M = 1": [r for r in records if r["rows"] == 1],
        "M ≥ 128": [r for r in records if r["rows"] >= 128],
    }
    for name, part in parts.items():
        if part:
            means = [geometric_mean(peer_ratios(part, peer)) for peer in peers]
            yield ["**geometric mean**", name, "", "", "", *map(marked, means)]


def peer_ratios(records, peer) -> list[float]:
    """Return one peer's time over ours in each record in which it took part."""
    return [ratios(r)[peer] for r in records if peer in ratios(r)]


def reason(record, name) -> str:
    """Return in a word or two why a contestant has no figure."""
    return failed(record).get(name, "absent").partition(":")[0]


def failures(records) -> str:
    """Return one line for each contestant and reason: in how many cells it failed so."""
    counts = Counter((n, why) for record in records for n, why in failed(record).items())
    rows = [[name, why, f"{count} of {len(records)}"] for (name, why), count in counts.items()]
    return markdown(["who", "what happened", "cells"], rows)


def marked(ratio) -> str:
    """Write a ratio; bold where the peer is faster."""
    if math.isnan(ratio):
        return "absent"
    return f"**{ratio:.2f}**" if ratio < 1 else f"{ratio:.2f}"


def error_table(records) -> str:
    """Return each contestant's median error, by shape."""
    shapes = list(dict.fromkeys((r["inputs"], r["outputs"]) for r in records))
    header = ["mean error / mean size", *(f"{k} x {n}" for k, n in shapes)]
    rows = []
    for name in [OURS, *names(records)]:
        parts = [select(records, inputs=k, outputs=n) for k, n in shapes]
        found = [[r["errors"][name] for r in part if name in r["errors"]] for part in parts]
        rows.append([name, *(f"{statistics.median(f):.2g}" if f else "absent" for f in found)])
    return markdown(header, rows)


def losses(records) -> list[str]:
    """Return a line for each record and peer that was faster, the worst first."""
    lost = []
    for r in records:
        for peer, ratio in ratios(r).items():
            if ratio < 1:
                where = f"{r['inputs']} x {r['outputs']}, M = {r['rows']}, {r['threads']} thread(s)"
                lost.append(
                    (ratio, f"{r['discipline']} {where}: {peer} needs {ratio:.2f} of our time")
                )
    return [line for _, line in sorted(lost)]


def linearity(records) -> float:
    """Return the exponent p of time ~ (N K M)^p by least squares; 1 is linear."""
    points = [(r["inputs"] * r["outputs"] * r["rows"], median(r, OURS)) for r in records]
    if len({work for work, _ in points}) < 2:
        return math.nan
    x, y = zip(*[(math.log(work), math.log(seconds)) for work, seconds in points], strict=True)
    return statistics.linear_regression(x, y).slope
