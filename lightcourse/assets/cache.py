"""What lies in the cache: a folder for each asset, with a manifest of its files."""

import json
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from lightcourse import files
from lightcourse.assets.catalog import CATALOG, Asset, Source
from lightcourse.folders import cache_dir

MANIFEST = "manifest.json"
MAKE_ROOM = "free some, or set LIGHTCOURSE_CACHE to a folder on another disk"
DISK_FULL = f"no space left; {MAKE_ROOM}"


class AssetMissing(FileNotFoundError):
    """An asset is not in the cache; the message names the command that puts it there."""


def path(name: str) -> Path:
    """Return the folder with an asset's files, without touching the network.

    Sizes are compared with the manifest, hashes are not: :func:`status` does that.

    Raises
    ------
    ValueError
        When there is no asset of that name.
    AssetMissing
        When the files are not there; the message names the command that fetches them.
    """
    asset = known(name)
    folder = cache_dir() / name
    if not (_sizes_fit(folder) and _is_current(folder, asset)):
        raise AssetMissing(
            f"the asset {name!r} is not in {cache_dir()}; fetch it with: lightcourse assets {name}"
        )
    return folder


def status(name: str) -> str:
    """Read and hash an asset's files, and say how they are.

    Returns
    -------
    str
        ``"intact"``, ``"missing"``, ``"partial"`` (a download was cut short and will be
        resumed) or ``"corrupt"`` (a file is gone, differs from what was unpacked, or comes
        from a package that is no longer the pinned one).
    """
    asset = known(name)
    folder = cache_dir() / name
    if folder.exists():
        fits = _sizes_fit(folder) and _is_current(folder, asset) and _hashes_fit(folder)
        return "intact" if fits else "corrupt"
    return "partial" if any(part(source).exists() for source in asset.sources) else "missing"


def derive(name: str, write: Callable[[Path], None]) -> Path:
    """Return a cache folder made from an asset, making it when it is not there.

    Parameters
    ----------
    name : str
        Of the folder in :func:`cache_dir`.
    write : callable
        Called with an empty folder to fill. What a killed or failed call leaves behind is
        never taken for whole; of several processes one works and the others wait.
    """
    folder = cache_dir() / name
    if not _sizes_fit(folder):
        with lock(name):
            if not _sizes_fit(folder):
                make_folder(folder, write)
    return folder


def known(name: str) -> Asset:
    """Return the catalogue's entry; raise ValueError where it has none of that name."""
    if name not in CATALOG:
        raise ValueError(f"name is {name!r}; one of {sorted(CATALOG)} is wanted")
    return CATALOG[name]


def part(source: Source) -> Path:
    """Return the file that holds what has been downloaded so far."""
    return cache_dir() / f"{source.archive}.part"


def lock(name: str):
    """Return a context manager: one process works on a folder, the others wait."""
    from filelock import FileLock

    cache_dir().mkdir(parents=True, exist_ok=True)
    return FileLock(cache_dir() / f".{name}.lock")


def make_folder(folder: Path, write: Callable[[Path], None], origin: str = "") -> None:
    """Let ``write`` fill a temporary folder, note what it wrote, and rename it into place.

    ``origin`` is the SHA-256 of the archive that the files come from.
    """
    temporary = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(temporary, ignore_errors=True)
    with files.full_disk_explained(DISK_FULL, str(folder.parent)):
        temporary.mkdir()
        try:
            write(temporary)
            _write_manifest(temporary, origin)
            # A folder cannot be renamed onto one that has files in it.
            shutil.rmtree(folder, ignore_errors=True)
            os.replace(temporary, folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _write_manifest(folder, origin):
    """Note the hash of the archive that a folder comes from, and the folder's files."""
    entries = {
        file.relative_to(folder).as_posix(): {
            "size": file.stat().st_size,
            "sha256": files.sha256(file),
        }
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }
    manifest = json.dumps({"origin": origin, "files": entries}, indent=1)
    (folder / MANIFEST).write_text(manifest, encoding="utf-8")


def _read_manifest(folder):
    """Return the origin and {file: (size, sha256)}; both empty when the manifest is damaged."""
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        entries = {name: (e["size"], e["sha256"]) for name, e in manifest["files"].items()}
        return manifest["origin"], entries
    return "", {}


def _is_current(folder, asset):
    return _read_manifest(folder)[0] in {source.sha256 for source in asset.sources}


def _sizes_fit(folder):
    entries = _read_manifest(folder)[1].items()
    with suppress(OSError):
        return bool(entries) and all(
            (folder / n).stat().st_size == size for n, (size, _) in entries
        )
    return False


def _hashes_fit(folder):
    entries = _read_manifest(folder)[1].items()
    return all(files.sha256(folder / name) == sha256 for name, (_, sha256) in entries)
