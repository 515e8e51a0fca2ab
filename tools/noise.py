"""A stand-in for another processor: weights and inputs move by a millionth of their size.

``tools/probe.py`` runs this file in a notebook's kernel before the first cell. The noise of a
tensor depends on its shape and nothing else, so that what was equal stays equal.
"""

import functools
import os
import weakref

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from torch.optim.optimizer import register_optimizer_step_post_hook

from lightcourse import models

SIZE = 1e-6  # about 8 units in the last place of a float32
SEED = int(os.environ["LIGHTCOURSE_NOISE"])
LOADERS = ("load_tiny_lm", "new_tiny_lm", "load_minilm", "load_smollm2")
shaken = weakref.WeakSet()  # an id would come again when an optimizer is gone


def shake_(array):
    """Multiply each value of a NumPy array of floats by nearly 1, in place."""
    noise = np.random.default_rng([SEED, *array.shape]).standard_normal(array.shape)
    array *= (1 + SIZE * noise).astype(array.dtype)
    return array


def shake_tensor(tensor):
    """Return a tensor of floats after :func:`shake_`; any other one as it is."""
    if tensor.dtype in (torch.float32, torch.float64):
        shake_(tensor.detach().numpy())
    return tensor


def after(function, change):
    """Return ``function`` with ``change`` applied to what it returns."""
    return functools.wraps(function)(lambda *args, **kwargs: change(function(*args, **kwargs)))


def shake_model(model):
    """Shake each parameter of a model."""
    for parameter in model.parameters():
        shake_tensor(parameter)
    return model


def shake_first_step(optimizer, *_):
    """Shake what an optimizer trains, after its first step: models that start at random too."""
    if optimizer not in shaken:
        shaken.add(optimizer)
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                shake_tensor(parameter)


def shaken_fit(fit):
    """Return a solver's ``fit`` that sees shaken examples."""

    @functools.wraps(fit)
    def fit_shaken(self, x, *args, **kwargs):
        x = x.copy() if hasattr(x, "tocsr") else np.array(x, dtype=float)
        shake_(x.data if hasattr(x, "tocsr") else x)
        return fit(self, x, *args, **kwargs)

    return fit_shaken


for name in LOADERS:
    setattr(models, name, after(getattr(models, name), shake_model))
torch.randn, torch.rand = after(torch.randn, shake_tensor), after(torch.rand, shake_tensor)
register_optimizer_step_post_hook(shake_first_step)
for solver in (LogisticRegression, RidgeClassifier):
    solver.fit = shaken_fit(solver.fit)
