"""A bag of hashed characters learns, whatever the script, and survives fewer bits."""

import copy

import pytest
import torch

from lightcourse import quantization
from lightcourse.applications import sentiment

TEXTS = ["很好", "真好看", "太好了", "不好", "很差", "太差了"] * 20
LABELS = [1, 1, 1, 0, 0, 0] * 20


def test_it_learns_and_a_seed_repeats_it():
    before = torch.random.get_rng_state()
    bag = sentiment.train_bag(TEXTS, LABELS, seed=1, epochs=10)
    assert torch.equal(before, torch.random.get_rng_state())
    assert sentiment.answers(bag, TEXTS).tolist() == LABELS
    again, other = (sentiment.train_bag(TEXTS, LABELS, seed, epochs=1) for seed in (1, 2))
    once = sentiment.train_bag(TEXTS, LABELS, seed=1, epochs=1)
    assert torch.equal(once.table.weight, again.table.weight)
    assert not torch.equal(once.table.weight, other.table.weight)


def test_padding_changes_nothing():
    bag = sentiment.HashedBag().eval()
    alone = bag(sentiment.padded(["很好"], 2**14))
    beside = bag(sentiment.padded(["很好", "这本书真的非常非常好看"], 2**14))
    assert torch.allclose(alone[0], beside[0], atol=1e-6)
    assert bag(sentiment.padded(["", "好"], 2**14)).isfinite().all()


def test_few_bits_answer_nearly_alike():
    bag = sentiment.train_bag(TEXTS, LABELS, epochs=10)
    small = copy.deepcopy(bag)
    quantization.quantize_(small, 8, embeddings=4, group_size=16)
    same = sentiment.answers(small, TEXTS) == sentiment.answers(bag, TEXTS)
    assert same.float().mean() > 0.9


def test_pieces_stay_within_the_table():
    found = sentiment.hashed_pieces("一二三" * 200, 7)
    assert len(found) == sentiment.LONGEST and set(found) == {1, 2, 3, 4, 5, 6} & set(found)
    with pytest.raises(ValueError, match="buckets is 1"):
        sentiment.hashed_pieces("好", 1)
