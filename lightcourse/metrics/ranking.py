"""How far up a search puts what was wanted."""

import numpy as np


def recall_at(scores: np.ndarray, relevance: np.ndarray, k: int) -> np.ndarray:
    """Return the share of relevant passages among the first ``k``, for each question.

    Passages are put in order of their scores. **Of equal scores the less relevant comes first**:
    a search that cannot tell passages apart gains nothing by the order in which they lie.

    Parameters
    ----------
    scores : ndarray of shape (questions, passages)
        Higher is better; no NaN.
    relevance : ndarray of shape (questions, passages)
        0 where a passage does not answer; above, the better the higher. Each question has a
        relevant passage.
    k : int
        At least 1; above the number of passages it means all.

    Returns
    -------
    ndarray of float64, shape (questions,)
        Of each question, so that two searches can be compared in pairs.

    Raises
    ------
    ValueError
        When an argument is not as above.

    Examples
    --------
    >>> recall_at([[0.1, 0.9, 0.5]], [[0, 0, 1]], 1), recall_at([[0.1, 0.9, 0.5]], [[0, 0, 1]], 2)
    (array([0.]), array([1.]))
    """
    gains = _in_order(scores, relevance) > 0
    return gains[:, : _checked(k)].sum(1) / gains.sum(1)


def reciprocal_ranks(scores: np.ndarray, relevance: np.ndarray) -> np.ndarray:
    """Return 1 / the place of the first relevant passage, for each question; their mean is MRR.

    The measure of TREC's question answering (Voorhees 1999). Ties, parameters and errors are
    those of :func:`recall_at`.

    Examples
    --------
    >>> reciprocal_ranks([[0.1, 0.9, 0.5], [0.3, 0.3, 0.3]], [[0, 0, 1], [1, 0, 0]])
    array([0.5       , 0.33333333])
    """
    return 1 / (1 + (_in_order(scores, relevance) > 0).argmax(1))


def ndcg_at(scores: np.ndarray, relevance: np.ndarray, k: int) -> np.ndarray:
    """Return the discounted gain of the first ``k``, as a share of the best order's.

    The gain of a passage is its relevance, divided by log2(1 + its place) (Järvelin &
    Kekäläinen, ACM TOIS 20, 2002, doi:10.1145/582415.582418). Ties, parameters and errors
    are those of :func:`recall_at`.

    Examples
    --------
    >>> ndcg_at([[3, 2, 1]], [[0, 2, 1]], 3).round(3)
    array([0.67])
    """
    gains = _in_order(scores, relevance)[:, : _checked(k)]
    best = -np.sort(-np.asarray(relevance, np.float64), axis=1)[:, :k]
    weights = 1 / np.log2(2 + np.arange(gains.shape[1]))
    return gains @ weights / (best @ weights)


def _in_order(scores, relevance) -> np.ndarray:
    """Return relevance in the order of scores, or raise; of equal scores the lower first."""
    scores, relevance = np.asarray(scores), np.asarray(relevance, np.float64)
    if scores.shape != relevance.shape or scores.ndim != 2 or not scores.size:
        raise ValueError(
            f"scores is {scores.shape} and relevance {relevance.shape}; two filled matrices of "
            "(questions, passages) are wanted"
        )
    if np.isnan(scores).any():
        raise ValueError("scores holds NaN; numbers are wanted")
    if not np.isfinite(relevance).all() or (relevance < 0).any() or not relevance.any(1).all():
        raise ValueError(
            "relevance is below 0, not finite, or 0 in a whole row; a relevant passage for each "
            "question is wanted"
        )
    order = np.lexsort((relevance, -scores.astype(np.float64)), axis=1)
    return np.take_along_axis(relevance, order, 1)


def _checked(k):
    if k < 1:
        raise ValueError(f"k is {k}; 1 or more is wanted")
    return k
