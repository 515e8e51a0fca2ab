"""Measures of search, against definitions that look at one question after the other."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightcourse import metrics


@st.composite
def searches(draw):
    """Return scores, many of them equal, relevance with something in each row, and k."""
    questions, passages = draw(st.integers(1, 4)), draw(st.integers(1, 7))
    row = st.lists(st.integers(-2, 2), min_size=passages, max_size=passages)
    grades = st.lists(st.integers(0, 3), min_size=passages, max_size=passages).filter(any)
    many = {"min_size": questions, "max_size": questions}
    return draw(st.lists(row, **many)), draw(st.lists(grades, **many)), draw(st.integers(1, 9))


def ordered(scores, grades):
    """Return grades by falling score; of equal scores the lower grade first."""
    return [
        grade for _, grade in sorted(zip(scores, grades, strict=True), key=lambda p: (-p[0], p[1]))
    ]


def gain(grades):
    return sum(grade / math.log2(2 + place) for place, grade in enumerate(grades))


@given(searches())
def test_they_are_what_their_definitions_say(case):
    scores, relevance, k = case
    recalls, ranks = (
        metrics.recall_at(scores, relevance, k),
        metrics.reciprocal_ranks(scores, relevance),
    )
    gains = metrics.ndcg_at(scores, relevance, k)
    for row, (said, grades) in enumerate(zip(scores, relevance, strict=True)):
        found = ordered(said, grades)
        hits = sum(grade > 0 for grade in found[:k])
        assert recalls[row] == hits / sum(grade > 0 for grade in grades)
        assert ranks[row] == 1 / (1 + [grade > 0 for grade in found].index(True))
        best = gain(sorted(grades, reverse=True)[:k])
        assert gains[row] == pytest.approx(gain(found[:k]) / best, abs=1e-12)


def test_equal_scores_earn_nothing_by_lying_first():
    assert metrics.recall_at([[1, 1, 1]], [[1, 0, 0]], 2) == 0
    assert metrics.reciprocal_ranks([[1, 1, 1]], [[1, 0, 0]]) == pytest.approx(1 / 3)


def test_minus_infinity_is_a_score():
    assert metrics.recall_at([[-np.inf, 0.0]], [[0, 1]], 1) == 1


@pytest.mark.parametrize(
    "scores, relevance, named",
    [
        ([[]], [[]], "filled"),
        ([[1, 2]], [[1]], "filled"),
        ([1, 2], [0, 1], "filled"),
        ([[math.nan, 2]], [[0, 1]], "NaN"),
        ([[1, 2]], [[0, 0]], "relevant"),
        ([[1, 2]], [[-1, 1]], "below 0"),
    ],
)
def test_what_has_no_meaning_is_refused(scores, relevance, named):
    for measure in (metrics.reciprocal_ranks, lambda *given: metrics.recall_at(*given, 1)):
        with pytest.raises(ValueError, match=named):
            measure(scores, relevance)


def test_k_is_one_at_least():
    for measure in (metrics.recall_at, metrics.ndcg_at):
        with pytest.raises(ValueError, match="k is 0"):
            measure([[1]], [[1]], 0)
