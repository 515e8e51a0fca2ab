"""What sampling draws from: truncated as transformers does it, and drawn by its own dice."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import generation as theirs

from lightcourse import generation


def logits_of(seed, rows=3, vocabulary=40):
    """Return logits without ties, spread as a language model's."""
    return 3 * torch.randn(rows, vocabulary, generator=torch.Generator().manual_seed(seed))


@given(
    st.integers(0, 99),
    st.sampled_from([0.3, 1.0, 2.5]),
    st.sampled_from([None, 1, 5, 40, 99]),
    st.sampled_from([None, 0.01, 0.5, 0.9, 1.0]),
)
def test_the_distribution_is_that_of_transformers(seed, temperature, top_k, top_p):
    logits = logits_of(seed)
    warpers = [theirs.TemperatureLogitsWarper(temperature)]
    warpers += [theirs.TopKLogitsWarper(top_k)] if top_k else []
    warpers += [theirs.TopPLogitsWarper(top_p)] if top_p else []
    want = logits
    for warp in warpers:
        want = warp(None, want)
    found = generation.probabilities(logits, temperature, top_k, top_p)
    torch.testing.assert_close(found, want.softmax(-1), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(found.sum(-1), torch.ones(3))


def test_of_equal_tokens_exactly_so_many_stay_and_those_of_the_smaller_ids():
    found = generation.probabilities(torch.tensor([1.0, 2.0, 2.0, 2.0, 0.0]), top_k=2)
    assert found.tolist() == [0, 0.5, 0.5, 0, 0]


@pytest.mark.parametrize("top_p, kept", [(0.05, 1), (0.5, 1), (0.51, 2), (0.79, 2), (0.81, 3)])
def test_the_smallest_set_that_reaches_the_share_stays(top_p, kept):
    logits = torch.tensor([0.1, 0.5, 0.3, 0.1]).log()
    # 0.5 itself is reached by the likeliest; a rounding of its softmax must not decide.
    found = generation.probabilities(logits, top_p=top_p - 1e-6)
    assert (found > 0).sum() == kept and found[1] == found.max()


def test_the_set_is_found_after_the_temperature_and_among_what_top_k_left():
    logits = torch.tensor([0.4, 0.3, 0.2, 0.1]).log()
    assert (generation.probabilities(logits, top_p=0.55) > 0).sum() == 2
    assert (generation.probabilities(logits, top_k=2, top_p=0.55) > 0).sum() == 1
    assert (generation.probabilities(logits, 0.2, top_p=0.55) > 0).sum() == 1


def test_greedy_decoding_is_a_distribution_too():
    logits = logits_of(0)
    found = generation.certain(logits)
    assert torch.equal(found.argmax(-1), generation.likeliest(logits))
    assert torch.equal(found.sum(-1), torch.ones(3)) and found.dtype == torch.float32
    assert torch.equal(generation.certain(torch.zeros(5)), torch.eye(5)[0])  # of ties one


def test_samples_follow_the_temperature_and_their_own_generator():
    logits = torch.tensor([[2.0, 1.0, -torch.inf, 0.0]]).repeat(20_000, 1)
    state = torch.get_rng_state()
    draw, again = (generation.sampled(2.0, torch.Generator().manual_seed(3)) for _ in range(2))
    ids = draw(logits)
    assert torch.equal(ids, again(logits)) and not torch.equal(ids, draw(logits))
    assert torch.equal(state, torch.get_rng_state())
    found = ids.bincount(minlength=4) / len(ids)
    assert found[2] == 0
    torch.testing.assert_close(found, (logits[0] / 2).softmax(-1), atol=0.02, rtol=0)


def test_samples_come_from_the_truncated_distribution():
    logits = torch.tensor([[0.4, 0.3, 0.2, 0.1]]).log().repeat(20_000, 1)
    ids = generation.sampled(1.0, torch.Generator().manual_seed(3), top_k=3, top_p=0.6)(logits)
    found = ids.bincount(minlength=4) / len(ids)
    torch.testing.assert_close(found, torch.tensor([4 / 7, 3 / 7, 0, 0]), atol=0.02, rtol=0)


BAD = {
    "temperature": [0.0, -1.0, float("nan"), float("inf")],
    "top_k": [0, -1, 1.5],
    "top_p": [0.0, 1.1, float("nan")],
}


@pytest.mark.parametrize("name, value", [(name, x) for name, values in BAD.items() for x in values])
def test_what_makes_no_distribution_is_refused(name, value):
    how = {"temperature": 1.0, name: value}
    with pytest.raises(ValueError, match=f"{name} is {value}"):
        generation.sampled(generator=torch.Generator(), **how)
    with pytest.raises(ValueError, match=f"{name} is {value}"):
        generation.probabilities(logits_of(0), **how)
