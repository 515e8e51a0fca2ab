"""The results of a class: kept while grading goes on, and written as CSV, JSON and HTML."""

import csv
import html
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from lightcourse import files

STATE = "results.json"


def load(folder: Path, name: str = STATE) -> dict:
    """Return what stands in ``results.json``, or in ``name``; an empty dict where it is not there.

    Raises
    ------
    ValueError
        When it is damaged, or none of ours.
    """
    path = folder / name
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        {learner: row["sha256"] for learner, row in found["learners"].items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path} holds no results; move it away to grade anew") from error
    return found


def check_outside(out: Path, folder: Path) -> None:
    """Raise ``ValueError`` where results would be written among what is graded."""
    if out.is_relative_to(folder):
        raise ValueError(f"out is {out}, inside the class's folder; one outside is wanted")


def kept(old: dict, new: dict, same: Sequence[str]) -> dict:
    """Return the rows of an earlier run that hold: where all that decides a row is the same."""
    return old.get("learners", {}) if all(old.get(key) == new[key] for key in same) else {}


def with_rest(new: dict, kept: dict, learners: Iterable[str]) -> dict:
    """Return the results so far, and after them those from before that are still to be met."""
    rest = {learner: kept[learner] for learner in learners if learner in kept}
    return {**new, "learners": {**rest, **new["learners"]}}


def save(results: dict, folder: Path, name: str = STATE) -> None:
    """Write the JSON file, from which an interrupted grading goes on."""
    text = json.dumps(results, indent=1, ensure_ascii=False) + "\n"
    _write(folder / name, text)


def save_tables(results: dict, folder: Path) -> None:
    """Write the table for a spreadsheet and the page for a browser."""
    _write(folder / "results.csv", table(results))
    _write(folder / "results.html", page(results))


def _write(path, text):
    # Names of files need not be letters in every encoding; backslashes show what they are.
    data = text.encode("utf-8", "backslashreplace")
    files.write_atomically(path, lambda temporary: temporary.write_bytes(data))


def total(results: dict) -> int:
    """Return how many points there are: those of each check, one where it is not said."""
    return sum(results.get("worth", {}).get(check, 1) for check in results["checks"])


def table(results: dict) -> str:
    """Return CSV: a line a learner, with points, each check's message, and what was cut off."""
    import io

    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    head = ["learner", "points", "of", *results["checks"], "cut off", "remark", "isolation"]
    writer.writerow(map(_cell, head))
    for learner, row in results["learners"].items():
        said = ["✓" if a["passed"] else f"✗ {a['message']}" for a in row["answers"]]
        ends = [row["stopped"], row["remark"], row["isolation"]]
        numbers = [row["points"], total(results)]
        writer.writerow([_cell(learner), *numbers, *map(_cell, (*said, *ends))])
    return out.getvalue()


def _cell(text):
    """Return text that no spreadsheet takes for a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


STYLE = """
body { font: 16px/1.4 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem;
  color: #1b1b1b; background: #fff; }
table { border-collapse: collapse; width: 100%; }
td, th { border-bottom: 1px solid #ccc; padding: .3rem .6rem; text-align: left;
  vertical-align: top; overflow-wrap: anywhere; }
thead th { white-space: nowrap; } summary { cursor: pointer; }
li { margin: .2rem 0; overflow-wrap: anywhere; }
.no { color: #a01818; } .yes { color: #10632c; }
@media (prefers-color-scheme: dark) { body { color: #e6e6e6; background: #16181c; }
  .no { color: #ff9a9a; } .yes { color: #8fdca8; } td, th { border-color: #444; } }
"""


def page(results: dict) -> str:
    """Return HTML that stands alone; all that comes from learners is escaped."""
    title = _text(f"{results['chapter']}: {len(results['learners'])} submissions")
    rows = "\n".join(_row(name, row, results) for name, row in results["learners"].items())
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        f"<title>{title}</title><style>{STYLE}</style></head><body>\n"
        f"<h1>{title}</h1>\n<p>{_summary(results)}</p>\n"
        '<table><thead><tr><th scope="col">learner</th><th scope="col">points</th>'
        f'<th scope="col">what was found</th></tr></thead><tbody>\n{rows}\n'
        "</tbody></table></body></html>\n"
    )


def _summary(results):
    passed = {check: 0 for check in results["checks"]}
    for row in results["learners"].values():
        for answer in row["answers"]:
            passed[answer["check"]] += answer["passed"]
    said = "; ".join(f"{check}: {count} passed" for check, count in passed.items())
    isolation = "; ".join(results["layers"][name] for name in sorted(results["layers"]))
    return f"{_text(said)}. Seed {results['seed']}. Isolation: {_text(isolation)}."


def _row(name, row, results):
    items = [_item(a["passed"], f"{a['check']} {a['message']}") for a in row["answers"]]
    items += [_item(False, f"cut off: {row['stopped']}")] if row["stopped"] else []
    items += [_item(None, row["remark"])] if row["remark"] else []
    items += [_item(None, f"code cell {r['cell']} raised {r['error']}") for r in row["raised"]]
    found = f"<ul>{''.join(items)}</ul>"
    opened = f"<details open><summary>{_text(row['isolation'])}</summary>{found}</details>"
    points = f"{row['points']} / {total(results)}"
    return f'<tr><th scope="row">{_text(name)}</th><td>{points}</td><td>{opened}</td></tr>'


def _item(passed, text):
    mark = {True: '<span class="yes">✓</span> ', False: '<span class="no">✗</span> ', None: ""}
    return f"<li>{mark[passed]}{_text(text)}</li>"


def _text(text):
    return html.escape(str(text), quote=True)
