"""Where compiled kernels are kept from one run to the next, and until when."""

import functools
import hashlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numba
from numba.core.caching import CacheImpl, InTreeCacheLocator

from lightcourse import folders, panels

HERE = Path(__file__).parent
BESIDE = HERE / "__pycache__"


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


@functools.cache
def sources() -> str:
    """Return a digest of all that kernels are compiled from: this folder, and the panels.

    Numba by itself looks at the file of the function alone, and would keep a kernel whose
    callee, tile or constant was edited in another one.
    """
    digest = hashlib.sha256()
    for path in [*sorted(HERE.glob("*.py")), Path(panels.__file__)]:
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


class Locator(InTreeCacheLocator):
    """Tells Numba where it keeps our kernels, and how to see that they are stale.

    One of our own, so that the functions of others, in the same process, stay where they are.
    """

    def __init__(self, py_func, py_file):
        super().__init__(py_func, py_file)
        where = folder()
        if where != BESIDE:  # others may use the folder, another copy of the course too
            where = where / self.get_suitable_cache_subpath(py_file)
        self._cache_path = str(where)

    def get_source_stamp(self):
        """Return what must not have changed since a kernel was compiled."""
        return sources()

    @classmethod
    def from_function(cls, py_func, py_file):
        """Return a locator for a function in this folder; None for those of others."""
        return super().from_function(py_func, py_file) if Path(py_file).parent == HERE else None


def ready() -> bool:
    """Show Numba the folder; return False where there is none, and ``cache=True`` would fail."""
    if Locator not in CacheImpl._locator_classes:
        CacheImpl._locator_classes.insert(0, Locator)
    return folder() is not None
