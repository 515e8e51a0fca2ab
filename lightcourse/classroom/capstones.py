"""A class's capstones: each one measured in a process of its own, and a board of all of them.

A submission is data and runs no code, so its process is a plain one, with limits: what a hostile
file can do is to take long, or much, or to end its own process.
"""

import contextlib
import hashlib
import json
import tempfile
from dataclasses import asdict
from pathlib import Path

import lightcourse
from lightcourse import capstone, metrics, progress, wire
from lightcourse.capstone.looking import MOST_BYTES
from lightcourse.classroom import board, process, results, submissions
from lightcourse.classroom.isolation import Limits

STATE = "leaderboard.json"
WEIGH = "__import__('lightcourse.classroom.capstones', fromlist=['weigh_listed']).weigh_listed"


def grade_capstones(
    folder: str | Path,
    rows: tuple[list[str], list[int]],
    out: str | Path,
    *,
    budget: capstone.Budget = capstone.BUDGET,
    teacher: Path | None = None,
    limits: Limits | None = None,
    show: bool = False,
) -> dict:
    """Measure all submissions in a folder, and write leaderboard.json and leaderboard.html.

    After an interruption the same call goes on: who is on the board is not measured anew, unless
    a file has changed, or the rows, the budget, or the library's version.

    Parameters
    ----------
    folder : path
        One folder a learner, or a submission itself. It is only read.
    rows : (list of str, list of int)
        Texts, and their labels as the teacher numbers them.
    out : path
        A folder for the board, outside of ``folder``.
    budget : Budget
    teacher : path, optional
        Of a submission that is the teacher; by default :func:`capstone.load_teacher`'s.
    limits : Limits, optional
        Of each submission.
    show : bool
        Draw a progress bar.

    Returns
    -------
    dict
        What stands in leaderboard.json.

    Raises
    ------
    ValueError
        When there are no submissions, or ``out`` lies in ``folder``.
    """
    folder, out = Path(folder).resolve(), Path(out).resolve()
    results.check_outside(out, folder)
    found = homes(folder)
    loaded = _loaded(teacher)
    expected = capstone.answers(loaded, rows[0])
    judged_by = expected, rows[1], loaded.labels, budget
    old, new = results.load(out, STATE), _head(rows, budget, expected)
    kept = results.kept(old, new, _SAME)
    with tempfile.TemporaryDirectory(prefix="lightcourse-") as place:
        listed = _list(Path(place), rows[0], teacher)
        for learner, home in progress.bar(found, desc="weighing", unit="learner", show=show):
            digest = _digest(home)
            row = kept.get(learner)
            if row is None or row["sha256"] != digest:
                row = _row(_measured(home, listed, judged_by, limits or Limits())) | {
                    "sha256": digest
                }
            new["learners"][learner] = row
            results.save(results.with_rest(new, kept, dict(found)), out, STATE)
    new = board.ranked(new)
    results.save(new, out, STATE)
    board.save(new, out)
    return new


_SAME = ("rows_sha256", "budget", "version")


def homes(folder: Path) -> list[tuple[str, Path]]:
    """Return (learner, folder of the submission) for each learner, sorted by names."""
    if (folder / "model.safetensors").exists() or (folder / "config.json").exists():
        return [(submissions.shown(folder.name), folder)]
    return submissions.homes(folder)


def _loaded(teacher):
    return capstone.load_teacher() if teacher is None else capstone.load_submission(teacher)


def _head(rows, budget, teacher):
    text = json.dumps(rows).encode()
    accuracy = metrics.accuracy(teacher, rows[1])
    return {
        "rows": len(rows[0]),
        "rows_sha256": hashlib.sha256(text).hexdigest(),
        "budget": asdict(budget),
        "version": lightcourse.__version__,
        "teacher_accuracy": accuracy,
        "learners": {},
    }


def _list(place, texts, teacher):
    listed = place / "texts.json"
    told = {"texts": texts, "teacher": None if teacher is None else str(Path(teacher).resolve())}
    listed.write_text(json.dumps(told), encoding="utf-8")
    return listed


def _digest(home):
    """Return a hash over the files' names and bytes, as far as they are plain and can be read."""
    total = hashlib.sha256()
    with contextlib.suppress(OSError):
        for path in sorted(home.iterdir()) if home.is_dir() and not home.is_symlink() else ():
            total.update(f"{path.name!r} {path.lstat().st_size}\n".encode())
            plain = path.is_file() and not path.is_symlink()
            if plain and path.stat().st_size <= max(MOST_BYTES.values()):
                total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


def _measured(home, listed, judged_by, limits):
    """Look at a submission here, let a process of its own weigh it, and judge here."""
    teacher, labels, names, budget = judged_by
    try:
        files = capstone.look(home)
        claims, problem = capstone.read_card(home, files)
        weighed = _weighed(home, listed, limits, len(labels))
    except ValueError as error:
        return capstone.Report(refused=str(error))
    except OSError as error:
        return capstone.Report(refused=f"its files cannot be read: {error.strerror}")
    return capstone.judge(files, claims, problem, weighed, teacher, (labels, names), budget)


def _weighed(home, listed, limits, count):
    try:
        with process.started("plain", limits, listed.parent) as ask:
            reply = ask({"ask": [WEIGH, wire.encode((str(home), str(listed)))]})
        kind, *content = wire.decode(str(reply.get("answer", "")))
    except ChildProcessError as error:
        raise ValueError(f"it could not be weighed: {error}") from error
    if kind != "answer":
        raise ValueError(f"it could not be weighed: {str(content[0])[:300]}")
    refused, predictions, own, teacher, letters = content[0]
    if refused:
        raise ValueError(refused)
    if len(predictions) != count:
        raise ValueError("it could not be weighed: there are other answers than texts")
    latencies = metrics.Latency(*own), metrics.Latency(*teacher)
    return capstone.Weighed(predictions, *latencies, letters)


def weigh_listed(folder: str, listed: str) -> tuple:
    """Weigh a submission on listed texts; what runs in its process, and returns plain values."""
    lightcourse.setup()
    told = json.loads(Path(listed).read_text(encoding="utf-8"))
    teacher = _loaded(told["teacher"])
    try:
        found = capstone.weigh(folder, told["texts"], teacher)
    except ValueError as error:
        return str(error)[:2000], [], (), (), ()
    times = (
        (one.median, one.spread, one.repeats, one.threads)
        for one in (found.latency, found.teacher_latency)
    )
    return "", found.predictions, *times, found.letters


def _row(report):
    """Return a report as JSON holds it."""
    row = {"refused": report.refused, "points": dict(report.points), "remarks": report.remarks}
    if report.refused:
        return row
    return row | {
        "bytes": report.bytes,
        "accuracy": report.accuracy,
        "macro_f1": report.macro_f1,
        "gap": report.gap.gap,
        "gap_margin": report.gap.margin,
        "milliseconds": report.seconds * 1e3,
        "teacher_milliseconds": report.teacher_seconds * 1e3,
        "share_of_time": report.share_of_time,
        "letters": list(report.letters),
        "claims": report.claims,
    }


def from_options(options) -> int:
    """Serve ``lightcourse grade --capstone``: measure, print a line for each, name the files."""
    folder = Path(options.folder).resolve()
    rows = held_back(options.held_back)
    out = Path(options.out or folder.with_name(f"{folder.name}-capstone-results"))
    found = grade_capstones(
        folder, rows, out, limits=Limits(options.timeout), show=progress.in_terminal()
    )
    for learner, row in found["learners"].items():
        if row["refused"]:
            print(f"refused  {learner}: {row['refused']}")
        else:
            print(f"{sum(row['points'].values())} of {len(row['points'])}  {learner}")
    print(f"{out} has leaderboard.json, leaderboard.html")
    return 0


def held_back(path: str | None) -> tuple[list[str], list[int]]:
    """Return texts and labels: a CSV file's, or the Factbook's test split without one.

    Raises
    ------
    ValueError
        When a label is none of the Factbook's sections, or as ``data.load_csv``.
    """
    from lightcourse import data

    names = capstone.section_names()
    if path is None:
        test = data.load_factbook()["test"]
        return list(test["text"]), list(test["label"])
    rows = data.csv_rows(path)
    if unknown := sorted({row["label"] for row in rows} - set(names)):
        raise ValueError(f"{path} has the label {unknown[0]!r}; the sections {names} are wanted")
    return [row["text"] for row in rows], [names.index(row["label"]) for row in rows]
