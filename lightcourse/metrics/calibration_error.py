"""Whether a classifier is right as often as it says it is."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from lightcourse.metrics.intervals import whole


@dataclass(frozen=True)
class Reliability:
    """Answers sorted into bins by how sure the classifier was of them.

    Parameters
    ----------
    counts : Tensor of int64, shape (bins,)
        Answers in each bin.
    confidence, accuracy : Tensor of float64, shape (bins,)
        The mean probability of the answers in a bin, and the share of them that is right; NaN
        in an empty bin. One against the other is the reliability diagram: a calibrated
        classifier lies on the diagonal, an overconfident one below it.
    answers : Tensor of float64, shape (rows,)
        The probability of each answer.
    """

    counts: torch.Tensor
    confidence: torch.Tensor
    accuracy: torch.Tensor
    answers: torch.Tensor

    @property
    def error(self) -> float:
        """The expected calibration error: how far apart the two are, over all answers."""
        apart = (self.accuracy - self.confidence).abs().nan_to_num() * self.counts
        return (apart.sum() / self.counts.sum()).item()

    def by_luck(self, draws: int = 200, seed: int = 0) -> float:
        """Return the error that a calibrated classifier of the same confidences stays below.

        In 19 of 20 draws of what is right. An error below this one shows nothing.

        Raises
        ------
        ValueError
            When ``draws`` is below 1.
        """
        if whole("draws", draws) < 1:
            raise ValueError(f"draws is {draws}; at least 1 is wanted")
        generator = torch.Generator().manual_seed(seed)
        tossed = (torch.rand(self.answers.shape, generator=generator) for _ in range(draws))
        errors = [_binned(self.answers, t < self.answers, len(self.counts)).error for t in tossed]
        return torch.tensor(errors).quantile(0.95).item()


def reliability(logits: torch.Tensor, labels: Sequence[int], bins: int = 15) -> Reliability:
    """Sort a classifier's answers into bins of equal width by their probability.

    Guo et al. 2017, arXiv 1706.04599. The error looks at the answer given and at nothing else:
    not at which class was wrong, nor at the other probabilities. In one bin those who are too
    sure make up for those who are too modest. Whoever says the commonest class, as often as it
    occurs, is calibrated and useless. And it is above 0 by luck alone, the more so the fewer the
    rows and the more the bins: compare it with :meth:`Reliability.by_luck`.

    Parameters
    ----------
    logits : Tensor of floats, shape (rows, classes)
        As :func:`predict` gives them.
    labels : sequence of int
    bins : int
        At least 1.

    Raises
    ------
    ValueError
        When there is no row, lengths differ, a row of logits has NaN or no distribution, or
        ``bins`` is below 1.

    Examples
    --------
    >>> sure, unsure = [4.0, 0.0], [0.0, 0.0]
    >>> result = reliability(torch.tensor([sure] * 4 + [unsure] * 2), [0, 0, 1, 1, 0, 1], bins=2)
    >>> result.counts.tolist(), result.accuracy.tolist(), round(result.error, 3)
    ([2, 4], [0.5, 0.5], 0.321)
    """
    labels = torch.as_tensor(labels)
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or not len(labels):
        raise ValueError(
            f"logits has shape {tuple(logits.shape)} and labels {tuple(labels.shape)}; (rows, "
            "classes) and (rows,) are wanted"
        )
    if whole("bins", bins) < 1:
        raise ValueError(f"bins is {bins}; at least 1 is wanted")
    answers, chosen = logits.double().softmax(-1).max(-1)
    if answers.isnan().any():
        raise ValueError("logits holds NaN, or a row without a distribution; numbers are wanted")
    return _binned(answers, chosen == labels, bins)


def _binned(answers, right, bins):
    places = (answers * bins).ceil().long().clamp(1, bins) - 1
    counts = places.bincount(minlength=bins)
    means = (
        torch.zeros(bins, dtype=torch.double).index_add_(0, places, values.double()) / counts
        for values in (answers, right)
    )
    return Reliability(counts, *means, answers)
