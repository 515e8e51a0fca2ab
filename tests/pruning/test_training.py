"""Held zeros stay zero through every optimizer, and a schedule tightens them step by step."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim.optimizer import _global_optimizer_post_hooks

from lightcourse import layers, metrics, pruning, training
from tests import toys

IDS = torch.arange(1, 33).view(4, 8)


def batches(epoch, seed):
    generator = torch.Generator().manual_seed(seed * 1000 + epoch)
    for _ in range(4):
        ids = torch.randint(1, 50, (4, 8), generator=generator)
        yield {"input_ids": ids, "labels": ids}


def pruned(model, sparsity=0.5):
    masks = pruning.layer_mask(pruning.magnitude_scores(model), sparsity)
    pruning.prune_(model, masks)
    return masks


def outside(model, masks):
    found = layers.linear_layers(model)
    return torch.cat([layers.weight_matrix(found[n]).detach()[~mask] for n, mask in masks.items()])


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_zeros_survive_training_and_the_rest_learns(family):
    recipe = training.Recipe(12, learning_rate=1e-2, weight_decay=0.1)
    model, free = toys.ALL[family](), toys.ALL[family]()
    masks, same = pruned(model), pruned(free)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    with pruning.hold_masks(model) as held:
        training.train(model, batches, recipe, progress=False)
    assert all(torch.equal(held[name], masks[name]) for name in masks)
    assert (outside(model, masks) == 0).all()
    assert metrics.sparsity(model) == pytest.approx(0.5, abs=1e-3)
    assert all(not torch.equal(before[name], p) for name, p in model.named_parameters())
    training.train(free, batches, recipe, progress=False)
    assert (outside(free, same) != 0).float().mean() > 0.9


OPTIMIZERS = {
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.3),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.1, momentum=0.9, centered=True),
    "adam, decay in the gradient": lambda p: torch.optim.Adam(p, lr=0.1, weight_decay=0.3),
}


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_momentum_from_before_does_not_refill(make):
    model = toys.mlp()
    optimizer = make(model.parameters())

    def step():
        optimizer.zero_grad()
        model(torch.ones(3, 8)).square().sum().backward()
        optimizer.step()

    for _ in range(3):
        step()
    masks = pruned(model)
    with pruning.hold_masks(model):
        for _ in range(3):
            step()
            assert (outside(model, masks) == 0).all()
            assert not torch.signbit(outside(model, masks)).any()
    step()
    assert (outside(model, masks) != 0).any()


def test_removed_weights_do_not_count_in_the_gradient_norm():
    for family in toys.ALL:
        model = toys.ALL[family]()
        masks = pruned(model)
        labels = torch.tensor([0, 1, 2, 0]) if family == "bert" else IDS
        batch = {"input_ids": IDS, "attention_mask": torch.ones_like(IDS), "labels": labels}
        with pruning.hold_masks(model):
            model(**batch).loss.backward()
        found = layers.linear_layers(model)
        for name, mask in masks.items():
            grad = found[name].weight.grad
            grad = grad.T if layers.is_conv1d(found[name]) else grad
            assert (grad[~mask] == 0).all()
            assert (grad[mask] != 0).any()


def test_nothing_is_left_behind():
    model = toys.mlp()
    pruned(model)
    with pytest.raises(KeyError), pruning.hold_masks(model):
        raise KeyError
    assert not _global_optimizer_post_hooks
    assert not model[0].weight._backward_hooks


def test_masks_may_be_given_and_tightened_on_the_way():
    model, seen, masks = toys.llama(), [], {}

    def tighten(model, step):
        sparsity = pruning.gradual_schedule(step, 0, 8, 0.7)
        masks.update(pruning.global_mask(pruning.magnitude_scores(model), sparsity))
        seen.append(metrics.sparsity(model))

    with pruning.hold_masks(model, masks):
        training.train(
            model, batches, training.Recipe(12, 1e-3), after_step=tighten, progress=False
        )
    assert seen == sorted(seen)
    assert seen[0] < 0.1
    assert metrics.sparsity(model) == pytest.approx(0.7, abs=1e-3)


def test_zeros_stay_through_momentum_decay_evaluations_and_the_best_weights():
    model, zeros, scores = toys.llama(), [], iter([3.0, 1.0, 2.0])
    training.train(model, batches, training.Recipe(4, 1e-2), progress=False)  # zeros come later
    found = layers.linear_layers(model)
    masks = {
        name: layer.weight.abs() > layer.weight.abs().median()
        for name, layer in found.items()
        if "q_proj" in name
    }
    pruning.prune_(model, masks)

    def evaluate(model):
        exact = [(found[name].weight == 0).equal(~mask) for name, mask in masks.items()]
        zeros.append(all(exact))
        return next(scores, None)

    recipe = training.Recipe(12, 5e-3, weight_decay=0.5, evaluate_every=5)
    with pruning.hold_masks(model, masks):
        history = training.train(model, batches, recipe, evaluate=evaluate, progress=False)
    evaluate(model)
    assert history.evaluations[1] == (10, 1.0) and history.best == 1.0
    assert zeros == [True] * 4 and len(masks) == 3


def test_given_masks_are_applied_at_once():
    model = toys.mlp()
    masks = {"0": torch.rand(12, 8) > 0.5}
    with pruning.hold_masks(model, masks):
        assert (outside(model, masks) == 0).all()
    assert (model[2].weight != 0).all()


def test_frozen_layers_are_no_obstacle():
    model = toys.mlp()
    masks = pruned(model)
    model[0].requires_grad_(False)
    with pruning.hold_masks(model):
        model(torch.ones(3, 8)).sum().backward()
        torch.optim.SGD(model[2].parameters(), lr=0.1).step()
    assert (outside(model, masks) == 0).all()


def test_masks_that_hold_nothing_are_refused():
    model = toys.mlp()
    with (
        pytest.raises(ValueError, match="no weight of the model is zero"),
        pruning.hold_masks(model),
    ):
        pass
    assert not _global_optimizer_post_hooks


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        ({"9": torch.ones(8, 12) > 0}, "'9', which is no linear layer"),
        ({"0": torch.ones(8, 12) > 0}, r"shape \(8, 12\); torch.bool of shape \(12, 8\)"),
        ({"0": torch.ones(1, 12, 8) > 0}, "torch.bool of shape"),
        ({"0": torch.ones(12, 8)}, "torch.float32"),
        (torch.ones(12, 8) > 0, "masks is a Tensor; a dict"),
    ],
)
def test_masks_that_do_not_fit_are_refused(masks, message):
    model = toys.mlp()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=message), pruning.hold_masks(model, masks):
        pass
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not _global_optimizer_post_hooks and not model[0].weight._backward_hooks


@given(st.integers(-50, 50), st.integers(1, 100), st.floats(0, 1), st.floats(0, 1))
def test_the_schedule_starts_ends_and_never_turns_back(begin, length, first, last):
    end = begin + length
    values = [
        pruning.gradual_schedule(step, begin, end, last, first)
        for step in range(begin - 2, end + 3)
    ]
    assert values[:3] == pytest.approx([first] * 3)
    assert values[-3:] == [last] * 3
    changes = [b - a for a, b in zip(values, values[1:], strict=False)]
    assert all(change * (last - first) >= -1e-12 for change in changes)
    pace = [abs(change) for change in changes[2:-2]]
    assert all(a >= b - 1e-12 for a, b in zip(pace, pace[1:], strict=False))  # ever slower


def test_the_schedule_is_cubic():
    for step in range(11):
        left = 1 - step / 10
        assert pruning.gradual_schedule(step, 0, 10, 1.0) == pytest.approx(1 - left**3)


@pytest.mark.parametrize(
    "arguments", [(0, 5, 5, 0.5), (0, 5, 4, 0.5), (0, 0, 5, 1.5), (0, 0, 5, 0.5, -0.1)]
)
def test_impossible_schedules_are_refused(arguments):
    with pytest.raises(ValueError, match="begin is|sparsity is"):
        pruning.gradual_schedule(*arguments)
