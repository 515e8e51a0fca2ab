"""lightcourse: prune, quantize, distill and fine-tune real language models on a laptop."""

import logging

__version__ = "0.1.0"

# transformers imports torchao where it is installed, and torchao then complains about parts
# for GPUs; neither line is one that a reader of a notebook could act on.
for _name in ("torchao", "torch.utils._pytree"):
    logging.getLogger(_name).setLevel(logging.ERROR)


def setup(seed: int = 0, threads: int = 1) -> None:
    """Make a notebook repeatable and quiet: the first line of every chapter.

    Parameters
    ----------
    seed : int
        For Python, NumPy and torch.
    threads : int
        Threads of torch and of our kernels. One is faster for tiny models, whose threads
        would mostly wait for each other, and gives the same result on machines with more
        cores.
    """
    import os
    import random

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    _place_matplotlib()
    import numpy as np
    import torch
    import transformers

    from lightcourse import kernels

    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    torch.set_num_threads(threads)
    kernels.set_threads(min(threads, kernels.most_threads()))
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


def _place_matplotlib():
    """Give matplotlib a folder where the home cannot be written: it would warn on each start."""
    import contextlib
    import os

    from lightcourse import folders

    named = os.environ.keys() & {"MPLCONFIGDIR", "XDG_CONFIG_HOME"}
    if not named and not os.access(os.path.expanduser("~"), os.W_OK):
        with contextlib.suppress(OSError):
            os.environ["MPLCONFIGDIR"] = str(folders.private_temporary() / "matplotlib")
