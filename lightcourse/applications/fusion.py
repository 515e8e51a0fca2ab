"""Two ways to answer from several modalities: their answers joined, or their inputs."""

from collections.abc import Sequence
from types import SimpleNamespace

import torch
from torch import nn
from torch.nn import functional as F

from lightcourse import data, training


def late_fusion(
    log_probabilities: torch.Tensor,
    weights: Sequence[float] | None = None,
    present: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the log-probabilities that classifiers of several modalities give together.

    The weighted sum, made a distribution again: a product of experts (Hinton 2002,
    doi:10.1162/089976602760128018). With weights of 1 and classes that are equally frequent it is
    Bayes' rule for modalities that are independent given the class (Kittler et al. 1998,
    doi:10.1109/34.667881).

    Parameters
    ----------
    log_probabilities : Tensor of shape (modalities, rows, classes)
        What each classifier gives, by its own softmax.
    weights : sequence of float, optional
        One a modality, 0 or more; 1 each where not given. 1/temperature is such a weight.
    present : BoolTensor of shape (modalities, rows), optional
        Which modalities a row has. An absent one is left out, whatever its numbers, NaN too; a row
        with none gets the same probability for each class.

    Returns
    -------
    Tensor of shape (rows, classes)

    Raises
    ------
    ValueError
        When shapes do not fit, a weight is below 0, or a present number is NaN or above 0.

    Examples
    --------
    Two that are each sure of 4 to 1 are sure of 16 to 1 together:

    >>> one = torch.tensor([[0.8, 0.2]]).log()
    >>> late_fusion(torch.stack([one, one])).exp()
    tensor([[0.9412, 0.0588]])
    >>> late_fusion(torch.stack([one, one]), present=torch.tensor([[True], [False]])).exp()
    tensor([[0.8000, 0.2000]])
    """
    given = log_probabilities
    if given.ndim != 3 or not len(given):
        wanted = "(modalities, rows, classes) is wanted"
        raise ValueError(f"log_probabilities has shape {tuple(given.shape)}; {wanted}")
    weights = torch.ones(len(given)) if weights is None else torch.as_tensor(weights)
    present = torch.ones(given.shape[:2], dtype=torch.bool) if present is None else present
    _check_weights(weights, len(given))
    if present.shape != given.shape[:2] or present.dtype != torch.bool:
        raise ValueError(
            f"present has shape {tuple(present.shape)} and dtype {present.dtype}; "
            f"bool of shape {tuple(given.shape[:2])} is wanted"
        )
    counted = present[..., None] & (weights > 0)[:, None, None]
    given = torch.where(counted, given, 0.0)
    if not (given <= 1e-5).all():  # NaN is not below either
        raise ValueError("log_probabilities holds NaN or a number above 0; logarithms are wanted")
    return (weights.to(given.dtype)[:, None, None] * given).sum(0).log_softmax(-1)


def _check_weights(weights, count):
    if weights.shape != (count,) or not (weights >= 0).all() or weights.isinf().any():
        wanted = f"{count} finite numbers, 0 or more, are wanted"
        raise ValueError(f"weights is {weights.tolist()}; {wanted}")


class EarlyFusion(nn.Module):
    """One network that reads several modalities side by side, through one hidden layer.

    Parameters
    ----------
    widths : sequence of int
        Numbers in a row of each modality.
    hidden, classes : int
        Width of the hidden layer, and of the answer.
    drop : float
        The chance of each modality of a row to be left out in training, from 0 to below 1, so that
        the network learns to do without (Neverova et al. 2014, arXiv 1501.00102). A row never
        loses all of them.

    Raises
    ------
    ValueError
        When there is no modality, a width is below 1, or ``drop`` is not within [0, 1).
    """

    def __init__(self, widths: Sequence[int], hidden: int, classes: int, drop: float = 0.0):
        super().__init__()
        if not widths or min(*widths, hidden, classes) < 1:
            given = f"widths is {list(widths)}, hidden {hidden} and classes {classes}"
            raise ValueError(f"{given}; at least one width, and 1 or more each, is wanted")
        if not 0 <= drop < 1:
            raise ValueError(f"drop is {drop}; a chance from 0 to below 1 is wanted")
        self.widths, self.drop = tuple(widths), drop
        self.first, self.last = nn.Linear(sum(widths), hidden), nn.Linear(hidden, classes)

    def forward(
        self, features: torch.Tensor, present: torch.Tensor | None = None, labels=None
    ) -> SimpleNamespace:
        """Return logits, and the mean cross-entropy with labels.

        Parameters
        ----------
        features : Tensor of shape (rows, sum of widths)
            The modalities side by side.
        present : BoolTensor of shape (modalities, rows), optional
            An absent modality is read as zeros, whatever its numbers.
        labels : Tensor of shape (rows,), optional
            int64.

        Returns
        -------
        types.SimpleNamespace
            With ``logits`` of shape (rows, classes), and ``loss`` (None without labels).

        Raises
        ------
        ValueError
            When a shape does not fit.
        """
        if features.ndim != 2 or features.shape[1] != sum(self.widths):
            wanted = f"(rows, {sum(self.widths)}) is wanted"
            raise ValueError(f"features has shape {tuple(features.shape)}; {wanted}")
        shape = (len(self.widths), len(features))
        kept = torch.ones(shape, dtype=torch.bool) if present is None else present
        if kept.shape != shape:
            raise ValueError(f"present has shape {tuple(kept.shape)}; {shape} is wanted")
        if self.training and self.drop:
            kept = kept & self._drawn(shape)
        mask = kept.T.repeat_interleave(torch.tensor(self.widths), 1)
        logits = self.last(F.relu(self.first(torch.where(mask, features, 0.0))))
        loss = None if labels is None else F.cross_entropy(logits, labels)
        return SimpleNamespace(logits=logits, loss=loss)

    def _drawn(self, shape):
        """Draw which modalities stay; where all would go, all stay."""
        kept = torch.rand(shape) >= self.drop
        return kept | ~kept.any(0)


def trained(
    features: torch.Tensor,
    labels: torch.Tensor,
    widths: Sequence[int],
    hidden: int = 32,
    drop: float = 0.0,
    seed: int = 0,
) -> EarlyFusion:
    """Return an :class:`EarlyFusion` after 150 steps on batches of 100 rows, in evaluation mode.

    Parameters
    ----------
    features : Tensor of shape (rows, sum of widths)
    labels : Tensor of int64, shape (rows,)
        0 .. classes - 1.
    widths, hidden, drop
        As in :class:`EarlyFusion`.
    seed : int
        Of first weights, of the order of rows, and of what is dropped; the global one is left
        alone.
    """
    batches = data.row_batches({"features": features, "labels": labels}, 100)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = EarlyFusion(widths, hidden, int(labels.max()) + 1, drop)
        recipe = training.Recipe(150, 1e-2, seed=seed)
        training.train(model, batches, recipe, progress=False)
    return model


def choose_weights(log_probabilities: torch.Tensor, labels: torch.Tensor) -> tuple[float, float]:
    """Return the weights of two modalities, 0.1 to 1, by which late fusion is least surprised.

    Parameters
    ----------
    log_probabilities : Tensor of shape (2, rows, classes)
        Of rows that no part was trained on.
    labels : Tensor of int64, shape (rows,)

    Examples
    --------
    One witness who knows, and one who only says so:

    >>> knows = torch.tensor([[0.9, 0.1], [0.1, 0.9]]).log()
    >>> boasts = torch.tensor([[0.99, 0.01], [0.99, 0.01]]).log()
    >>> choose_weights(torch.stack([knows, boasts]), torch.tensor([0, 1]))
    (1.0, 0.1)
    """
    steps = [step / 10 for step in range(1, 11)]

    def surprise(weights):
        return F.nll_loss(late_fusion(log_probabilities, weights), labels).item()

    return min(((a, b) for a in steps for b in steps), key=surprise)
