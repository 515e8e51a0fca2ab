"""A session reads on, forgets, and looks at no padding."""

import pytest
import torch
from torch import nn

from lightcourse import generation
from lightcourse.generation import sessions
from tests import families, toys

FAMILIES = {"llama": toys.llama, "gpt2": toys.gpt2}
IDS = torch.tensor([[3, 4, 5, 9, 2, 8], [6, 7, 8, 1, 1, 4]])


def all_logits(model, ids):
    """Return the logits of every position, without a cache."""
    with torch.no_grad():
        return model(input_ids=ids).logits


@pytest.mark.parametrize("family", FAMILIES)
def test_reading_in_parts_is_reading_at_once(family):
    model = FAMILIES[family]()
    want, session = all_logits(model, IDS), generation.begin(model)
    assert session.length == 0
    torch.testing.assert_close(session.read(IDS[:, :3], keep=2), want[:, 1:3])
    torch.testing.assert_close(session.read(IDS[:, 3:4]), want[:, 3:4])
    assert session.length == 4
    torch.testing.assert_close(session.read(IDS[:, 4:], keep=2), want[:, 4:])


@pytest.mark.parametrize("family", FAMILIES)
def test_what_was_forgotten_leaves_no_trace(family):
    model = FAMILIES[family]()
    session = generation.begin(model)
    session.read(torch.cat([IDS[:, :3], 40 + IDS[:, :2]], dim=1))
    session.forget(2)
    session.forget(0)
    assert session.length == 3
    torch.testing.assert_close(session.read(IDS[:, 3:], keep=3), all_logits(model, IDS)[:, 3:])


def test_only_the_logits_that_are_asked_for_are_computed():
    model, seen = toys.llama(), []
    model.lm_head.register_forward_hook(lambda *args: seen.append(args[2].shape[1]))
    session = generation.begin(model)
    session.read(IDS)
    session.read(IDS, keep=3)
    assert seen == [1, 3]


class Wrapped(nn.Module):
    """A model behind a signature that tells nothing."""

    def __init__(self):
        super().__init__()
        self.inner = toys.llama()
        self.config = self.inner.config

    def forward(self, **inputs):
        """Hand everything on, but for what a wrapper may not know."""
        assert "logits_to_keep" not in inputs
        return self.inner(**inputs)


def test_a_wrapper_that_cannot_leave_logits_out_is_read_all_the_same():
    model = Wrapped()
    found = generation.begin(model).read(IDS, keep=2)
    torch.testing.assert_close(found, all_logits(model.inner, IDS)[:, -2:])


@pytest.mark.parametrize("family", ["Llama", "Qwen2", "GPT-2", "GPT-NeoX", "Falcon", "Mixtral"])
def test_padding_changes_no_text(family):
    torch.manual_seed(0)
    model = families.FAMILIES[family]()[0].eval()
    texts = [[5, 6, 7, 8, 9], [10, 11], [12]]
    ids, mask = generation.pad(texts, pad_id=1)
    session = generation.begin(model, mask)
    found = [session.read(ids)[:, -1]]
    for token in (20, 21):
        found.append(session.read(torch.full((3, 1), token))[:, -1])
    for row, text in enumerate(texts):
        alone = generation.begin(model)
        want = [alone.read(torch.tensor([text]))[0, -1]]
        want += [alone.read(torch.tensor([[token]]))[0, -1] for token in (20, 21)]
        torch.testing.assert_close(
            torch.stack([logits[row] for logits in found]), torch.stack(want)
        )
    session.forget(2)
    again = session.read(torch.full((3, 2), 20), keep=2)[:, 0]
    torch.testing.assert_close(again, found[1])


def test_a_prompt_with_padding_may_be_read_in_parts():
    model = toys.llama()
    ids, mask = generation.pad([[5, 6, 7, 8, 9], [10, 11]])
    whole, parts = (generation.begin(model, mask) for _ in range(2))
    parts.read(ids[:, :4])
    torch.testing.assert_close(parts.read(ids[:, 4:]), whole.read(ids))


def test_a_session_ends_at_the_window_and_counts_no_padding():
    model = toys.gpt2()
    session = generation.begin(model)
    session.read(torch.ones(1, 32, dtype=torch.int64))
    with pytest.raises(ValueError, match="would be 33 tokens long; 32 at most"):
        session.read(IDS[:1, :1])
    padded = generation.begin(model, torch.arange(35)[None] >= 5)
    padded.read(torch.ones(1, 35, dtype=torch.int64))
    with pytest.raises(ValueError, match="would be 33 tokens"):
        padded.read(IDS[:1, :3])
    padded.read(IDS[:1, :2])
    assert padded.length == 37


@pytest.mark.parametrize("keep", [0, 7, -1])
def test_positions_that_are_not_new_are_refused(keep):
    with pytest.raises(ValueError, match=f"keep is {keep}; 1 to 6"):
        generation.begin(toys.llama()).read(IDS, keep)


@pytest.mark.parametrize("count", [-1, 7])
def test_more_than_is_held_cannot_be_forgotten(count):
    session = generation.begin(toys.llama())
    session.read(IDS)
    with pytest.raises(ValueError, match=f"count is {count}; 0 to 6"):
        session.forget(count)


def test_a_window_of_transformers_that_dropped_tokens_says_that_it_cannot_forget():
    import transformers as hf

    config = hf.MistralConfig(**families.GROUPED, sliding_window=4)
    session = generation.begin(hf.MistralForCausalLM(config).eval())
    session.read(IDS)
    with pytest.raises(ValueError, match="DynamicCache forgets nothing"):
        session.forget(2)


class Own:
    """A model that keeps its own cache."""

    window, vocabulary = 32, 50

    def begin(self, mask=None):
        """Return what was asked."""
        return ("session", mask)


def test_a_model_may_begin_its_own_session():
    assert generation.begin(Own(), "mask") == ("session", "mask")
    assert sessions.window_of(Own()) == 32 and sessions.vocabulary_of(Own()) == 50
    with pytest.raises(ValueError, match="cache is given, but Own keeps its own"):
        generation.begin(Own(), cache="cache")


def test_a_model_that_tells_no_window_has_none():
    assert sessions.window_of(families.mamba()[0]) == float("inf")


def test_surprise_is_the_cross_entropy():
    model = toys.llama()
    want = nn.functional.cross_entropy(
        all_logits(model, IDS)[:, :-1].flatten(0, 1), IDS[:, 1:].flatten()
    )
    for step in (1, 2, 3, 99):
        found = generation.surprise(generation.begin(model), IDS, step)
        assert found == pytest.approx(want.item(), rel=1e-6)
    for ids, step, message in [(IDS[:, :1], 1, "ids has shape"), (IDS, 0, "step is 0")]:
        with pytest.raises(ValueError, match=message):
            generation.surprise(generation.begin(model), ids, step)
