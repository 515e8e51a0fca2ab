"""What noise buys: the epsilon of DP-SGD."""

import math
from functools import cache

import numpy as np

# Whole orders: the larger ones serve much noise and few steps.
ORDERS = (*range(2, 65), *range(68, 129, 4), *range(144, 513, 16), 1024)
MOST_NOISE = 1e4


def epsilon(noise: float, rate: float, steps: int, delta: float) -> float:
    """Return the epsilon that so many steps of DP-SGD cost.

    With probability 1 - delta no answer of whoever sees all weights of all steps gets more than
    exp(epsilon) times likelier, or less likely, because one row was trained on. That is a
    promise about the worst row and the best attack; what a given attack gets is usually less.

    The accountant of the sampled Gaussian mechanism in Rényi's divergence (Mironov et al.
    2019, arXiv 1908.10530, section 3.3), its best whole order turned into (epsilon, delta)
    (Canonne et al. 2020, arXiv 2004.00010, proposition 12). An upper bound: the true epsilon
    is a little lower, and at little noise (epsilon above 10) much.

    Parameters
    ----------
    noise : float
        As in :func:`private_loss`; above 0.
    rate : float
        The chance of each row to stand in a batch; above 0, at most 1.
    steps : int
        At least 1.
    delta : float
        Between 0 and 1, and well below 1 / rows: at 1 / rows, giving one row away is allowed.

    Raises
    ------
    ValueError
        When a number is out of its range.

    Examples
    --------
    >>> round(epsilon(noise=1.1, rate=0.01, steps=1000, delta=1e-5), 2)
    1.73
    """
    if not 0 < noise < math.inf:
        raise ValueError(f"noise is {noise}; a number above 0 is wanted (0 promises nothing)")
    if not 0 < rate <= 1:
        raise ValueError(f"rate is {rate}; a number above 0, at most 1, is wanted")
    if not steps >= 1:
        raise ValueError(f"steps is {steps}; at least 1 is wanted")
    if not 0 < delta < 1:
        raise ValueError(f"delta is {delta}; a number between 0 and 1, such as 1e-5, is wanted")
    return max(
        0.0, min(_converted(order, steps * renyi(order, noise, rate), delta) for order in ORDERS)
    )


def noise_for(epsilon_wanted: float, rate: float, steps: int, delta: float) -> float:
    """Return the least noise, to a thousandth, that costs at most so much epsilon.

    Parameters
    ----------
    epsilon_wanted : float
        Above 0.
    rate, steps, delta
        As in :func:`epsilon`.

    Raises
    ------
    ValueError
        As :func:`epsilon`, or when no noise up to 10,000 is enough.
    """
    if not 0 < epsilon_wanted < math.inf:
        raise ValueError(f"epsilon_wanted is {epsilon_wanted}; a number above 0 is wanted")
    low, high = 0.0, 1.0
    while epsilon(high, rate, steps, delta) > epsilon_wanted:
        low, high = high, 2 * high
        if high > MOST_NOISE:
            raise ValueError(
                f"epsilon_wanted is {epsilon_wanted}; no noise up to {MOST_NOISE:g} is enough"
            )
    while high - low > 1e-3 * high:
        middle = (low + high) / 2
        enough = epsilon(middle, rate, steps, delta) <= epsilon_wanted
        low, high = (low, middle) if enough else (middle, high)
    return high


@cache
def renyi(order: int, noise: float, rate: float) -> float:
    """Return Rényi's divergence of whole order that one step costs, in nats."""
    if rate == 1:
        return order / (2 * noise**2)
    k = np.arange(order + 1)
    binomial = [math.lgamma(order + 1) - math.lgamma(i + 1) - math.lgamma(order - i + 1) for i in k]
    terms = (
        binomial
        + k * math.log(rate)
        + (order - k) * math.log1p(-rate)
        + k * (k - 1) / (2 * noise**2)
    )
    return max(0.0, float(np.logaddexp.reduce(terms))) / (order - 1)


def _converted(order, divergence, delta):
    return divergence + math.log1p(-1 / order) - (math.log(delta) + math.log(order)) / (order - 1)
