"""Kernels of this Python, for chapters: nbclient drives them, and their outputs are kept."""

import os
from collections.abc import Callable

import lightcourse


def new_manager(kind: Callable):
    """Return a manager, of one of ``jupyter_client``'s classes, of a kernel not yet started.

    It is a kernel of *this* Python, whatever kernels the user has installed elsewhere.
    """
    from jupyter_client.kernelspec import KernelSpecManager

    return kind(kernel_spec_manager=KernelSpecManager(kernel_dirs=[]))


def environment() -> dict[str, str]:
    """Return the variables that a kernel starts with: ours, and whatever the user has set.

    Nobody looks on, so widgets are off.
    """
    return {**lightcourse.PATIENT, **os.environ, "LIGHTCOURSE_WIDGETS": "0"}
