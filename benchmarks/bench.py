"""Time the library's kernels against what people would otherwise use, in one run.

Usage: python -m benchmarks.bench [--quick] [--threads 1 2] [--only W8A8 W4A8 sparse]
       [--limit 120] [--resume]

For each shape, number of rows and number of threads all contestants take turns, each in a
process of its own. Writes a table, the raw figures and a roofline to benchmarks/results/; the
raw figures after each cell, so that a run that was killed leaves them, and --resume goes on.
"""

import argparse
import datetime
import json
import math
from pathlib import Path

from benchmarks import cells, machine, report, tables
from benchmarks.contestants import DISCIPLINES
from benchmarks.workers import Crew
from lightcourse import files

RESULTS = Path(__file__).parent / "results"
QUICK_SHAPES, QUICK_ROWS = [(384, 1536), (2048, 8192)], [1, 32, 128]
QUICK_SECONDS, SECONDS = 0.4, 2.5
CELL = ("discipline", "inputs", "outputs", "rows", "threads")


def main():
    """Measure, save after each cell, report."""
    options = parse()
    stem, result = begin("kernels", options)
    result.setdefault("records", [])
    try:
        for record in run(options, [tuple(r[key] for key in CELL) for r in result["records"]]):
            result["records"].append(record)
            save(f"{stem}.json", result)
            print(progress(record), flush=True)
    finally:  # also after Ctrl-C: what there is
        if result["records"]:
            print(report.write(stem, result))


def parse():
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two shapes, in five minutes")
    parser.add_argument("--only", nargs="+", choices=DISCIPLINES, default=list(DISCIPLINES))
    return add_options(parser).parse_args()


def add_options(parser):
    """Add what all benchmarks let one choose."""
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--limit", type=float, default=120, help="seconds for one answer of a peer")
    parser.add_argument("--resume", action="store_true", help="keep what today's file holds")
    return parser


def begin(what, options):
    """Return where the results belong, without suffix, and the results to add to."""
    here, now = machine.describe(), datetime.datetime.now().astimezone()
    name = f"{now.date()}-{machine.short_name(here)}-{what}{'-quick' if options.quick else ''}"
    stem = RESULTS / name
    found = Path(f"{stem}.json")
    if options.resume and found.exists():
        result = json.loads(found.read_text(encoding="utf-8"))
        if result["machine"] != here:
            raise SystemExit(f"{found} was made on another machine or with other libraries")
        return stem, result
    return stem, {"date": str(now), "machine": here}


def run(options, done):
    """Yield one record after the other, without those that are done."""
    shapes = QUICK_SHAPES if options.quick else cells.SHAPES
    rows = QUICK_ROWS if options.quick else cells.ROWS
    seconds = QUICK_SECONDS if options.quick else SECONDS
    for threads in options.threads:
        for discipline in options.only:
            with Crew(options.limit) as crew:
                for shape in shapes:
                    left = [m for m in rows if (discipline, *shape, m, threads) not in done]
                    place = crew, discipline, shape, left, threads, seconds
                    yield from cells.measure(*place) if left else ()


def save(path, result):
    """Write the raw figures as JSON, atomically."""
    files.write_atomically(
        path, lambda temporary: temporary.write_text(json.dumps(result, indent=1))
    )


def progress(record) -> str:
    """Return one line about a record: our time, the fastest peer, and who failed."""
    where = f"{record['discipline']:<6} {record['inputs']:>4} x {record['outputs']}"
    where += f" M={record['rows']:<3} {record['threads']} thread(s)"
    ours = 1e3 * tables.median(record, tables.OURS)
    peer, ratio = min(
        tables.ratios(record).items(), key=lambda pair: pair[1], default=("", math.nan)
    )
    lost = "".join(f"; {name} {tables.reason(record, name)}" for name in tables.failed(record))
    fraction = tables.fraction(record)
    return f"{where}: {ours:8.3f} ms, {fraction:4.0%} of limit; {peer} {ratio:.2f}{lost}"


if __name__ == "__main__":
    main()
