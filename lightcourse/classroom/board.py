"""The capstone's leaderboard: its order, and a page with a picture, that stands alone."""

import html
import math
from dataclasses import dataclass
from pathlib import Path

from lightcourse import capstone, files
from lightcourse.classroom.results import STYLE

WIDTH, HEIGHT, EDGE = 640, 360, 50
FIGURES = """
.figure { white-space: nowrap; } th[scope="row"] { min-width: 8rem; }
svg { max-width: 100%; height: auto; overflow: visible; }
"""


def ranked(found: dict) -> dict:
    """Return a board with learners in its order: points, then bytes, then names; refused last."""
    rows = found["learners"]
    front = capstone.pareto_front(
        {name: (r["bytes"], r["accuracy"]) for name, r in rows.items() if not r["refused"]}
    )
    order = sorted(rows, key=lambda name: _place(name, rows[name]))
    return {**found, "learners": {n: {**rows[n], "front": n in front} for n in order}}


def _place(name, row):
    return bool(row["refused"]), -sum(row["points"].values()), row.get("bytes", 0), name


def save(found: dict, folder: Path) -> Path:
    """Write the page."""
    data = page(found).encode("utf-8", "backslashreplace")
    return files.write_atomically(folder / "leaderboard.html", lambda path: path.write_bytes(data))


def page(found: dict) -> str:
    """Return HTML that stands alone; all that comes from learners is escaped."""
    title = f"Capstone: {len(found['learners'])} submissions"
    budget = capstone.Budget(**found["budget"])
    rows = "\n".join(_row(name, row) for name, row in found["learners"].items())
    heads = ("learner", "points", "bytes", "accuracy", "share of time", "what was found")
    head = "".join(f'<th scope="col">{name}</th>' for name in heads)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        f"<title>{title}</title><style>{STYLE}{FIGURES}</style></head><body>\n<h1>{title}</h1>\n"
        f"<p>Budget: {_text(budget)}. Teacher: {found['teacher_accuracy']:.3f} of "
        f"{found['rows']:,} rows. ★: no other one is both smaller and better.</p>\n"
        f"{picture(found)}\n<table><thead><tr>{head}</tr></thead><tbody>\n{rows}\n"
        "</tbody></table></body></html>\n"
    )


def _row(name, row):
    star = " ★" if row["front"] else ""
    cells = ["–"] * 4
    if not row["refused"]:
        points = f"{sum(row['points'].values())} / {len(row['points'])}"
        quality = f"{row['accuracy']:.3f} ({row['gap']:+.3f} ± {row['gap_margin']:.3f})"
        cells = [points, f"{row['bytes']:,}", quality, f"{row['share_of_time']:.2f}"]
    columns = "".join(f'<td class="figure">{_text(cell)}</td>' for cell in cells)
    said = "<br>".join(_said(row))
    return f'<tr><th scope="row">{_text(name)}{star}</th>{columns}<td>{said}</td></tr>'


def _said(row):
    """Yield lines: why it was refused, or which points there are, and what was remarked."""
    if row["refused"]:
        yield f'<span class="no">refused:</span> {_text(row["refused"])}'
        return
    marks = {True: ("yes", "✓"), False: ("no", "✗")}
    yield " &nbsp; ".join(
        f'<span class="{marks[passed][0]}">{marks[passed][1]}</span> {_text(point)}'
        for point, passed in row["points"].items()
    )
    yield from map(_text, row["remarks"])


@dataclass(frozen=True)
class Frame:
    """What a picture shows: bytes on a logarithmic scale, accuracy from ``floor`` to 1."""

    smallest: float
    largest: float
    floor: float

    def across(self, size: float) -> float:
        """Return the x of a number of bytes."""
        share = math.log(size / self.smallest) / math.log(self.largest / self.smallest)
        return round(EDGE + (WIDTH - 2 * EDGE) * share, 1)

    def up(self, accuracy: float) -> float:
        """Return the y of an accuracy."""
        share = (accuracy - self.floor) / (1 - self.floor)
        return round(HEIGHT - EDGE - (HEIGHT - 2 * EDGE) * share, 1)


def picture(found: dict) -> str:
    """Return an SVG: a dot for each submission that was measured, bytes against accuracy."""
    rows = {name: row for name, row in found["learners"].items() if not row["refused"]}
    if not rows:
        return ""
    budget = found["budget"]["bytes"]
    least = found["teacher_accuracy"] - found["budget"]["points_below"] / 100
    sizes = [budget, *(max(1, row["bytes"]) for row in rows.values())]
    worst = min([least, 0.9, *(row["accuracy"] for row in rows.values())])
    frame = Frame(min(sizes) / 1.5, max(sizes) * 2, max(0, math.floor(10 * worst) / 10))
    dots = "".join(_dot(names, rows[names[0]], frame) for names in _alike(rows))
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" role="img" fill="currentColor" '
        f'font-size="12"><title>Bytes against accuracy of {len(rows)} submissions</title>'
        f"{_axes(frame)}{_limits(frame, budget, least)}{dots}</svg>\n"
        "<p>Accuracy over megabytes, which are on a logarithmic scale. Dashed: the budget. "
        "Filled: ★.</p>"
    )


def _alike(rows):
    """Return lists of names whose dots would cover each other."""
    found = {}
    for name, row in rows.items():
        found.setdefault((row["bytes"], row["accuracy"]), []).append(name)
    return list(found.values())


def _dot(names, row, frame):
    x, y = frame.across(max(1, row["bytes"])), frame.up(row["accuracy"])
    shown = names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
    # Aslant, so that neighbours' names do not cover each other.
    place = f'x="{x + 8}" y="{y + 4}" transform="rotate(30 {x} {y})"'
    word = f"<text {place}>{_text(shown[:40])}</text>" if row["front"] else ""
    fill = "currentColor" if row["front"] else "none"
    return (
        f'<circle cx="{x}" cy="{y}" r="4" fill="{fill}" stroke="currentColor">'
        f"<title>{_text(', '.join(names))}</title></circle>{word}"
    )


def _axes(frame):
    steps = [n * 10**power for power in range(10) for n in (1, 2, 5)]
    sizes = [size for size in steps if frame.smallest <= size <= frame.largest]
    tenths = [n / 10 for n in range(round(10 * frame.floor), 11)]
    bottom = HEIGHT - EDGE
    words = [
        f'<text x="{frame.across(size)}" y="{bottom + 18}" text-anchor="middle">'
        f"{size / 1e6:g}{' MB' if size == sizes[-1] else ''}</text>"
        for size in sizes
    ]
    words += [
        f'<text x="{EDGE - 6}" y="{frame.up(share) + 4}" text-anchor="end">{share}</text>'
        for share in tenths
    ]
    line = f'<polyline points="{EDGE},{EDGE} {EDGE},{bottom} {WIDTH - EDGE},{bottom}" fill="none"'
    return f'{line} stroke="currentColor"/>{"".join(words)}'


def _limits(frame, budget, least):
    x, y = frame.across(budget), frame.up(least)
    return (
        f'<g stroke="currentColor" stroke-dasharray="4"><line x1="{x}" x2="{x}" y1="{EDGE}" '
        f'y2="{HEIGHT - EDGE}"/><line x1="{EDGE}" x2="{WIDTH - EDGE}" y1="{y}" y2="{y}"/></g>'
    )


def _text(text):
    return html.escape(str(text), quote=True)
