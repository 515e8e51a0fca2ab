"""Taking the wanted files, and nothing else, out of an archive."""

import shutil
import tarfile
import zipfile
from contextlib import contextmanager
from pathlib import Path

from lightcourse.assets.catalog import Asset, Source


def members(archive: Path, asset: Asset, source: Source, folder: Path) -> None:
    """Copy an asset's files from its archive, or the archive inside that, to ``folder``."""
    with _opened(archive) as read:
        if source.nested:
            inner = folder / "nested"
            _copy(read(source.nested), inner)
            with _opened(inner) as read_inner:
                _copy_members(read_inner, asset, source, folder)
            inner.unlink()
        else:
            _copy_members(read, asset, source, folder)


def _copy_members(read, asset, source, folder):
    for name in asset.members:
        _copy(read(f"{source.folder}/{name}".lstrip("/")), folder / name)


def _copy(stream, target):
    with stream, open(target, "wb") as file:
        shutil.copyfileobj(stream, file, 1 << 20)


@contextmanager
def _opened(archive):
    """Yield a function that opens one member of a zip or tar by its exact name.

    Only names that we ask for are read and only names that we choose are written, so a
    crafted archive cannot place a file elsewhere.
    """
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as file:
            yield file.open
    else:
        with tarfile.open(archive) as file:
            yield file.extractfile
