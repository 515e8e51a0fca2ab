"""Only the wanted files are unpacked, and all of them or none."""

import errno
import shutil

import pytest

from lightcourse import assets
from lightcourse.assets import download
from tests.assets.toy_index import WHEEL, leftovers, whole


def test_fetch_unpacks_the_wanted_files_only(cache, index):
    assert assets.status("toy") == "missing"
    folder = assets.fetch("toy")
    assert folder == cache / "toy" == assets.path("toy")
    assert whole(folder)
    assert assets.status("toy") == "intact"
    assert leftovers(cache) == []
    assert not (cache / "evil.txt").exists()


def test_falls_through_to_the_next_source(cache, index):
    (index.folder / WHEEL).write_bytes(b"something else")
    assert whole(assets.fetch("toy"))


@pytest.mark.parametrize("step", [(download, "_append"), (shutil, "copyfileobj")])
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
