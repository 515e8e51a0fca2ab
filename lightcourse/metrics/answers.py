"""A classifier's answers: how many are right, and whether two models differ."""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from lightcourse import asking, layers


@torch.no_grad()
def predict(model: nn.Module, batches: Iterable[dict]) -> torch.Tensor:
    """Return the logits of a classifier, shape (examples, classes), in evaluation mode.

    Parameters
    ----------
    model : nn.Module
        Its output has ``logits``. Its training mode is restored afterwards.
    batches : iterable of dict
        Keyword arguments for the model; ``labels`` are left out.

    Raises
    ------
    ValueError
        When there is no batch, or one is no dict.
    """
    with layers.evaluating(model):
        return torch.cat([model(**inputs).logits for inputs in asking.inputs_of_each(batches)])


def accuracy(predictions: Sequence[int], labels: Sequence[int]) -> float:
    """Return the fraction of predictions that equal their label.

    Raises
    ------
    ValueError
        When the two are empty or not equally long.

    Examples
    --------
    >>> accuracy([0, 1, 1, 1], [0, 1, 0, 1])
    0.75
    """
    predictions, labels = pair(predictions, labels, ("predictions", "labels"))
    return (predictions == labels).double().mean().item()


def macro_f1(predictions: Sequence[int], labels: Sequence[int]) -> float:
    """Return the mean over classes of F1 = 2·TP / (2·TP + FP + FN).

    Each class counts the same, however rare. Classes are those that occur among labels or
    predictions.

    Raises
    ------
    ValueError
        As :func:`accuracy`.

    Examples
    --------
    Always saying the commoner class looks good to accuracy alone:

    >>> labels = [0] * 9 + [1]
    >>> accuracy([0] * 10, labels), round(macro_f1([0] * 10, labels), 3)
    (0.9, 0.474)
    """
    predictions, labels = pair(predictions, labels, ("predictions", "labels"))
    scores = []
    for label in torch.cat([predictions, labels]).unique():
        hits = ((predictions == label) & (labels == label)).sum()
        named = (predictions == label).sum() + (labels == label).sum()
        scores.append(2 * hits.item() / named.item())
    return statistics.fmean(scores)


def flips(
    before: Sequence[int], after: Sequence[int], labels: Sequence[int] | None = None
) -> float:
    """Return the fraction of answers that a change to the model has changed.

    Dutta et al. 2024, arXiv 2407.09141: models of equal accuracy can differ in many
    answers.

    Parameters
    ----------
    before, after : sequence of int
        Predictions of the two models for the same examples.
    labels : sequence of int, optional
        With them only changes from right to wrong or back count, as in the paper.

    Raises
    ------
    ValueError
        When lengths differ or are 0.

    Examples
    --------
    >>> flips([0, 1, 2, 2], [0, 2, 1, 2]), flips([0, 1, 2, 2], [0, 2, 1, 2], [0, 1, 0, 2])
    (0.5, 0.25)
    """
    before, after = pair(before, after, ("before", "after"))
    if labels is None:
        return (before != after).double().mean().item()
    before, labels = pair(before, labels, ("before", "labels"))
    return ((before == labels) != (after == labels)).double().mean().item()


@dataclass(frozen=True)
class PairedGap:
    """How two models that answered the same examples compare: only changed answers count.

    Parameters
    ----------
    gained, lost : int
        Examples that only the second model, or only the first, has right.
    count : int
        All examples.
    """

    gained: int
    lost: int
    count: int

    @property
    def gap(self) -> float:
        """The second model's accuracy minus the first's."""
        return (self.gained - self.lost) / self.count

    @property
    def margin(self) -> float:
        """Two standard deviations of the gap, were each changed answer a coin's throw."""
        return 2 * math.sqrt(self.gained + self.lost) / self.count

    @property
    def p_value(self) -> float:
        """How often throws of a coin would be at least as one-sided: the exact sign test."""
        changed, fewer = self.gained + self.lost, min(self.gained, self.lost)
        tail = sum(math.comb(changed, k) for k in range(fewer + 1))
        return min(1.0, 2 * tail / 2**changed)

    @property
    def decided(self) -> bool:
        """Whether that is rarer than once in twenty."""
        return self.p_value < 0.05

    def __str__(self):
        return f"{self.gap:+.3f} ± {self.margin:.3f}"


def paired_gap(first: Sequence[int], second: Sequence[int], labels: Sequence[int]) -> PairedGap:
    """Compare the answers of two models to the same examples.

    What both have right, or both have wrong, tells nothing about which is better. Of the
    other answers each is a throw of a coin, if the two models are equally good: the sign
    test, which for paired yes-or-no answers is the exact form of McNemar's test
    (Psychometrika 12, 1947, doi:10.1007/BF02295996).

    Parameters
    ----------
    first, second : sequence of int
        Predictions of the two models.
    labels : sequence of int

    Raises
    ------
    ValueError
        When lengths differ or are 0.

    Examples
    --------
    >>> gap = paired_gap([0, 0, 0, 1], [1, 1, 1, 0], [1, 1, 1, 1])
    >>> print(gap, gap.p_value)
    +0.500 ± 1.000 0.625
    """
    first, labels = pair(first, labels, ("first", "labels"))
    second, labels = pair(second, labels, ("second", "labels"))
    before, after = first == labels, second == labels
    return PairedGap(int((after & ~before).sum()), int((before & ~after).sum()), len(labels))


def pair(first: Sequence, second: Sequence, names: Sequence[str]) -> tuple[torch.Tensor, ...]:
    """Return two filled, equally long rows as tensors, or raise ``ValueError`` naming them."""
    first, second = torch.as_tensor(first), torch.as_tensor(second)
    if first.shape != second.shape or first.ndim != 1 or not len(first):
        raise ValueError(
            f"{names[0]} has shape {tuple(first.shape)} and {names[1]} {tuple(second.shape)}; "
            "two equally long, filled rows are wanted"
        )
    return first, second
