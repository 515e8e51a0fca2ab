"""Compiled kernels are kept until a file changes that they were compiled from."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from numba import config

import lightcourse
from lightcourse.kernels import caching, jobs, portable

CALL = """
import numpy as np
from lightcourse import kernels
kernels.linear_w8a8(np.ones((2, 8)), np.ones((1, 2, 16, 4), np.uint8), np.ones(16))
"""


@pytest.fixture
def call(tmp_path):
    """Return a function that calls a kernel of a copy of the library; what Numba says of it."""
    left_out = shutil.ignore_patterns("__pycache__", "bundled")
    shutil.copytree(lightcourse.__path__[0], tmp_path / "lightcourse", ignore=left_out)
    settings = {"NUMBA_DEBUG_CACHE": "1", "NUMBA_CACHE_DIR": str(tmp_path / "kept")}
    environment = os.environ | settings | {"PYTHONPATH": str(tmp_path)}

    def call():
        command = [sys.executable, "-c", CALL]
        done = subprocess.run(
            command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True
        )
        return {kind: f"data {kind}" in done.stdout for kind in ("saved", "loaded")}

    return call


@pytest.mark.skipif(config.DISABLE_JIT, reason="nothing is compiled")
def test_an_edit_in_any_file_compiles_kernels_anew(call, tmp_path):
    """Numba itself would see an edit in the function's own file, and in no other."""
    assert call() == {"saved": True, "loaded": False}
    assert call() == {"saved": False, "loaded": True}
    for name in ("kernels/writer.py", "panels.py"):
        with open(tmp_path / "lightcourse" / name, "a") as file:
            file.write("# edited\n")
        assert call() == {"saved": True, "loaded": False}
    assert call() == {"saved": False, "loaded": True}


def test_every_file_counts(tmp_path, monkeypatch):
    shutil.copytree(caching.HERE, tmp_path / "kernels")
    monkeypatch.setattr(caching, "HERE", tmp_path / "kernels")
    digests = {caching.sources.__wrapped__()}
    files = [*caching.HERE.glob("*.py")]
    for path in files:
        path.write_text(path.read_text() + "# edited\n")
        digests.add(caching.sources.__wrapped__())
    assert len(digests) == len(files) + 1 > 9


def test_functions_of_others_are_left_to_numba():
    def theirs():
        pass

    assert caching.Locator.from_function(theirs, __file__) is None
    ours = getattr(portable.quantize, "py_func", portable.quantize)
    assert caching.folder() is None or caching.Locator.from_function(ours, jobs.__file__)
    assert Path(jobs.__file__).parent == caching.HERE


def test_portable_kernels_are_cached_apart():
    """A serial and a parallel function of one body would be served one and the same binary."""
    if config.DISABLE_JIT:
        pytest.skip("nothing is compiled")
    for serial, parallel in portable.W8, portable.W4, portable.SPARSE:
        assert serial.py_func.__code__.co_code != parallel.py_func.__code__.co_code
        assert not serial.targetoptions.get("parallel") and parallel.targetoptions["parallel"]
