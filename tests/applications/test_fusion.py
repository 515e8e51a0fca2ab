"""Fusion: Bayes' rule where it holds, an absent modality cannot be heard, drops are fair."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightcourse.applications import fusion


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 4), st.integers(0, 5), st.integers(1, 6), st.integers(0, 1000))
def test_fused_is_the_product_of_experts(modalities, rows, classes, seed):
    given = drawn(modalities, rows, classes, seed=seed).log_softmax(-1)
    product = given.exp().prod(0)
    wanted = product / product.sum(-1, keepdim=True)
    torch.testing.assert_close(fusion.late_fusion(given).exp(), wanted)


def test_fused_is_bayes_rule_for_independent_modalities():
    """Two noisy copies of a coin, each right 4 times of 5: enumerate all that can happen."""
    likely = torch.tensor([[0.8, 0.2], [0.2, 0.8]], dtype=torch.float64)  # [coin, seen]
    both = (likely[:, :, None] * likely[:, None]).flatten(1)  # [coin, both seen]
    wanted = (both / both.sum(0)).T
    one = (likely / likely.sum(0)).T.log()
    pairs = [(a, b) for a in range(2) for b in range(2)]
    given = torch.stack([one[[a for a, _ in pairs]], one[[b for _, b in pairs]]])
    torch.testing.assert_close(fusion.late_fusion(given).exp(), wanted)


def test_absent_modalities_are_not_heard():
    given = drawn(2, 4, 3).log_softmax(-1)
    present = torch.tensor([[True, True, False, False], [True, False, True, False]])
    spoilt = torch.where(present[..., None], given, torch.nan)
    fused = fusion.late_fusion(spoilt, present=present)
    torch.testing.assert_close(fused[1], given[0, 1])
    torch.testing.assert_close(fused[2], given[1, 2])
    torch.testing.assert_close(fused[3].exp(), torch.full((3,), 1 / 3, dtype=torch.float64))


def test_a_weight_of_none_silences_and_a_weight_is_a_temperature():
    given = drawn(2, 5, 3).log_softmax(-1)
    torch.testing.assert_close(fusion.late_fusion(given, [1, 0]), given[0])
    cooled = fusion.late_fusion(given[:1], [0.5])
    torch.testing.assert_close(cooled, (given[0] / 2).log_softmax(-1))


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"weights": [1.0]}, "weights"),
        ({"weights": [1.0, -1.0]}, "weights"),
        ({"weights": [1.0, float("nan")]}, "weights"),
        ({"present": torch.ones(2, 3)}, "present"),
        ({"present": torch.ones(3, 2, dtype=torch.bool)}, "present"),
        ({"log_probabilities": torch.zeros(2, 3)}, "log_probabilities"),
        ({"log_probabilities": torch.full((2, 3, 4), torch.nan)}, "NaN"),
        ({"log_probabilities": torch.ones(2, 3, 4)}, "above 0"),
    ],
)
def test_late_fusion_refuses(change, names):
    given = {"log_probabilities": torch.zeros(2, 3, 4)} | change
    with pytest.raises(ValueError, match=names):
        fusion.late_fusion(**given)


def network(drop=0.0):
    torch.manual_seed(0)
    return fusion.EarlyFusion([2, 3], 8, 4, drop)


def test_an_absent_modality_is_read_as_zeros():
    model, rows = network().eval(), drawn(3, 5).float()
    present = torch.tensor([[True, False, True], [True, True, False]])
    zeros = rows.clone()
    zeros[1, :2], zeros[2, 2:] = 0, 0
    spoilt = rows.clone()
    spoilt[1, :2] = torch.nan
    torch.testing.assert_close(model(spoilt, present).logits, model(zeros).logits)


def test_modalities_are_dropped_in_training_alone():
    model, rows = network(0.5), torch.ones(400, 5)
    assert torch.equal(model.eval()(rows).logits[0], model(rows).logits[1])
    present = torch.ones(2, 400, dtype=torch.bool)
    logits = model.train()(rows, present).logits
    assert len(logits.detach().unique(dim=0)) == 3  # both, or one of the two: never none


def test_it_learns_and_gives_a_loss():
    model, rows = network(), drawn(64, 5).float()
    labels = (rows[:, 0] > 0).long() + 2 * (rows[:, 4] > 0).long()
    optimizer = torch.optim.Adam(model.parameters(), 0.05)
    for _ in range(100):
        optimizer.zero_grad()
        model(rows, labels=labels).loss.backward()
        optimizer.step()
    assert (model(rows).logits.argmax(-1) == labels).double().mean() > 0.95
    assert model(rows).loss is None


def test_early_fusion_refuses():
    with pytest.raises(ValueError, match="widths"):
        fusion.EarlyFusion([], 8, 4)
    with pytest.raises(ValueError, match="drop is 1"):
        network(1)
    with pytest.raises(ValueError, match="features"):
        network()(torch.ones(3, 4))
    with pytest.raises(ValueError, match="present"):
        network()(torch.ones(3, 5), torch.ones(3, 2, dtype=torch.bool))
