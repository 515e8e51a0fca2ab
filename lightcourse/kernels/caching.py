"""Where compiled kernels are kept from one run to the next."""

import functools
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numba

from lightcourse import folders

BESIDE = Path(__file__).parent / "__pycache__"


@functools.cache
def folder() -> Path | None:
    """Return the first of these folders that can be written; None where none can.

    NUMBA_CACHE_DIR, where it is set; beside the kernels' source; in the course's own cache,
    LIGHTCOURSE_CACHE; in a temporary folder of this user's. In a container or on a
    JupyterHub the package often cannot be written, nor can the home. Chosen once.
    """
    return next(filter(folders.can_write, _candidates()), None)


def _candidates() -> Iterator[Path]:
    if numba.config.CACHE_DIR:
        yield Path(numba.config.CACHE_DIR)
    yield BESIDE
    with suppress(OSError):  # no temporary folder
        yield folders.cache_dir() / "numba"
        yield folders.private_temporary() / "numba"


def ready() -> bool:
    """Show Numba the folder; return False where there is none, and ``cache=True`` would fail.

    Numba may have been imported before us, so an environment variable would come too late.
    """
    if folder() not in (None, BESIDE):
        numba.config.CACHE_DIR = str(folder())
    return folder() is not None
