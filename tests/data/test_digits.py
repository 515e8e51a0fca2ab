"""Noisy digits: the same for the same seed, hard where the docstring says so."""

import torch

from lightcourse import data


def test_a_seed_draws_noise_and_leaves_the_digits():
    one, again, other = (data.noisy_digits(seed) for seed in (1, 1, 2))
    assert torch.equal(one["image"], again["image"]) and one["word"] == again["word"]
    assert torch.equal(one["label"], other["label"])
    assert not torch.equal(one["image"], other["image"]) and one["word"] != other["word"]
    assert set(one["label"].tolist()) == set(range(10))


def hard_rows(rows):
    """Return which images are under thick snow, and which words are in no dictionary."""
    known = {word for tongue in data.digits.TONGUES for word in tongue}
    lost = (rows["image"].abs() > 2).any(1)
    return lost, torch.tensor([word not in known for word in rows["word"]])


def test_the_same_rows_are_hard_only_where_asked():
    for together, low, high in ((False, -0.1, 0.1), (True, 0.6, 1)):
        image, word = hard_rows(data.noisy_digits(3, together))
        both = torch.corrcoef(torch.stack([image, word]).double())[0, 1]
        assert 0.4 < image.double().mean() < 0.6 and low <= both <= high
