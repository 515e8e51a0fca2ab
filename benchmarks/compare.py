"""Lay the results of several machines side by side.

Usage: python -m benchmarks.compare [FILE.json ...]

Reads raw figures, by default all in benchmarks/results/, and writes machines.md there: each
peer's time over ours as a geometric mean over the cells that all machines have measured, and
each whole model's speed over float32's. Ratios within one run can be compared between machines;
seconds can not.
"""

import argparse
import json
import math
from pathlib import Path

from benchmarks import tables
from benchmarks.bench import CELL, RESULTS
from lightcourse import files

EXACT = "torch fp32"


def main():
    """Read, compose, write and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", type=Path, default=sorted(RESULTS.glob("*.json")))
    results = [json.loads(file.read_text(encoding="utf-8")) for file in parser.parse_args().files]
    text = "\n\n".join(compose(results)) + "\n"
    files.write_atomically(
        RESULTS / "machines.md", lambda path: path.write_text(text, encoding="utf-8")
    )
    print(text)


def compose(results):
    """Yield the paragraphs."""
    yield "# Several machines side by side"
    kernels = [result for result in results if result.get("records")]
    if kernels:
        yield from kernel_tables(kernels)
    for kind, key in (("encoding", "median"), ("generation", "token"), ("deployment", "median")):
        measured = [result for result in results if result.get(kind)]
        for threads in sorted({threads for result in measured for threads in result[kind]}):
            yield f"## {kind}, {threads} thread(s): speed over float32's"
            yield model_table([r for r in measured if threads in r[kind]], kind, threads, key)


def name(result) -> str:
    """Return how a column is headed: processor and day."""
    processor = result["machine"].get("processor", "?").partition(" (family")[0]
    return f"{processor}, {result['date'][:10]}"


def kernel_tables(results):
    """Yield a table for each discipline and number of threads, over the cells that all have."""
    common = set.intersection(*({_cell(r) for r in result["records"]} for result in results))
    yield (
        f"Kernels: each peer's time over ours, **bold** where it is faster; geometric means over "
        f"the {len(common)} cells that all these runs have measured."
    )
    for discipline, threads in sorted({(cell[0], cell[-1]) for cell in common}):
        yield f"## {discipline}, {threads} thread(s)"
        wanted = {"discipline": discipline, "threads": threads}
        parts = [
            tables.select([r for r in result["records"] if _cell(r) in common], **wanted)
            for result in results
        ]
        peers = list(dict.fromkeys(peer for part in parts for peer in tables.names(part)))
        rows = [[peer, *(kernel_entry(part, peer) for part in parts)] for peer in peers]
        yield tables.markdown(["", *map(name, results)], rows)


def _cell(record):
    return tuple(record[key] for key in CELL)


def kernel_entry(records, peer) -> str:
    """Write a peer's mean ratio, or why there is none; in how many cells, where not in all."""
    found = tables.peer_ratios(records, peer)
    if not found:
        return next((tables.reason(r, peer) for r in records), "absent")
    missing = f" ({len(found)} of {len(records)} cells)" if len(found) < len(records) else ""
    return tables.marked(tables.geometric_mean(found)) + missing


def model_table(results, kind, threads, key) -> str:
    """Return each model's speed over float32's on each machine."""
    parts = [result[kind][threads] for result in results]
    who = list(dict.fromkeys(contestant for part in parts for contestant in part))
    rows = [[one, *(model_entry(part, one, key) for part in parts)] for one in who]
    return tables.markdown(["", *map(name, results)], rows)


def model_entry(found, contestant, key) -> str:
    """Write how many times float32's speed one reaches, or why there is no figure."""
    one = found.get(contestant, {"failed": "absent"})
    if "failed" in one:
        return one["failed"].partition(":")[0]
    exact = found.get(EXACT, {}).get(key, math.nan)
    return f"{exact / one[key]:.2f}"


if __name__ == "__main__":
    main()
