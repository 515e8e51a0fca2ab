"""Where the library writes, on machines where neither the package nor the home can be written."""

import os
import shutil
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import pytest

import lightcourse
from lightcourse import folders
from lightcourse.kernels import caching

USE_KERNEL = """
import numba, numpy as np  # before the library, as another library may have done
from lightcourse import kernels
assert kernels.quantize_rows(np.ones((2, 8)))[0].min() == 127
"""
USE_LAYER = """
import lightcourse, torch
lightcourse.setup()
from lightcourse import quantization
layer = quantization.QuantizedLinear(torch.eye(64), activations=8)
assert torch.allclose(layer(torch.ones(2, 64)), torch.ones(2, 64))
import matplotlib.pyplot
"""
TELL = "from lightcourse.kernels import caching; print(caching.folder())"


# Root may write anywhere, whatever the permissions say, but not on a file system mounted so.
FREEZE = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"'


@pytest.fixture
def room(tmp_path):
    """Return a folder with room for temporary files, in which ``frozen`` holds the package."""
    frozen = tmp_path / "frozen"
    left_out = shutil.ignore_patterns("__pycache__", "bundled")
    shutil.copytree(lightcourse.__path__[0], frozen / "lightcourse", ignore=left_out)
    (tmp_path / "temporary").mkdir()
    (frozen / "lightcourse" / "kernels").chmod(0o555)
    frozen.chmod(0o555)
    yield tmp_path
    for folder in (frozen, frozen / "lightcourse" / "kernels"):
        folder.chmod(0o755)


def run(room, code, **environment):
    """Run code from the package, where neither that nor the home can be written."""
    frozen = room / "frozen"
    environment = {"PATH": os.environ["PATH"], "HOME": str(frozen / "home")} | environment
    environment |= {"PYTHONPATH": str(frozen), "TMPDIR": str(room / "temporary")}
    root = hasattr(os, "getuid") and os.getuid() == 0
    command = ["unshare", "--mount", "sh", "-c", FREEZE, str(frozen)] if root else []
    ask = partial(subprocess.run, env=environment, cwd=room, capture_output=True, text=True)
    if not is_frozen(frozen, ask, command):
        pytest.skip("this machine cannot take the right to write away from us")
    return ask([*command, sys.executable, "-c", code + TELL])


def is_frozen(folder, ask, command):
    """Tell whether commands run, and cannot write into the folder."""
    if command and not shutil.which(command[0]):
        return False
    runs = ask([*command, "true"]).returncode == 0
    return runs and ask([*command, "mkdir", str(folder / "new")]).returncode != 0


def test_a_read_only_package_keeps_its_kernels_in_the_courses_cache(room):
    chosen = room / "chosen"
    answer = run(room, USE_KERNEL, LIGHTCOURSE_CACHE=str(chosen))
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.strip() == str(chosen / "numba")
    assert list(chosen.rglob("*.nbc"))


def test_without_a_home_they_lie_in_a_private_temporary_folder(room):
    answer = run(room, USE_LAYER)
    assert answer.returncode == 0, answer.stderr
    assert answer.stderr == ""  # matplotlib would complain of its home
    found = Path(answer.stdout.strip())
    assert found.parent.parent == room / "temporary" and list(found.rglob("*.nbc"))
    assert not found.parent.stat().st_mode & 0o077


def test_where_nothing_can_be_written_they_are_compiled_and_not_kept(room):
    answer = run(room, "import tempfile; tempfile.tempdir = '/nonexistent'" + USE_KERNEL)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.strip() == "None"


def test_a_writable_package_keeps_them_beside_the_source():
    if not os.environ.get("NUMBA_CACHE_DIR"):
        assert caching.folder() == caching.BESIDE


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="this system has no users")
def test_a_temporary_folder_that_others_can_write_is_not_used(tmp_path, monkeypatch):
    """What lies there is run: nobody else may put it there."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = folders.private_temporary()
    assert folder.parent == tmp_path and folders.private_temporary() == folder
    folder.chmod(0o777)
    with pytest.raises(PermissionError, match="not this user's alone"):
        folders.private_temporary()
    folder.rmdir()
    (tmp_path / "elsewhere").mkdir()
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PermissionError, match="not this user's alone"):
        folders.private_temporary()


def test_a_user_without_a_home_has_a_temporary_cache(tmp_path, monkeypatch):
    import platformdirs

    def fail(name):
        raise RuntimeError("no home")

    for answer in (fail, lambda name: Path("~/.cache", name)):  # the newer ones, and the older
        monkeypatch.setattr(platformdirs, "user_cache_path", answer)
        monkeypatch.delenv("LIGHTCOURSE_CACHE", raising=False)
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        assert folders.cache_dir() == folders.private_temporary()


def test_a_folder_is_made_where_it_can_be(tmp_path):
    assert folders.can_write(tmp_path / "new" / "folder") and (tmp_path / "new" / "folder").is_dir()
    (tmp_path / "file").write_text("")
    assert not folders.can_write(tmp_path / "file" / "below")
