"""Exposure against a rank found one candidate at a time, and of a canary really trained."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightcourse import metrics, training
from tests import toys


@settings(max_examples=20)
@given(
    st.lists(
        st.lists(st.integers(0, 49), min_size=2, max_size=6),
        min_size=2,
        max_size=9,
        unique_by=tuple,
    ),
    st.data(),
)
def test_the_rank_is_that_of_each_text_read_alone(rows, data):
    model, secret = toys.llama(), data.draw(st.integers(0, len(rows) - 1))
    alone = [metrics.cross_entropy(model, torch.tensor(row)) * (len(row) - 1) for row in rows]
    result = metrics.exposure(model, rows, secret)
    surely = sum(loss < alone[secret] - 1e-4 for loss in alone)
    maybe = sum(loss <= alone[secret] + 1e-4 for loss in alone)
    assert surely + 1 <= result.rank <= maybe
    assert 0 <= result.bits <= math.log2(len(rows))


class Even(torch.nn.Module):
    """Finds every token equally likely."""

    def forward(self, input_ids):
        return type("Output", (), {"logits": torch.zeros(*input_ids.shape, 50)})


def test_a_model_that_knows_nothing_exposes_nothing():
    rows = [[1, a, b] for a in range(10) for b in range(10)]
    result = metrics.exposure(Even(), rows, 37)
    assert result.rank == 50.5 and result.bits == pytest.approx(0.986, abs=1e-3)
    assert str(result) == "1.0 bits (place 50.5 of 100; by luck once in 2)"


def test_a_canary_read_often_is_exposed_and_its_neighbours_are_not():
    rows = torch.tensor([[1, 2, a, b] for a in range(3, 13) for b in range(3, 13)])
    model, secret = toys.llama(), 64
    batch = {"input_ids": rows[secret : secret + 1], "labels": rows[secret : secret + 1]}
    training.train(model, lambda epoch, seed: [batch], training.Recipe(30, 5e-3), progress=False)
    told = metrics.exposure(model, rows, secret)
    assert told.rank == 1 and told.bits == pytest.approx(math.log2(100))
    assert told.by_luck == 0.01
    assert sum(metrics.exposure(model, rows, other).rank == 1 for other in (0, 33, 99)) == 0


@pytest.mark.parametrize(
    "rows, secret, message",
    [
        ([], 0, "candidates has 0 rows"),
        ([[1, 2]], 0, "candidates has 1 rows"),
        ([[1, 2], [1]], 0, "the shortest of 1 tokens"),
        ([[1, 2], [1, 2]], 0, "one text twice"),
        ([[1, 2], [1, 3]], 2, "secret is 2; 0..1"),
        ([[1, 2], [1, 3]], -1, "secret is -1"),
        ([[1, 2], [1, 3]], 0.5, "secret is 0.5; a whole number"),
    ],
)
def test_bad_input_is_named(rows, secret, message):
    with pytest.raises(ValueError, match=message):
        metrics.exposure(toys.llama(), rows, secret)


def test_a_broken_model_is_refused():
    model = toys.llama()
    with torch.no_grad():
        model.model.norm.weight.fill_(math.nan)
    with pytest.raises(ValueError, match="model finds a candidate's loss to be NaN"):
        metrics.exposure(model, [[1, 2], [1, 3]], 0)
