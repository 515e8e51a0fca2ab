"""What is decided before a training run, and what is known after it."""

import math
import re
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Group:
    """Parameters that are trained differently from the rest.

    Parameters
    ----------
    pattern : str
        A regular expression, searched for in the parameters' names: ``"head"`` takes
        ``head.weight`` and ``head.bias``, ``"lora_b"`` every B of LoRA.
    learning_rate : float, optional
        Their peak rate; the recipe's own without it. Warm-up and decay apply to it alike.
    weight_decay : float, optional
        For all of them, biases and norms included; as for the rest without it.

    Raises
    ------
    ValueError
        When ``pattern`` is no regular expression, or a number is out of its range.

    Examples
    --------
    A new head learns a hundred times faster than the encoder below it:

    >>> recipe = Recipe(200, learning_rate=2e-5, groups=[Group("^head", learning_rate=2e-3)])
    """

    pattern: str
    learning_rate: float | None = None
    weight_decay: float | None = None

    def __post_init__(self):
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise ValueError(
                f"pattern is {self.pattern!r}, no regular expression: {error}"
            ) from error
        if self.learning_rate is not None:
            _require_rate(self.learning_rate)
        if self.weight_decay is not None:
            _require_at_least(0, weight_decay=self.weight_decay)


@dataclass(frozen=True)
class Recipe:
    """How to train: everything but the model, the data and the loss.

    Parameters
    ----------
    steps : int
        Optimizer steps at most.
    learning_rate : float
        Peak rate of AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101).
    warmup_steps : int
        Steps over which the rate climbs in a straight line; the last of them has the peak
        rate. 0 starts at the peak.
    final : float
        Fraction of the peak at which the half cosine after the warm-up ends (Loshchilov &
        Hutter 2017, arXiv 1608.03983): 0 decays to nothing, 1 keeps the rate constant.
    weight_decay : float
        Applied to matrices only, never to biases and norms.
    groups : sequence of Group
        Parameters with a rate or decay of their own. The first group that matches counts.
    max_grad_norm : float
        Gradients of a larger norm are scaled down to this one.
    evaluate_every : int
        Steps between two evaluations and between two checkpoints; 0 means only at the end.
    patience : int
        Stop after so many evaluations in a row without improvement; 0 means never.
    seed : int
        Decides dropout and, through ``batches(epoch, seed)``, the order of the data.

    Raises
    ------
    ValueError
        When a number is out of its range, or ``patience`` has no evaluations to count.
    """

    steps: int
    learning_rate: float = 5e-4
    warmup_steps: int = 0
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    evaluate_every: int = 0
    patience: int = 0
    seed: int = 0
    final: float = 0.0
    groups: tuple[Group, ...] = ()

    def __post_init__(self):
        object.__setattr__(self, "groups", tuple(self.groups))
        _require_at_least(1, steps=self.steps)
        _require_rate(self.learning_rate)
        counts = {
            name: getattr(self, name) for name in ("warmup_steps", "evaluate_every", "patience")
        }
        _require_at_least(0, weight_decay=self.weight_decay, **counts)
        if not self.max_grad_norm > 0:
            wanted = "a positive number is wanted (inf: no limit)"
            raise ValueError(f"max_grad_norm is {self.max_grad_norm}; {wanted}")
        if self.warmup_steps > self.steps:
            raise ValueError(
                f"warmup_steps is {self.warmup_steps}; at most {self.steps}, the steps, is wanted"
            )
        if not 0 <= self.final <= 1:
            raise ValueError(f"final is {self.final}; a fraction between 0 and 1 is wanted")
        if self.patience and not self.evaluate_every:
            raise ValueError(
                f"patience is {self.patience}, but evaluate_every is 0: evaluations are wanted"
            )

    def rate(self, step: int, peak: float | None = None) -> float:
        """Return the learning rate of step ``step`` (counted from 0).

        Parameters
        ----------
        step : int
        peak : float, optional
            The peak rate of a group; ``learning_rate`` without it.

        Examples
        --------
        >>> [round(Recipe(5, 1.0, warmup_steps=2).rate(step), 3) for step in range(5)]
        [0.5, 1.0, 1.0, 0.75, 0.25]
        >>> [round(Recipe(5, 1.0, warmup_steps=2, final=1).rate(step), 3) for step in range(5)]
        [0.5, 1.0, 1.0, 1.0, 1.0]
        """
        peak = self.learning_rate if peak is None else peak
        if step < self.warmup_steps:
            return peak * (step + 1) / self.warmup_steps
        done = (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps)
        return peak * (self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * done)))


def _require_rate(rate):
    if not 0 < rate < math.inf:
        raise ValueError(f"learning_rate is {rate}; a positive number is wanted")


def _require_at_least(least, **numbers):
    for name, number in numbers.items():
        if not number >= least:
            raise ValueError(f"{name} is {number}; at least {least} is wanted")


@dataclass
class History:
    """What happened: the loss of every step, and (step, score) of every evaluation."""

    losses: list[float] = field(default_factory=list)
    evaluations: list[tuple[int, float]] = field(default_factory=list)
    stopped_early: bool = False

    @property
    def best(self) -> float:
        """The lowest score so far; infinity before the first evaluation."""
        return min((score for _, score in self.evaluations), default=math.inf)

    def evaluations_without_progress(self) -> int:
        """Return how many evaluations have passed since the best one."""
        scores = [score for _, score in self.evaluations]
        return len(scores) - 1 - scores.index(min(scores)) if scores else 0
