"""Numbers to try a learner's function on, always the same ones for a seed."""

import random
from collections.abc import Callable

import torch


def normal(*shape: int, seed: int) -> torch.Tensor:
    """Return normal numbers in float32."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float32)


def whole(low: int, high: int, *shape: int, seed: int, dtype=torch.int64) -> torch.Tensor:
    """Return whole numbers from ``low`` to ``high - 1``."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(low, high, shape, generator=generator, dtype=dtype)


def dice(seed: int) -> random.Random:
    """Return a generator for the sizes and settings of the cases."""
    return random.Random(f"lightcourse {seed}")


def until(fits: Callable, draw: Callable):
    """Draw until something fits: where a case at a boundary would be decided by a last bit."""
    while not fits(drawn := draw()):
        pass
    return drawn


def but(reference: Callable, place: int, function: Callable) -> Callable:
    """Return the reference with one entry of its answer replaced by what ``function`` says."""

    def wrong(*arguments):
        answer = list(reference(*arguments))
        answer[place] = function(*arguments)
        return tuple(answer)

    return wrong
