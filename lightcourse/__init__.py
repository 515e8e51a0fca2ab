"""lightcourse: prune, quantize, distill and fine-tune real language models on a laptop."""

import importlib
import importlib.abc
import importlib.util
import logging
import sys

__version__ = "0.1.0"
# For the kernels of notebooks. Threads of torch and of NumPy wait for each other by spinning:
# beside other programs a chapter on two threads then takes ten times as long, and a classifier
# of scikit-learn forty times. Read when the two are imported.
PATIENT = {"OMP_WAIT_POLICY": "PASSIVE", "OPENBLAS_NUM_THREADS": "1"}

# transformers imports torchao where it is installed, and torchao then complains about parts
# for GPUs; neither line is one that a reader of a notebook could act on.
for _name in ("torchao", "torch.utils._pytree"):
    logging.getLogger(_name).setLevel(logging.ERROR)

QUANTIZERS = "transformers.quantizers.auto"


class _AfterQuantizers(importlib.abc.MetaPathFinder):
    """Register our checkpoints once transformers has its list of quantizers.

    So ``import lightcourse`` is enough for ``from_pretrained``, and imports no transformers.
    """

    def find_spec(self, name, path, target=None):
        """Wrap the loader of that one module; all others are found as ever."""
        if name != QUANTIZERS:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        load = spec.loader.exec_module

        def load_and_register(module):
            load(module)
            importlib.import_module("lightcourse.quantization.pretrained")

        spec.loader.exec_module = load_and_register
        return spec


if QUANTIZERS in sys.modules:
    importlib.import_module("lightcourse.quantization.pretrained")
else:
    sys.meta_path.insert(0, _AfterQuantizers())


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

    from lightcourse import kernels, language

    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    torch.set_num_threads(threads)
    kernels.set_threads(min(threads, kernels.max_threads()))
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    if language.current() != language.ENGLISH:
        from lightcourse.plots import words

        words.speak(language.current())


def _place_matplotlib():
    """Give matplotlib a folder where the home cannot be written: it would warn on each start."""
    import contextlib
    import os

    from lightcourse import folders

    named = os.environ.keys() & {"MPLCONFIGDIR", "XDG_CONFIG_HOME"}
    if not named and not os.access(os.path.expanduser("~"), os.W_OK):
        with contextlib.suppress(OSError):
            os.environ["MPLCONFIGDIR"] = str(folders.private_temporary() / "matplotlib")
