"""The language in which checks and figures speak: that of the notebook which asks them.

A notebook of the Chinese edition says so in its metadata, and its code cells are those of the
English one. Whoever runs a notebook says it in ``LIGHTCOURSE_LANG``; where nobody has, as in
JupyterLab, Jupyter's server names the notebook of a kernel, and it is looked up there.
"""

import contextlib
import json
import os
from collections.abc import Iterator
from contextvars import ContextVar
from functools import cache
from pathlib import Path

ENGLISH = "en"
LANGUAGES = (ENGLISH, "zh")
VARIABLE = "LIGHTCOURSE_LANG"
SESSION = "JPY_SESSION_NAME"  # jupyter_server 2 sets it to the notebook's path
_spoken = ContextVar("spoken", default=None)


def current() -> str:
    """Return the language to speak now: ``"en"`` where nothing else is asked for."""
    return _spoken.get() or _known(os.environ.get(VARIABLE)) or _of_file(os.environ.get(SESSION))


@contextlib.contextmanager
def spoken(language: str) -> Iterator[None]:
    """Speak a language inside of a ``with`` block, whatever the environment says."""
    before = _spoken.set(_known(language) or ENGLISH)
    try:
        yield
    finally:
        _spoken.reset(before)


def of_notebook(content: bytes) -> str:
    """Return the language that a notebook's metadata names; English for whatever cannot be read.

    Examples
    --------
    >>> of_notebook(b'{"metadata": {"lightcourse": {"language": "zh"}}}')
    'zh'
    >>> of_notebook(b"no notebook")
    'en'
    """
    try:
        return _known(json.loads(content)["metadata"]["lightcourse"]["language"]) or ENGLISH
    except (RecursionError, TypeError, KeyError, ValueError):
        return ENGLISH


@cache  # a notebook keeps its language while its kernel runs, also where it is renamed
def _of_file(path):
    try:
        return of_notebook(Path(path).read_bytes()) if path else ENGLISH
    except OSError:
        return ENGLISH


def _known(language):
    return language if isinstance(language, str) and language in LANGUAGES else None
