"""The first line of every chapter: the same draws each time, the threads asked for, silence."""

import logging
import random

import numpy as np
import pytest
import torch

import lightcourse


@pytest.fixture(autouse=True)
def threads_as_before():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def draws():
    return random.random(), np.random.rand(), torch.rand(1).item()  # noqa: NPY002


def test_setup_repeats_every_kind_of_draw():
    lightcourse.setup(seed=3)
    first = draws()
    lightcourse.setup(seed=3)
    assert draws() == first
    lightcourse.setup(seed=4)
    assert all(a != b for a, b in zip(draws(), first, strict=True))


def test_setup_sets_the_threads():
    for threads in (2, 1):
        lightcourse.setup(threads=threads)
        assert torch.get_num_threads() == threads


def test_importing_the_library_loads_nothing_heavy():
    import subprocess
    import sys

    code = (
        "import sys, lightcourse; print([m for m in ('torch', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_torchao_may_not_complain_to_readers():
    assert not logging.getLogger("torchao").isEnabledFor(logging.WARNING)
