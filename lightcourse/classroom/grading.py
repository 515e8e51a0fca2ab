"""Grading a class: each submission in a process of its own, one after the other."""

import hashlib
import secrets
from pathlib import Path

import lightcourse
from lightcourse import language, progress
from lightcourse.classroom import isolation, read, results, submissions
from lightcourse.classroom.grade import Report, grade_sources
from lightcourse.classroom.isolation import Limits


def grade_class(
    folder: str | Path,
    notebook: str,
    expected: list[str],
    out: str | Path,
    *,
    seed: int | None = None,
    limits: Limits | None = None,
    trusted: bool = False,
    show: bool = False,
) -> dict:
    """Grade all submissions in a folder, and write results.csv, results.json, results.html.

    After an interruption the same call goes on: what is done is not graded anew, unless its
    notebook has changed, or the seed, the checks, or the library's version.

    Parameters
    ----------
    folder : path
        Of the class, see :mod:`lightcourse.classroom.submissions`. It is only read.
    notebook : str
        The file's name, such as ``"03_pruning.ipynb"``.
    expected : list of str
        The checks that count, a point each.
    out : path
        A folder for the results, outside of ``folder``.
    seed : int, optional
        Of the cases; by default that of the results in ``out``, or a new one.
    limits : Limits, optional
        Of each submission.
    trusted : bool
        Allow a plain process where the machine has no namespaces.
    show : bool
        Draw a progress bar.

    Returns
    -------
    dict
        What stands in results.json.

    Raises
    ------
    RuntimeError
        When there are no namespaces, and the learners are not trusted.
    ValueError
        When there are no submissions, or ``out`` lies in ``folder``.
    """
    folder, out, limits = Path(folder).resolve(), Path(out).resolve(), limits or Limits()
    if out.is_relative_to(folder):
        raise ValueError(f"out is {out}, inside the class's folder; one outside is wanted")
    layer = _layer(trusted)
    found = submissions.find(folder, notebook)
    old = results.load(out)
    new = _head(notebook, expected, old.get("seed") if seed is None else seed)
    kept = old.get("learners", {}) if all(old.get(k) == new[k] for k in _SAME) else {}
    for submission in progress.bar(found, desc="grading", unit="learner", show=show):
        digest, sources, spoken, problem = _read(submission)
        row = kept.get(submission.learner)
        if row is None or row["sha256"] != digest:
            with language.spoken(spoken):
                row = _grade(sources, problem, new, limits, layer, (folder, out))
            row.update(sha256=digest, remark=submission.remark if submission.path else "")
        new["learners"][submission.learner] = row
        new["layers"].setdefault(row["isolation"], isolation.SAID[row["isolation"]])
        results.save(_with_rest(new, kept, found), out)
    results.save(new, out)
    results.save_tables(new, out)
    return new


_SAME = ("chapter", "checks", "seed", "version")


def _layer(trusted):
    layer = isolation.strongest()
    if layer == "plain" and not trusted:
        raise RuntimeError(
            f"this machine grants no namespaces ({isolation.why_not()}), so learners' code could "
            "read and change your files; grade on a Linux machine that does, or, if you trust all "
            "of the class, add --trusted"
        )
    return layer


def _head(notebook, expected, seed):
    seed = secrets.randbelow(2**31) if seed is None else seed
    return {
        "chapter": Path(notebook).stem,
        "checks": expected,
        "seed": seed,
        "version": lightcourse.__version__,
        "layers": {},
        "learners": {},
    }


def _with_rest(new, kept, found):
    """Return the results so far, and after them those from before that are still to be met."""
    rest = {s.learner: kept[s.learner] for s in found if s.learner in kept}
    return {**new, "learners": {**rest, **new["learners"]}}


def _read(submission):
    """Return (the file's SHA-256, its code cells, its language, why there are none)."""
    if submission.path is None:
        return "", [], language.ENGLISH, submission.remark
    try:
        content = submissions.content(submission.path)
    except ValueError as error:
        return "", [], language.ENGLISH, str(error)
    digest = hashlib.sha256(content).hexdigest()
    try:
        return digest, read.sources_in(content), language.of_notebook(content), ""
    except ValueError as error:
        return digest, [], language.ENGLISH, str(error)


def _grade(sources, problem, head, limits, layer, hidden):
    """Grade one submission and return its row."""
    report = Report(stopped=problem)
    if not problem:
        options = {"layer": layer, "hidden": hidden}
        report = grade_sources(sources, head["checks"], head["seed"], limits, **options)
    told = {answer.expression: answer for answer in report.answers}
    answers = [
        {"check": check, "passed": check in told and told[check].passed}
        | {"message": told[check].message if check in told else "not reached"}
        for check in head["checks"]
    ]
    return {
        "points": sum(answer["passed"] for answer in answers),
        "answers": answers,
        "stopped": report.stopped,
        "raised": [{"cell": r.number, "error": r.error} for r in report.raised[:50]],
        "isolation": layer,
    }
