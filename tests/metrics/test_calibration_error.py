"""The calibration error against its definition row by row, and against calibrated toys."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightcourse import metrics


def by_hand(logits, labels, bins):
    """Return the error from Guo's definition, one bin after another."""
    rows = []
    for logit, label in zip(logits.double().tolist(), labels, strict=True):
        powers = [math.exp(value - max(logit)) for value in logit]
        best = max(range(len(logit)), key=powers.__getitem__)
        rows.append((powers[best] / sum(powers), best == label))
    error = 0.0
    for m in range(bins):
        inside = [row for row in rows if m / bins < row[0] <= (m + 1) / bins]
        if inside:
            confidence, right = (sum(column) / len(inside) for column in zip(*inside, strict=True))
            error += len(inside) / len(rows) * abs(confidence - right)
    return error


@given(st.integers(1, 40), st.integers(1, 4), st.integers(1, 20), st.integers(0, 99))
def test_the_error_is_that_of_its_definition(count, classes, bins, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(count, classes, generator=generator)
    labels = torch.randint(classes, (count,), generator=generator).tolist()
    result = metrics.reliability(logits, labels, bins)
    assert result.error == pytest.approx(by_hand(logits, labels, bins), abs=1e-9)
    assert result.counts.sum() == count and 0 <= result.error <= 1
    whole = (result.accuracy.nan_to_num() * result.counts).sum().item() / count
    assert whole == pytest.approx(metrics.accuracy(logits.argmax(-1), labels))
    assert torch.equal(result.accuracy.isnan(), result.counts == 0)


def drawn(count, sharpness, seed):
    """Return logits that are ``sharpness`` times too large for the labels drawn from them."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(count, 3, generator=generator)
    labels = torch.multinomial(logits.softmax(-1), 1, generator=generator)[:, 0]
    return sharpness * logits, labels


def test_calibrated_answers_stay_below_luck_and_overconfident_ones_do_not():
    below = 0
    for seed in range(40):
        result = metrics.reliability(*drawn(400, 1, seed))
        below += result.error <= result.by_luck(draws=100, seed=seed)
    assert below >= 33
    sharp = metrics.reliability(*drawn(400, 3, 0))
    assert sharp.error > 2 * sharp.by_luck()
    assert sharp.by_luck(seed=5) == sharp.by_luck(seed=5) != sharp.by_luck(seed=6)


def test_luck_shrinks_with_rows_and_grows_with_bins():
    few, many = (metrics.reliability(*drawn(count, 1, 0)) for count in (100, 2500))
    assert many.by_luck() < few.by_luck() / 3
    fine = metrics.reliability(*drawn(100, 1, 0), bins=60)
    assert fine.by_luck() > few.by_luck()


def test_what_it_misses_the_commonest_class_as_often_as_it_occurs():
    labels = [0] * 70 + [1] * 30
    logits = torch.tensor([0.7, 0.3]).log().expand(100, 2)
    assert metrics.reliability(logits, labels).error == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: metrics.reliability(torch.zeros(0, 2), []), "logits has shape"),
        (lambda: metrics.reliability(torch.zeros(2), [1, 1]), "logits has shape"),
        (lambda: metrics.reliability(torch.zeros(2, 2), [1]), "labels .1,."),
        (lambda: metrics.reliability(torch.tensor([[0.0, math.nan]]), [1]), "holds NaN"),
        (lambda: metrics.reliability(torch.full((1, 2), -math.inf), [1]), "without a distribution"),
        (lambda: metrics.reliability(torch.zeros(1, 2), [1], bins=0), "bins is 0"),
        (lambda: metrics.reliability(torch.zeros(1, 2), [1]).by_luck(draws=0), "draws is 0"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
