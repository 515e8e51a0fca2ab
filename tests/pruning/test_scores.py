"""Wanda's scores are the formula, on one layer and on a model."""

import pytest
import torch

from lightcourse import layers, pruning
from tests import toys

IDS = torch.arange(1, 33).view(4, 8)


def batch():
    return {"input_ids": IDS, "attention_mask": torch.ones_like(IDS)}


def test_wanda_weighs_each_column_by_its_input():
    weight, norms = torch.randn(3, 5), torch.rand(5)
    scores = pruning.wanda_scores(weight, norms)
    for row in range(3):
        for column in range(5):
            wanted = abs(weight[row, column].item()) * norms[column].item()
            assert scores[row, column].item() == pytest.approx(wanted)


@pytest.mark.parametrize("family", toys.ALL)
def test_wanda_on_a_model_is_wanda_on_each_layer(family):
    model = toys.ALL[family]()
    norms = pruning.input_norms(model, [batch()])
    scores = pruning.wanda_scores(model, norms)
    found = layers.linear_layers(model)
    assert list(scores) == list(found)
    for name, score in scores.items():
        wanted = pruning.wanda_scores(layers.weight_matrix(found[name]), norms[name])
        assert torch.equal(score, wanted)
        assert not score.requires_grad
    equal = {name: torch.ones_like(norm) for name, norm in norms.items()}
    plain = pruning.magnitude_scores(model)
    flat = pruning.wanda_scores(model, equal)
    assert all(torch.equal(flat[name], plain[name]) for name in plain)


def test_norms_that_fit_nothing_are_refused():
    model = toys.mlp()
    with pytest.raises(ValueError, match="input_norms is empty"):
        pruning.wanda_scores(model, {})
    with pytest.raises(ValueError, match=r"input_norms names \['9'\]"):
        pruning.wanda_scores(model, {"9": torch.ones(8)})
    with pytest.raises(ValueError, match=r"shape \(12,\); \(8,\) is wanted"):
        pruning.wanda_scores(model, {"0": torch.ones(12)})
    model[0].weight.data[0, 0] = float("nan")
    with pytest.raises(ValueError, match="the weight of 0 holds NaN"):
        pruning.wanda_scores(model, {"0": torch.ones(8)})
