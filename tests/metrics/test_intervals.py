"""Wilson's interval: its equation, its ends, and how often it holds the truth."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightcourse import metrics


@st.composite
def counted(draw):
    count = draw(st.integers(1, 10**6))
    return draw(st.integers(0, count)), count


@given(counted(), st.sampled_from([0.5, 0.9, 0.95, 0.999]))
def test_each_end_is_a_share_that_is_just_z_deviations_from_what_was_seen(pair, level):
    from scipy.stats import norm

    right, count = pair
    z = norm.ppf((1 + level) / 2)
    low, high = metrics.wilson_interval(right, count, level)
    assert 0 <= low <= right / count <= high <= 1
    for end in (low, high):
        if 1e-9 < end < 1 - 1e-9:
            deviation = math.sqrt(end * (1 - end) / count)
            assert abs(right / count - end) == pytest.approx(z * deviation, rel=1e-6, abs=1e-9)


@given(counted())
def test_right_and_wrong_are_mirrored(pair):
    right, count = pair
    low, high = metrics.wilson_interval(right, count)
    other_low, other_high = metrics.wilson_interval(count - right, count)
    assert (low, high) == pytest.approx((1 - other_high, 1 - other_low), abs=1e-12)


def test_more_rows_and_less_confidence_narrow_it():
    def width(*arguments):
        low, high = metrics.wilson_interval(*arguments)
        return high - low

    assert width(800, 1000) < width(80, 100) < width(8, 10)
    assert width(8, 10, 0.5) < width(8, 10) < width(8, 10, 0.99)


@pytest.mark.parametrize("truth", [0.03, 0.3, 0.5, 0.9])
def test_it_holds_the_true_share_about_as_often_as_it_says(truth):
    draws = np.random.default_rng(0).binomial(80, truth, 4000)
    held = [low <= truth <= high for low, high in map(metrics.wilson_interval, draws, [80] * 4000)]
    assert 0.92 < np.mean(held) < 0.98


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((1, 0), "right is 1 of 0"),
        ((0, 0), "right is 0 of 0"),
        ((3, 2), "right is 3 of 2"),
        ((-1, 2), "right is -1 of 2"),
        ((0.5, 2), "right is 0.5; a whole number"),
        ((1, math.nan), "count is nan; a whole number"),
        ((1, 2, 1.0), "level is 1.0"),
        ((1, 2, math.nan), "level is nan"),
    ],
)
def test_bad_input_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        metrics.wilson_interval(*arguments)
