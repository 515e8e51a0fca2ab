"""How far somebody is: each check of a notebook, asked anew only after a change.

What was found is remembered in the cache's folder ``progress``, a file for each notebook, beside a
hash of all that it depends on: the notebook's code, the checks, the library's version. Prose and
outputs do not belong to that, so that a notebook which was only read is not run again.
"""

import contextlib
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path

import lightcourse
from lightcourse import files, folders
from lightcourse.classroom import begun, grade, read
from lightcourse.classroom.grade import Answer


@dataclass(frozen=True)
class Standing:
    """What is known of a notebook of exercises.

    Parameters
    ----------
    path : path
        The notebook.
    answers : dict of str to Answer or None
        For each check what it said, or None where the exercise is not begun.
    anew : bool
        True when the notebook was run for this.
    trouble : str
        Why checks could not be asked; empty when they could.
    """

    path: Path
    answers: dict[str, Answer | None] = field(default_factory=dict)
    anew: bool = False
    trouble: str = ""

    @property
    def passed(self) -> int:
        """The number of checks that pass."""
        return sum(answer is not None and answer.passed for answer in self.answers.values())


def look(path: str | Path, solution: str | Path) -> Standing | None:
    """Tell how a notebook stands without running it; None where it has to be run.

    Parameters
    ----------
    path : path
        The learner's notebook; it need not be there.
    solution : path
        The course's solution: which checks count, and what the blank exercise was.
    """
    path, solved = Path(path), read.read_notebook(solution)
    checks = read.expected_checks(solved)
    if not path.is_file():
        return Standing(path, dict.fromkeys(checks))
    try:
        notebook = read.read_notebook(path)
    except ValueError as error:
        return Standing(path, dict.fromkeys(checks), trouble=str(error))
    asked = _begun(notebook, solved, checks)
    known = _recall(path, _fingerprint(notebook, asked)) if asked else []
    return _standing(path, checks, known) if known is not None else None


def ask(path: str | Path, solution: str | Path, seconds: float) -> Standing:
    """Run a notebook, ask the checks of what is begun, and remember what they said.

    A run that was cut short is not remembered: another machine, or a quieter hour, may finish it.
    """
    path, solved = Path(path), read.read_notebook(solution)
    notebook, checks = read.read_notebook(path), read.expected_checks(solved)
    asked = _begun(notebook, solved, checks)
    report = grade.grade_notebook(path, asked, seconds)
    if not report.stopped:
        _remember(path, _fingerprint(notebook, asked), report.answers)
    return _standing(path, checks, report.answers, anew=True, trouble=report.stopped)


def _begun(notebook, solved, checks):
    blank = begun.not_begun(notebook, solved, checks)
    return [check for check in checks if check not in blank]


def _standing(path, checks, answers, **more):
    said = {answer.expression: answer for answer in answers}
    return Standing(path, {check: said.get(check) for check in checks}, **more)


def _fingerprint(notebook, asked):
    """Return a hash of all that the checks' answers depend on."""
    library = Path(lightcourse.__file__).parent / "checks"
    sources = sorted(file for file in library.rglob("*") if file.suffix in (".py", ".toml"))
    spoken = notebook.metadata.get("lightcourse", {}).get("language", "")
    parts = [lightcourse.__version__, spoken, *asked, *read.code_sources(notebook)]
    parts += map(files.sha256, sources)
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _file(path):
    place = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]
    return folders.cache_dir() / "progress" / f"{path.stem}-{place}.json"


def _recall(path, fingerprint):
    """Return what was said to this very code; None where nothing is known, or it is damaged."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        kept = json.loads(_file(path).read_text(encoding="utf-8"))
        if kept["of"] == fingerprint:
            return [Answer(*each) for each in kept["answers"]]
    return None


def _remember(path, fingerprint, answers):
    """Keep what was said; where nothing can be written, it is asked again the next time."""
    kept = [[answer.expression, answer.passed, answer.message] for answer in answers]
    text = json.dumps({"of": fingerprint, "answers": kept})
    with contextlib.suppress(OSError):
        files.write_atomically(_file(path), lambda new: new.write_text(text, encoding="utf-8"))
