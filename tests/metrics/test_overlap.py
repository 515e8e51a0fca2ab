"""ROUGE against counts made by hand, and what must hold of any two texts."""

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightcourse import metrics

TEXTS = st.lists(st.sampled_from(["a", "b", "c"]), max_size=7).map(" ".join)


@pytest.mark.parametrize(
    "text, reference, one, two, longest",
    [
        ("a b c", "A, b. C!", 1, 1, 1),
        ("a b", "c d", 0, 0, 0),
        ("", "a", 0, 0, 0),
        # Shared: a once only, of 3 and 2 words; no pair; the longest row is a.
        ("a a a", "a b", 2 / 5, 0, 2 / 5),
        # Lin 2004, section 3.1: three words shared of four, one pair or none, a row of 3 or 2.
        ("police kill the gunman", "police killed the gunman", 6 / 8, 2 / 6, 6 / 8),
        ("the gunman kill police", "police killed the gunman", 6 / 8, 2 / 6, 4 / 8),
    ],
)
def test_rouge_by_hand(text, reference, one, two, longest):
    assert metrics.rouge(text, reference) == pytest.approx(one)
    assert metrics.rouge(text, reference, 2) == pytest.approx(two)
    assert metrics.rouge_l(text, reference) == pytest.approx(longest)


def longest_by_trying(first, second):
    """Return the length of the longest row of words in both, trying every one."""
    rows = [set(combinations(second, n)) for n in range(len(second) + 1)]
    sizes = range(min(len(first), len(second)), 0, -1)
    return next((n for n in sizes if set(combinations(first, n)) & rows[n]), 0)


@given(TEXTS, TEXTS)
def test_the_longest_row_is_found(text, reference):
    first, second = text.split(), reference.split()
    wanted = 2 * longest_by_trying(first, second) / max(len(first) + len(second), 1)
    assert metrics.rouge_l(text, reference) == pytest.approx(wanted)


@given(TEXTS, TEXTS, st.integers(1, 3))
def test_rouge_is_even_handed_and_no_row_is_longer_than_its_words(text, reference, order):
    score = metrics.rouge(text, reference, order)
    assert 0 <= score <= 1 and score == metrics.rouge(reference, text, order)
    assert metrics.rouge_l(text, reference) <= metrics.rouge(text, reference) + 1e-12
    if len(text.split()) >= order:
        assert metrics.rouge(text, text, order) == 1


def test_rouge_of_no_order():
    with pytest.raises(ValueError, match="order is 0"):
        metrics.rouge("a", "a", 0)
