"""Grading a class: each submission in a process of its own, one after the other."""

import contextlib
import hashlib
import secrets
from collections.abc import Sequence
from pathlib import Path

import lightcourse
from lightcourse import language, progress
from lightcourse.classroom import isolation, read, results, submissions
from lightcourse.classroom.grade import Answer, Asked, Report, grade_sources, variable
from lightcourse.classroom.isolation import Limits
from lightcourse.classroom.keys import Key, assigned, digest_of


def grade_class(
    folder: str | Path,
    notebook: str,
    expected: list[str],
    out: str | Path,
    *,
    seed: int | None = None,
    limits: Limits | None = None,
    trusted: bool = False,
    worth: dict[str, int] | None = None,
    keys: dict[str, Key] | None = None,
    hidden: Sequence[Path] = (),
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
        The checks that count.
    out : path
        A folder for the results, outside of ``folder``.
    seed : int, optional
        Of the cases; by default that of the results in ``out``, or a new one.
    limits : Limits, optional
        Of each submission.
    trusted : bool
        Allow a plain process where the machine has no namespaces.
    worth : dict of str to int, optional
        The points of checks, see :func:`lightcourse.classroom.points_of`; by default one each.
    keys : dict of str to Key, optional
        Of the variants that were handed out, see :func:`lightcourse.classroom.read_keys`. Each
        question by hand then gives a point.
    hidden : sequence of path
        What learners' code must not see beside ``folder`` and ``out``, such as the keys' folder.
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
    results.check_outside(out, folder)
    if inside := [path for path in hidden if Path(path).resolve().is_relative_to(folder)]:
        raise ValueError(f"keys are in {inside[0]}, inside the class's folder; move them outside")
    layer = _layer(trusted)
    found = submissions.find(folder, notebook)
    old = results.load(out)
    new = _head(notebook, expected, old.get("seed") if seed is None else seed, keys)
    new["worth"] = {check: (worth or {}).get(check, 1) for check in new["checks"]}
    kept = results.kept(old, new, _SAME)
    variants, private = _variants(found, keys), (folder, out, *hidden)
    for submission in progress.bar(found, desc="grading", unit="learner", show=show):
        digest, sources, spoken, problem = _read(submission)
        row = kept.get(submission.learner)
        if row is None or row["sha256"] != digest:
            report, refused = Report(stopped=problem), ""
            if not problem:
                options, refused = _asked(keys, variants[submission.learner], submission.learner)
                options |= {"layer": layer, "hidden": private}
                with language.spoken(spoken):
                    report = grade_sources(sources, expected, new["seed"], limits, **options)
            row = _row(report, new["worth"], refused, layer) | {"sha256": digest}
        row["remark"] = _remark(submission, variants)
        new["learners"][submission.learner] = row
        new["layers"].setdefault(row["isolation"], isolation.SAID[row["isolation"]])
        results.save(results.with_rest(new, kept, (s.learner for s in found)), out)
    results.save(new, out)
    results.save_tables(new, out)
    return new


_SAME = ("chapter", "checks", "worth", "seed", "keys", "version")


def _layer(trusted):
    layer = isolation.strongest()
    if layer == "plain" and not trusted:
        raise RuntimeError(
            f"this machine grants no namespaces ({isolation.why_not()}), so learners' code could "
            "read and change your files; grade on a Linux machine that does, or, if you trust all "
            "of the class, add --trusted"
        )
    return layer


def _head(notebook, expected, seed, given):
    questions = next(iter(given.values())).wanted if given else []
    seed = secrets.randbelow(2**31) if seed is None else seed
    return {
        "chapter": Path(notebook).stem,
        "checks": [*expected, *map(variable, questions)],
        "seed": seed,
        "keys": digest_of(given) if given else "",
        "version": lightcourse.__version__,
        "layers": {},
        "learners": {},
    }


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


def _row(report, worth, refused, layer):
    """Return what the results hold of a submission."""
    told = {answer.expression: answer for answer in report.answers}
    told |= {name: Answer(name, False, refused) for name in worth if refused and name not in told}
    answers = [
        {"check": check, "passed": check in told and told[check].passed}
        | {"message": told[check].message if check in told else "not reached"}
        for check in worth
    ]
    return {
        "points": sum(worth[answer["check"]] for answer in answers if answer["passed"]),
        "answers": answers,
        "stopped": report.stopped,
        "raised": [{"cell": r.number, "error": r.error} for r in report.raised[:50]],
        "isolation": layer,
    }


# --- variants ------------------------------------------------------------------------------


def _variants(found, given):
    """Return which variant each learner's notebook says it is; nothing where there are no keys."""
    return {s.learner: _variant(s) if given and s.path else "" for s in found}


def _variant(submission):
    with contextlib.suppress(ValueError):
        return read.variant_in(submissions.content(submission.path))
    return ""


def _asked(given, variant, learner):
    """Return (what a learner's variant asks by hand, as an option; why none of it counts)."""
    key, refused = assigned(given, variant, learner) if given else (None, "")
    if key is None:
        return {}, refused
    rest = [other for other in given.values() if other is not key]
    asked = [
        Asked(n, key.numbers[n], key.wanted[n], {other.variant: other.wanted[n] for other in rest})
        for n in key.wanted
    ]
    return {"asked": asked}, ""


def _remark(submission, variants):
    """Return what there is to say of a submission's file, and of who has the same variant."""
    own = variants[submission.learner]
    alike = [name for name, other in variants.items() if other and other == own]
    said = [submission.remark] if submission.path and submission.remark else []
    if len(alike) > 1:
        others = ", ".join(name for name in alike if name != submission.learner)
        said.append(f"the same variant as {others}")
    return "; ".join(said)
