"""DP-SGD's gradient: whose share is bounded, what the noise is, and that the loop takes it."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from lightcourse import data, training
from tests import toys


def row_loss(model, batch):
    return F.cross_entropy(model(batch["x"]), batch["labels"])


def rows(count, seed=0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    x = scale * torch.randn(count, 8, generator=generator)
    return {"x": x, "labels": torch.randint(4, (count,), generator=generator)}


def gradient(loss, model, batch):
    """Return the whole gradient as one vector, and the loss."""
    model.zero_grad()
    value = loss(model, batch)
    value.backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.requires_grad]), value


@given(st.integers(1, 9), st.floats(1, 50), st.integers(0, 99))
def test_with_nothing_clipped_and_no_noise_it_is_the_plain_gradient(count, expected, seed):
    model, batch = toys.mlp(), rows(count, seed)
    got, value = gradient(training.private_loss(1e6, 0, expected, row_loss), model, batch)
    want, plain = gradient(row_loss, model, batch)
    assert value.item() == pytest.approx(plain.item(), rel=1e-5)
    torch.testing.assert_close(got * expected / count, want, rtol=1e-4, atol=1e-6)


@given(st.integers(1, 6), st.floats(0.01, 2), st.sampled_from([1e-3, 1.0, 1e3]), st.integers(0, 99))
def test_no_row_moves_the_gradient_by_more_than_its_share(count, clip, scale, seed):
    model, batch = toys.mlp(), rows(count, seed, scale)
    without = {name: values[1:] for name, values in batch.items()}
    loss = training.private_loss(clip, 0, 1, row_loss)
    moved = gradient(loss, model, batch)[0] - gradient(loss, model, without)[0]
    alone = gradient(row_loss, model, {n: v[:1] for n, v in batch.items()})[0].norm().item()
    assert moved.norm().item() == pytest.approx(min(alone, clip), rel=1e-3, abs=1e-5)


def test_the_noise_is_normal_and_as_large_as_it_says_even_without_rows():
    model, empty = nn.Linear(8, 4), rows(0)
    torch.manual_seed(0)
    loss = training.private_loss(clip=0.5, noise=3.0, expected=10, loss=row_loss)
    draws = torch.stack([gradient(loss, model, empty)[0] for _ in range(300)])
    assert loss(model, empty).item() == 0
    assert draws.std().item() == pytest.approx(0.15, rel=0.03)
    assert draws.mean().item() == pytest.approx(0, abs=0.005)
    correlation = torch.corrcoef(draws.T) - torch.eye(36)
    assert correlation.abs().max() < 0.35


def test_what_is_frozen_gets_no_noise():
    model = toys.mlp()
    model[0].requires_grad_(False)
    before = model[0].weight.clone()
    loss = training.private_loss(1.0, 1.0, 4, row_loss)
    recipe = training.Recipe(3, 0.1)
    training.train(model, data.poisson_batches(rows(16), 0.25), recipe, loss, progress=False)
    assert torch.equal(model[0].weight, before)
    assert model[0].weight.grad is None


def test_it_learns_through_the_loop_and_goes_on_from_a_checkpoint(tmp_path):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(600, 8, generator=generator)
    batches = data.poisson_batches({"x": x, "labels": x[:, :4].argmax(-1)}, 0.1)
    loss = training.private_loss(1.0, 1.0, 60, row_loss)

    def run(steps, checkpoint=None):
        model = toys.mlp()
        recipe = training.Recipe(40, 0.02, final=1.0, evaluate_every=20)
        stop = {"after_step": stopped} if steps < 40 else {}
        training.train(model, batches, recipe, loss, checkpoint=checkpoint, progress=False, **stop)
        return model

    def stopped(model, step):
        if step == 30:
            raise KeyboardInterrupt

    whole = run(40)
    assert (whole(x).argmax(-1) == x[:, :4].argmax(-1)).float().mean() > 0.6
    with pytest.raises(KeyboardInterrupt):
        run(30, tmp_path / "run.safetensors")
    again = run(40, tmp_path / "run.safetensors")
    assert all(map(torch.equal, whole.parameters(), again.parameters()))


def test_any_model_with_a_loss_of_its_own_serves():
    model, ids = toys.bert(), torch.arange(1, 25).view(4, 6)
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    batch["labels"] = torch.tensor([0, 1, 2, 0])
    got, value = gradient(training.private_loss(1e6, 0, 4), model, batch)
    want, plain = gradient(training.model_loss, model, batch)
    assert value.item() == pytest.approx(plain.item(), rel=1e-5)
    torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-6)


def test_opacus_finds_the_same_sum_of_clipped_gradients():
    opacus = pytest.importorskip("opacus")
    model, batch = toys.mlp(), rows(7, scale=3.0)
    want, _ = gradient(training.private_loss(0.5, 0, 7, row_loss), model, batch)
    wrapped = opacus.GradSampleModule(model)
    batch["x"].requires_grad_()  # else torch warns about the hooks
    optimizer = opacus.optimizers.DPOptimizer(
        torch.optim.SGD(wrapped.parameters(), lr=0.0),
        noise_multiplier=0.0,
        max_grad_norm=0.5,
        expected_batch_size=7,
    )
    optimizer.zero_grad()
    row_loss(wrapped, batch).backward()
    optimizer.pre_step()
    got = torch.cat([p.grad.flatten() for p in wrapped.parameters()])
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-6)


@given(st.integers(1, 30), st.sampled_from([0.05, 0.3, 1.0]), st.integers(0, 9))
def test_poisson_batches_hold_rows_at_most_once_and_are_the_same_again(count, rate, epoch):
    batches = data.poisson_batches({"row": torch.arange(count)}, rate)
    first, again = (list(batches(epoch, 3)) for _ in range(2))
    assert len(first) == round(1 / rate)
    for one, other in zip(first, again, strict=True):
        assert torch.equal(one["row"], other["row"])
        assert len(one["row"].unique()) == len(one["row"]) <= count
    assert rate < 1 or len(first[0]["row"]) == count


def test_each_row_stands_in_a_batch_as_often_as_the_rate_says_and_by_itself():
    batches = data.poisson_batches({"row": torch.arange(50)}, 0.1)
    drawn = [batch["row"] for epoch in range(400) for batch in batches(epoch, 0)]
    there = torch.zeros(len(drawn), 50)
    for place, chosen in enumerate(drawn):
        there[place, chosen] = 1
    assert there.mean().item() == pytest.approx(0.1, abs=0.004)
    assert (there.mean(0) - 0.1).abs().max() < 0.02
    assert there.sum(1).var().item() == pytest.approx(50 * 0.1 * 0.9, rel=0.1)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: training.private_loss(0, 1, 1), "clip is 0"),
        (lambda: training.private_loss(1, -1, 1), "noise is -1"),
        (lambda: training.private_loss(1, math.nan, 1), "noise is nan"),
        (lambda: training.private_loss(1, 1, math.inf), "expected is inf"),
        (lambda: data.poisson_batches({"x": torch.ones(2)}, 0), "rate is 0"),
        (lambda: data.poisson_batches({"x": torch.ones(2)}, math.nan), "rate is nan"),
        (lambda: data.poisson_batches({"x": torch.ones(0)}, 0.5), "tensors has"),
        (
            lambda: training.private_loss(1, 1, 1, row_loss)(toys.mlp(), rows(2, scale=math.inf)),
            "row 0 of a batch has a gradient of norm nan",
        ),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
