"""The dated report: tables in markdown, and a roofline."""

from pathlib import Path

from benchmarks import break_even, expectations, tables
from benchmarks.contestants import SPARSE, W4, W8
from lightcourse import files

HOW = """\
Wall clock around one call from Python, medians over calls. Each contestant has a process of its
own. For each cell all take turns of about 2 ms, in an order that changes from round to round; each
turn opens with one untimed call, and begins when no thread of the one before is left spinning; the
slowest sit out some rounds. Calls of M = 1 go round distinct copies of the weight that exceed the
cache together. Weights and inputs are Gaussian, no contestant adds a bias, and float16, bfloat16 or
transposed inputs are made outside the timing. The machine's limits are measured before each cell.
Who crashes, hangs or is not installed is named with the reason; an answer whose error is half of
what is right, or more, is not timed. A ratio is the peer's time over ours: **bold** and below 1
where the peer is faster."""
WHO = {
    W8: "8-bit weights with a scale a channel, 8-bit activations with a scale a row. The limit is "
    "reading the weights for M = 1, the int8 peak for more.",
    W4: "4-bit weights with a scale for every 32, 8-bit activations with a scale a row.",
    SPARSE: "Here ours is our *dense* 8-bit kernel, and the columns are what leaves out zeros: "
    "**bold** where that pays. Unnamed columns are our sparse kernel, on zeros of three shapes.",
}


def write(stem, result) -> str:
    """Write the report and its figure beside the raw figures; return the report."""
    figure = Path(f"{stem}.png")
    draw(result["records"], figure)
    text = "\n\n".join(compose(result, figure.name)) + "\n"
    files.write_atomically(f"{stem}.md", lambda path: path.write_text(text, encoding="utf-8"))
    return text


def compose(result, figure):
    """Yield the report's paragraphs."""
    records = result["records"]
    processor = result["machine"].get("processor", "?").partition(" (family")[0]
    yield f"# Kernels against their peers, {processor}, {result['date'][:10]}"
    yield tables.markdown(["the machine", ""], result["machine"].items())
    yield limits(records)
    yield HOW
    yield from absent(result.get("absent", {}))
    if any(map(tables.failed, records)):
        yield "## Who took no part"
        yield tables.failures(records)
    yield "## What was expected, and what was found"
    yield expectations.table(records)
    yield "## Where we lose"
    yield from where_we_lose(records)
    yield f"![Operations a second over operations for each byte of weight]({figure})"
    for discipline in (W8, W4, SPARSE):
        yield from discipline_tables(discipline, tables.select(records, discipline=discipline))


def limits(records) -> str:
    """Return the machine's limits: medians over the cells, and their range."""
    rows = []
    for threads in sorted({r["threads"] for r in records}):
        here = tables.select(records, threads=threads)
        found = [spread([r[key] / 1e9 for r in here]) for key in ("peak", "stream")]
        rows.append([threads, *found])
    return tables.markdown(["threads", "int8 peak, Gop/s", "stream reading, GB/s"], rows)


def spread(values) -> str:
    """Return the median of values, and their range."""
    values = sorted(values)
    return f"{values[len(values) // 2]:.0f} ({values[0]:.0f} to {values[-1]:.0f})"


def absent(reasons):
    """Yield who is missing from the tables of before 2026-12, and why."""
    if reasons:
        yield "Absent: " + "; ".join(f"{name} ({why})" for name, why in reasons.items())


def where_we_lose(records):
    """Yield every comparison in which the peer was faster."""
    lost = tables.losses([r for r in records if r["discipline"] != SPARSE])
    count = sum(len(tables.ratios(r)) for r in records if r["discipline"] != SPARSE)
    yield f"Behind in {len(lost)} of {count} comparisons of W8A8 and W4A8."
    if lost:
        yield "\n".join(f"- {line}" for line in lost)


def discipline_tables(discipline, records):
    """Yield the tables of one discipline: ratios for each number of threads, and errors."""
    if not records:
        return
    yield f"## {discipline}"
    yield WHO[discipline]
    for threads in sorted({r["threads"] for r in records}):
        here = tables.select(records, threads=threads)
        yield f"### {discipline}, {threads} thread{'s' * (threads > 1)}"
        yield tables.ratio_table(here)
        if discipline == SPARSE:
            yield "The fraction of zeros from which on sparsity pays against our dense int8 kernel:"
            yield break_even.table(here)
    yield f"### {discipline}, errors against float64"
    yield tables.error_table(records)


def draw(records, path):
    """Draw the roofs and what was reached under them."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from lightcourse import plots

    counts = sorted({r["threads"] for r in records})
    figure, axes = plt.subplots(1, len(counts), figsize=(9 * len(counts), 5), layout="constrained")
    for ax, threads in zip([axes] if len(counts) == 1 else axes, counts, strict=True):
        here = tables.select(records, threads=threads)
        middle = {k: sorted(r[k] for r in here)[len(here) // 2] for k in ("stream", "peak")}
        name = f"{threads} thread{'s' * (threads > 1)}"
        plots.roofline({name: (middle["stream"], middle["peak"])}, points=points(here), ax=ax)
    files.write_atomically(path, lambda temporary: figure.savefig(temporary, format="png", dpi=110))
    plt.close(figure)


def points(records):
    """Return what was reached in 8 bits: operations for each byte of weight, and a second."""
    eight = tables.select(records, discipline=W8)
    found = {}
    for name in [tables.OURS, *tables.names(eight)]:
        width = {"torch fp32": 4, "torch bf16": 2}.get(name, 1)
        found[name] = [
            (2 * r["rows"] / width, tables.rate(r, name)) for r in eight if name in r["times"]
        ]
    return found
