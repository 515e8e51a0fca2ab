"""Pruning: masks meet their promise exactly, and the verb changes what it says."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightcourse import layers, metrics, pruning
from tests import toys

fractions = st.floats(0, 1)
shapes = st.tuples(st.integers(1, 9), st.integers(1, 13))


def random_scores(shape, seed):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


@given(shapes, fractions, st.integers(0, 99))
def test_layer_mask_removes_exactly_the_lowest(shape, sparsity, seed):
    scores = random_scores(shape, seed)
    mask = pruning.layer_mask(scores, sparsity)
    assert int((~mask).sum()) == round(sparsity * scores.numel())
    if mask.any() and not mask.all():
        assert scores[~mask].max() <= scores[mask].min()


@given(shapes, fractions, st.integers(0, 99))
def test_row_mask_removes_the_same_number_from_each_row(shape, sparsity, seed):
    mask = pruning.row_mask(random_scores(shape, seed), sparsity)
    assert set((~mask).sum(1).tolist()) == {round(sparsity * shape[1])}


@given(st.integers(0, 4), st.integers(1, 5), st.integers(0, 99))
def test_n_of_m_mask_keeps_n_of_every_m(n, groups, seed):
    scores = random_scores((3, groups * 4), seed)
    mask = pruning.n_of_m_mask(scores, n, 4)
    assert (mask.view(3, groups, 4).sum(-1) == n).all()


def test_n_of_m_mask_counts_along_the_inputs():
    scores = torch.tensor([[9.0, 8.0, 1.0, 2.0], [1.0, 2.0, 9.0, 8.0]])
    want = torch.tensor([[True, True, False, False], [False, False, True, True]])
    assert torch.equal(pruning.n_of_m_mask(scores, 2, 4), want)


@given(st.floats(0, 1))
def test_global_mask_compares_layers_with_each_other(sparsity):
    scores = {"large": torch.arange(10.0, 20), "small": torch.arange(10.0).view(2, 5)}
    masks = pruning.global_mask(scores, sparsity)
    removed = {name: int((~mask).sum()) for name, mask in masks.items()}
    total = round(sparsity * 20)
    assert removed == {"small": min(total, 10), "large": max(total - 10, 0)}
    assert masks["small"].shape == (2, 5)


def test_equal_scores_still_meet_the_sparsity():
    assert int(pruning.layer_mask(torch.ones(10, 10), 0.37).sum()) == 63


def test_masks_take_one_layer_or_many():
    scores = {"a": random_scores((4, 8), 0), "b": random_scores((2, 4), 1)}
    for mask in (pruning.layer_mask, pruning.row_mask):
        many = mask(scores, 0.5)
        assert all(torch.equal(many[name], mask(scores[name], 0.5)) for name in scores)


@pytest.mark.parametrize("sparsity", [-0.1, 1.1, float("nan")])
def test_sparsity_outside_0_to_1_is_refused(sparsity):
    for mask in (pruning.layer_mask, pruning.row_mask):
        with pytest.raises(ValueError, match="sparsity is"):
            mask(torch.rand(2, 2), sparsity)
    with pytest.raises(ValueError, match="sparsity is"):
        pruning.global_mask({"a": torch.rand(2, 2)}, sparsity)


@pytest.mark.parametrize("n, m", [(3, 2), (-1, 4), (0, 0), (2, 3)])
def test_impossible_n_and_m_are_refused(n, m):
    with pytest.raises(ValueError, match=f"m is {m}"):
        pruning.n_of_m_mask(torch.rand(2, 8), n, m)


def test_scores_that_cannot_be_ordered_are_refused():
    with pytest.raises(ValueError, match="scores holds NaN"):
        pruning.layer_mask(torch.tensor([1.0, float("nan")]), 0.5)
    with pytest.raises(ValueError, match="filled dict"):
        pruning.global_mask({}, 0.5)


@pytest.mark.parametrize("family", toys.ALL)
def test_prune_zeroes_what_the_masks_say_and_reports_it(family):
    model = toys.ALL[family]()
    before = toys.logits(model)
    scores = pruning.magnitude_scores(model)
    masks = pruning.global_mask(scores, 0.5)
    report = pruning.prune_(model, masks)
    assert metrics.sparsity(model) == pytest.approx(0.5, abs=1e-3)
    assert report.total == sum(int((~mask).sum()) for mask in masks.values())
    for name, layer in layers.linear_layers(model).items():
        weight = layers.weight_matrix(layer)
        assert (weight[~masks[name]] == 0).all()
        assert torch.equal(weight[masks[name]].abs(), scores[name][masks[name]])
    assert not torch.equal(before, toys.logits(model))


def test_magnitude_removes_large_negatives_last():
    model = torch.nn.Linear(4, 1, bias=False)
    model.weight.data = torch.tensor([[-4.0, 1.0, 3.0, -2.0]])
    model = torch.nn.Sequential(model)
    pruning.prune_(model, pruning.layer_mask(pruning.magnitude_scores(model), 0.5))
    assert model[0].weight.tolist() == [[-4.0, 0.0, 3.0, 0.0]]


def test_the_same_mask_as_torch():
    from torch.nn.utils import prune

    model = toys.bert()
    masks = pruning.global_mask(pruning.magnitude_scores(model), 0.4)
    found = layers.linear_layers(model)
    pairs = [(layer, "weight") for layer in found.values()]
    prune.global_unstructured(pairs, prune.L1Unstructured, amount=0.4)
    for name, layer in found.items():
        assert torch.equal(layer.weight_mask.bool(), masks[name])


@pytest.mark.parametrize("amount", [0.1, 0.5, 0.77])
@pytest.mark.parametrize("family", toys.ALL)
def test_the_same_mask_as_torch_in_each_layer(family, amount):
    from torch.nn.utils import prune

    model = toys.ALL[family]()
    masks = pruning.layer_mask(pruning.magnitude_scores(model), amount)
    for name, layer in layers.linear_layers(model).items():
        prune.l1_unstructured(layer, "weight", amount=amount)
        theirs = layer.weight_mask.bool()
        assert torch.equal(theirs.T if layers.is_conv1d(layer) else theirs, masks[name])


def test_among_equal_scores_as_many_go_as_with_torch():
    from torch.nn.utils import prune

    model = toys.mlp()
    with torch.no_grad():
        model[0].weight.copy_(model[0].weight.mul(8).round())
    scores = pruning.magnitude_scores(model)["0"]
    assert len(scores.unique()) < 6
    mask = pruning.layer_mask(scores, 0.4)
    prune.l1_unstructured(model[0], "weight", amount=0.4)
    theirs = model[0].weight_mask.bool()
    assert torch.equal(scores[~mask].sort().values, scores[~theirs].sort().values)
    border = scores[~mask].max()
    places = torch.arange(scores.numel()).view(scores.shape)[scores == border]
    removed = (~mask)[scores == border]
    assert torch.equal(places[removed], places[: int(removed.sum())])  # ours: the first go


def test_random_scores_are_seeded_and_blind_to_the_weights():
    first, again, other = (pruning.random_scores(toys.mlp(), seed) for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["0"], other["0"])


def test_pruning_nothing_is_an_error():
    model = toys.mlp()
    masks = pruning.layer_mask(pruning.magnitude_scores(model), 0.0)
    with pytest.raises(ValueError, match="nothing was pruned"):
        pruning.prune_(model, masks)
    half = pruning.layer_mask(pruning.magnitude_scores(model), 0.5)
    pruning.prune_(model, half)
    with pytest.raises(ValueError, match="nothing was pruned"):
        pruning.prune_(model, half)


def test_a_wrong_mask_changes_nothing():
    model = toys.mlp()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    masks = pruning.layer_mask(pruning.magnitude_scores(model), 0.5)
    with pytest.raises(ValueError, match="'9', which is no linear layer"):
        pruning.prune_(model, masks | {"9": masks["0"]})
    with pytest.raises(ValueError, match="torch.bool of shape"):
        pruning.prune_(model, masks | {"2": masks["2"].T})
    with pytest.raises(ValueError, match="torch.float32"):
        pruning.prune_(model, masks | {"2": masks["2"].float()})
    with pytest.raises(ValueError, match=r"the mask of 2 is list; torch.bool of shape \(4, 12\)"):
        pruning.prune_(model, masks | {"2": masks["2"].tolist()})
    with pytest.raises(ValueError, match="masks is a Tensor; a dict of masks by name is wanted"):
        pruning.prune_(model, masks["0"])
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_models_that_cannot_be_scored_are_refused():
    with pytest.raises(ValueError, match="without a linear layer"):
        pruning.magnitude_scores(torch.nn.Sequential(torch.nn.ReLU()))
    model = toys.mlp()
    model[0].weight.data[0, 0] = float("nan")
    with pytest.raises(ValueError, match="the weight of 0 holds NaN"):
        pruning.magnitude_scores(model)
