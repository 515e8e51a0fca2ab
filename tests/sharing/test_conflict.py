"""Cosines between tasks' gradients, against gradients taken one by one."""

import pytest
import torch
from torch import nn

from lightcourse import sharing
from tests import toys

IDS = torch.arange(1, 33).view(4, 8)
INPUTS = {"input_ids": IDS, "attention_mask": torch.ones_like(IDS)}


def batch(task, *labels):
    return INPUTS | {"task": task, "labels": torch.tensor(labels)}


@pytest.fixture
def model():
    return sharing.MultiTaskClassifier(toys.bert().encoder, {"a": 3, "b": 2})


def by_hand(model, batches):
    """Return the cosines from whole backward passes over the encoder."""
    model.eval()
    found = []
    for one in batches:
        model.zero_grad()
        model(**one).loss.backward()
        found.append(torch.cat([p.grad.flatten().double() for p in model.encoder.parameters()]))
    return nn.functional.cosine_similarity(*found, dim=0).item()


def test_cosines_are_those_of_the_encoders_gradients(model):
    batches = {"a": batch("a", 0, 1, 2, 1), "b": batch("b", 1, 0, 0, 1)}
    found = sharing.gradient_cosines(model, batches)
    assert found == {("a", "b"): pytest.approx(by_hand(model, batches.values()), abs=1e-5)}


def test_one_batch_agrees_with_itself_and_conflicts_with_its_opposite(model):
    def loss(model, batch):
        return batch["sign"] * model(**{k: v for k, v in batch.items() if k != "sign"}).loss

    one = batch("a", 0, 1, 2, 1)
    batches = {"one": one | {"sign": 1}, "again": one | {"sign": 3}, "against": one | {"sign": -1}}
    found = sharing.gradient_cosines(model, batches, loss)
    assert found["one", "again"] == pytest.approx(1)
    assert [found["one", "against"], found["again", "against"]] == pytest.approx([-1, -1])


def test_nothing_is_left_behind(model):
    model.train()
    model.encoder.embeddings.eval()
    first = next(model.parameters())
    first.grad = torch.ones_like(first)
    random = torch.get_rng_state()
    sharing.gradient_cosines(model, {"a": batch("a", 0, 1, 2, 1), "b": batch("b", 1, 0, 0, 1)})
    assert model.training and not model.encoder.embeddings.training
    assert torch.equal(first.grad, torch.ones_like(first))
    assert sum(p.grad is not None for p in model.parameters()) == 1
    assert torch.equal(random, torch.get_rng_state())


def test_a_loss_that_draws_numbers_leaves_the_generator_as_it_was(model):
    def noisy(model, batch):
        return model(**batch).loss * (1 + torch.rand(()))

    random = torch.get_rng_state()
    batches = {"a": batch("a", 0, 1, 2, 1), "b": batch("b", 1, 0, 0, 1)}
    sharing.gradient_cosines(model, batches, noisy)
    assert torch.equal(random, torch.get_rng_state())


def test_bad_batches(model):
    two = {"a": batch("a", 0, 1, 2, 1), "b": batch("b", 1, 0, 0, 1)}
    with pytest.raises(ValueError, match=r"batches holds \['a'\]; at least two"):
        sharing.gradient_cosines(model, {"a": two["a"]})
    with pytest.raises(ValueError, match="the gradient of 'a' has length 0"):
        sharing.gradient_cosines(model, two, lambda m, b: (b["task"] == "b") * m(**b).loss)
    with pytest.raises(ValueError, match="the gradient of 'a' has length nan"):
        sharing.gradient_cosines(model, two, lambda m, b: float("nan") * m(**b).loss)
    model.encoder.requires_grad_(False)
    with pytest.raises(ValueError, match="share no trainable parameter"):
        sharing.gradient_cosines(model, two)
    model.requires_grad_(False)
    with pytest.raises(ValueError, match="share no trainable parameter"):
        sharing.gradient_cosines(model, two)
