"""ONNX's packages come with the extra ``practice``: they may be missing."""

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from lightcourse import files


def require(*names: str) -> None:
    """Raise ``ModuleNotFoundError``, with what to do, where a package is not installed."""
    missing = [name for name in names if find_spec(name) is None]
    if missing:
        line = " ".join(missing)
        raise ModuleNotFoundError(
            f"{' and '.join(missing)} not installed; install with: python -m pip install {line}",
            name=missing[0],
        )


def existing(path: str | os.PathLike) -> Path:
    """Return the path of a file that is there; raise ``ValueError`` for anything else."""
    path = files.checked_path(path)
    if not path.is_file():
        raise ValueError(f"path is {path}, which is not there; an ONNX file is wanted")
    return path


@contextmanager
def quiet() -> Iterator[None]:
    """Hush exporters and quantizers, which warn of their own old calls and of what they lack."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
