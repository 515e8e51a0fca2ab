"""The capstone's leaderboard: its order, and a page with a picture, that stands alone."""

import html
from pathlib import Path

from lightcourse import capstone, files
from lightcourse.classroom.results import STYLE

WIDTH, HEIGHT, EDGE = 640, 360, 50


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
    heads = ("learner", "points", "bytes", "accuracy", "of the teacher's time", "what was found")
    head = "".join(f'<th scope="col">{name}</th>' for name in heads)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        f"<title>{title}</title><style>{STYLE}</style></head><body>\n<h1>{title}</h1>\n"
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
    said = [f"refused: {row['refused']}"] if row["refused"] else list(row["remarks"])
    marks = [f"{'✓' if passed else '✗'} {point}" for point, passed in row["points"].items()]
    items = "".join(
        f"<li>{_text(line)}</li>" for line in [*([] if row["refused"] else marks), *said]
    )
    columns = "".join(f"<td>{_text(cell)}</td>" for cell in cells)
    return f'<tr><th scope="row">{_text(name)}{star}</th>{columns}<td><ul>{items}</ul></td></tr>'


def picture(found: dict) -> str:
    """Return an SVG: a dot for each submission that was measured, bytes against accuracy."""
    rows = {name: row for name, row in found["learners"].items() if not row["refused"]}
    if not rows:
        return ""
    most = 1.1 * max([found["budget"]["bytes"], *(row["bytes"] for row in rows.values())])
    dots = "".join(_dot(name, row, most) for name, row in rows.items())
    limit = _across(found["budget"]["bytes"], most)
    least = found["teacher_accuracy"] - found["budget"]["points_below"] / 100
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" role="img" fill="currentColor" '
        f'font-size="12"><title>Bytes against accuracy of {len(rows)} submissions</title>'
        '<g stroke="currentColor" stroke-dasharray="4">'
        f'<line x1="{limit}" x2="{limit}" y1="{EDGE}" y2="{HEIGHT - EDGE}"/>'
        f'<line x1="{EDGE}" x2="{WIDTH - EDGE}" y1="{_up(least)}" '
        f'y2="{_up(least)}"/></g><text x="{EDGE}" y="{HEIGHT - 15}">0 to {most / 1e6:.1f} MB; '
        f"accuracy 0 to 1, upwards; dashed: the budget</text>{dots}</svg>"
    )


def _dot(name, row, most):
    x, y = _across(row["bytes"], most), _up(row["accuracy"])
    return f'<circle cx="{x}" cy="{y}" r="4"/><text x="{x + 6:.1f}" y="{y}">{_text(name)}</text>'


def _across(size, most):
    return round(EDGE + (WIDTH - 2 * EDGE) * size / most, 1)


def _up(accuracy):
    return round(HEIGHT - EDGE - (HEIGHT - 2 * EDGE) * accuracy, 1)


def _text(text):
    return html.escape(str(text), quote=True)
