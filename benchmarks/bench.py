"""Time the library's kernels against what people would otherwise use, in one run.

Usage: python -m benchmarks.bench [--quick] [--threads 1 2] [--only W8A8 W4A8 sparse]

For each shape, number of rows and number of threads all contestants take turns. Writes a
table, the raw figures and a roofline to benchmarks/results/.
"""

import argparse
import datetime
import json
import math
from pathlib import Path

import torch

from benchmarks import cells, machine, report, tables
from benchmarks.contestants import DISCIPLINES
from lightcourse import files

RESULTS = Path(__file__).parent / "results"
QUICK_SHAPES, QUICK_ROWS = [(384, 1536), (2048, 8192)], [1, 32, 128]
QUICK_SECONDS, SECONDS = 0.4, 2.5


def main():
    """Measure, save after each cell, report."""
    options = parse()
    name = f"{datetime.date.today()}-kernels{'-quick' if options.quick else ''}"
    result = {"date": str(datetime.datetime.now().astimezone()), "machine": machine.describe()}
    result |= {"absent": {}, "records": []}
    with torch.inference_mode():
        for record in run(options, result["absent"]):
            result["records"].append(record)
            save(RESULTS / f"{name}.json", result)
            print(progress(record), flush=True)
    print(report.write(RESULTS / name, result))


def parse():
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two shapes, in two minutes")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--only", nargs="+", choices=DISCIPLINES, default=list(DISCIPLINES))
    return parser.parse_args()


def run(options, absent):
    """Yield one record after the other."""
    shapes = QUICK_SHAPES if options.quick else cells.SHAPES
    rows = QUICK_ROWS if options.quick else cells.ROWS
    seconds = QUICK_SECONDS if options.quick else SECONDS
    for threads in options.threads:
        for discipline in options.only:
            for shape in shapes:
                place = discipline, shape, rows, threads, seconds
                yield from cells.measure(*place, machine.limits, absent)


def save(path, result):
    """Write the raw figures as JSON, atomically."""
    files.write_atomically(
        path, lambda temporary: temporary.write_text(json.dumps(result, indent=1))
    )


def progress(record) -> str:
    """Return one line about a record: our time and the fastest peer."""
    where = f"{record['discipline']:<6} {record['inputs']:>4} x {record['outputs']}"
    where += f" M={record['rows']:<3} {record['threads']} thread(s)"
    ours = 1e3 * tables.median(record, tables.OURS)
    peer, ratio = min(
        tables.ratios(record).items(), key=lambda pair: pair[1], default=("", math.nan)
    )
    return f"{where}: {ours:8.3f} ms, {tables.fraction(record):4.0%} of limit; {peer} {ratio:.2f}"


if __name__ == "__main__":
    main()
