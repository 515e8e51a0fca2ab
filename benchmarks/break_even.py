"""From which sparsity on leaving out zeros pays against the dense int8 kernel."""

import math

from benchmarks import tables
from benchmarks.contestants import BLOCKS, CSR, SPARSITIES, TWO_OF_FOUR, UNSTRUCTURED

KINDS = (UNSTRUCTURED, BLOCKS, *CSR)


def crossing(speedups) -> float:
    """Return the sparsity at which the speed-up is 1, by interpolation between measurements.

    Parameters
    ----------
    speedups : dict of float to float
        From sparsity to dense time / sparse time.

    Returns
    -------
    float
        0.0 where the least sparsity pays already, infinity where the greatest does not.
    """
    points = sorted(speedups.items())
    if points[0][1] >= 1:
        return 0.0
    for (low, slow), (high, fast) in zip(points, points[1:], strict=False):
        if fast >= 1:
            return low + (high - low) * math.log(1 / slow) / math.log(fast / slow)
    return math.inf


def table(records) -> str:
    """Return for each record the sparsity from which each kind of zeros pays."""
    rows = []
    for r in records:
        faster = {name: 1 / ratio for name, ratio in tables.ratios(r).items()}
        found = [
            crossing({s: faster[f"{kind} {s}"] for s in SPARSITIES})
            if all(f"{kind} {sparsity}" in faster for sparsity in SPARSITIES)
            else math.nan
            for kind in KINDS
        ]
        shape = f"{r['inputs']} x {r['outputs']}"
        pays = f"{faster[TWO_OF_FOUR]:.2f}" if TWO_OF_FOUR in faster else "absent"
        rows.append([shape, r["rows"], *map(written, found), pays])
    return tables.markdown(["K x N", "M", *KINDS, f"{TWO_OF_FOUR}: speed-up"], rows)


def written(sparsity) -> str:
    """Write a break-even point, beyond the measured range as such."""
    if math.isnan(sparsity):
        return "absent"
    if sparsity == 0:
        return f"below {SPARSITIES[0]}"
    return f"above {SPARSITIES[-1]}" if math.isinf(sparsity) else f"{sparsity:.2f}"
