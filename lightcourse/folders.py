"""Folders outside the package that the library may write to."""

import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path


def cache_dir() -> Path:
    """Return the folder of all assets: ``$LIGHTCOURSE_CACHE``, or the user's cache folder.

    A user without a home has a temporary one.
    """
    import platformdirs

    with suppress(RuntimeError):  # no home
        if chosen := os.environ.get("LIGHTCOURSE_CACHE"):
            return Path(chosen).expanduser()
        if (folder := platformdirs.user_cache_path("lightcourse")).is_absolute():
            return folder
    return private_temporary()


def private_temporary() -> Path:
    """Return a temporary folder, the same in each run, that belongs to this user alone.

    Raises
    ------
    OSError
        When there is none, or somebody else can write to it.
    """
    if not hasattr(os, "getuid"):  # Windows gives each user a temporary folder anyway
        return Path(tempfile.gettempdir(), "lightcourse")
    folder = Path(tempfile.gettempdir(), f"lightcourse-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise PermissionError(f"{folder} is not this user's alone")
    return folder


def can_write(folder: Path) -> bool:
    """Make a folder where there is none, and tell whether files can be written there.

    Asked by writing: permissions do not tell of a file system that is mounted read-only.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return False
    return True
