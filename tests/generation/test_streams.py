"""The one loop that writes with a cache: what a model would say, and nothing else."""

from itertools import islice

import pytest
import torch

from lightcourse import generation
from tests import toys

PROMPTS = torch.tensor([[3, 4, 5], [6, 7, 8]])
FAMILIES = {"llama": toys.llama, "gpt2": toys.gpt2}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_likeliest_token_follows_as_without_a_cache(family):
    model, ids = FAMILIES[family](), PROMPTS
    for _ in range(6):
        with torch.no_grad():
            ids = torch.cat([ids, model(input_ids=ids).logits[:, -1:].argmax(-1)], dim=1)
    assert torch.equal(generation.generate(model, PROMPTS, 6), ids)


def test_a_stream_computes_what_is_asked_of_it_and_no_more():
    model, seen = toys.llama(), []
    model.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    tokens = generation.stream(model, PROMPTS)
    assert seen == []
    first = list(islice(tokens, 3))
    assert seen == [3, 1, 1]
    assert torch.equal(torch.stack(first, dim=1), generation.generate(model, PROMPTS, 3)[:, 3:])


def test_gradients_are_off_in_the_stream_and_as_before_around_it():
    model, seen = toys.llama(), []
    model.register_forward_pre_hook(lambda *_: seen.append(torch.is_grad_enabled()))
    for _ in islice(generation.stream(model, PROMPTS), 2):
        assert torch.is_grad_enabled()
    assert seen == [False, False]


@pytest.mark.parametrize("training", [True, False])
def test_dropout_is_off_and_each_module_keeps_its_mode(training):
    model = toys.gpt2()
    want = generation.generate(model, PROMPTS, 8)
    model.transformer.h.train(training)
    assert torch.equal(generation.generate(model, PROMPTS, 8), want)
    assert model.transformer.h[0].training is training and not model.transformer.ln_f.training


def test_what_the_model_would_do_with_its_own_settings_does_not_matter():
    model = toys.llama()
    plain = generation.generate(model, PROMPTS, 20)
    model.generation_config.update(
        repetition_penalty=9.0, eos_token_id=plain[:, 5].tolist(), do_sample=True
    )
    assert torch.equal(generation.generate(model, PROMPTS, 20), plain)


def test_the_caller_chooses():
    model = toys.llama()
    least = generation.generate(model, PROMPTS, 1, lambda logits: logits.argmin(dim=-1))
    with torch.no_grad():
        assert torch.equal(least[:, -1], model(input_ids=PROMPTS).logits[:, -1].argmin(-1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_choice_sees_single_precision(dtype):
    seen = []

    def choose(logits):
        seen.append(logits.dtype)
        return generation.likeliest(logits)

    generation.generate(toys.llama().to(dtype), PROMPTS, 2, choose)
    assert seen == [torch.float32] * 2


TEXTS = [[5, 6, 7, 8, 9], [10, 11], [12]]


@pytest.mark.parametrize("family", FAMILIES)
def test_many_texts_of_any_length_are_written_as_each_alone(family):
    model = FAMILIES[family]()
    ids, mask = generation.pad(TEXTS, pad_id=3)
    found = generation.unpad(generation.generate(model, ids, 8, mask=mask), mask)
    for text, want in zip(found, TEXTS, strict=True):
        assert torch.equal(text, generation.generate(model, torch.tensor([want]), 8)[0])


def scripted(*rows):
    """Return a choice that looks at no logits: column by column of what is to be written."""
    columns = iter(torch.tensor(rows).T)
    return lambda logits: next(columns)


def test_a_text_that_ended_is_filled_while_others_go_on_and_then_all_end():
    choose = scripted([1, 9, 2, 2, 2], [3, 4, 5, 9, 6])
    ids = generation.generate(toys.llama(), PROMPTS, 5, choose, stop=9)
    assert ids[:, 3:].tolist() == [[1, 9, 9, 9], [3, 4, 5, 9]]
    texts = generation.unpad(ids, torch.ones_like(PROMPTS, dtype=torch.bool), stop=9)
    assert [len(text) - 3 for text in texts] == [2, 4]


def test_each_text_ends_by_its_own_end_token_or_by_length():
    choose = scripted([1, 8, 2], [9, 4, 5])
    ids = generation.generate(toys.llama(), PROMPTS, 3, choose, stop=[8, 9])
    assert ids[:, 3:].tolist() == [[1, 8], [9, 9]]
    assert generation.generate(toys.llama(), PROMPTS, 3, scripted([1, 2, 3], [8, 4, 4]), stop=8)[
        :, 3:
    ].tolist() == [[1, 2, 3], [8, 8, 8]]


def test_an_end_token_that_is_not_named_is_a_token_like_any_other():
    ids = generation.generate(toys.llama(), PROMPTS, 3, scripted([0, 1, 2], [0, 0, 0]))
    assert ids[:, 3:].tolist() == [[0, 1, 2], [0, 0, 0]]


def test_a_stream_ends_at_the_window():
    tokens = generation.stream(toys.gpt2(), PROMPTS)
    assert len(list(islice(tokens, 30))) == 30  # of the last one nothing follows
    with pytest.raises(ValueError, match="would be 33 tokens long; 32 at most"):
        next(tokens)


@pytest.mark.parametrize(
    "prompts, length, message",
    [
        (PROMPTS, 0, "length is 0"),
        (PROMPTS, 30, "make 33 tokens; 32 at most"),
        (PROMPTS.float(), 2, "prompts is torch.float32"),
        (PROMPTS[0], 2, r"of shape \(3,\)"),
        (PROMPTS + 45, 2, "ids from 48 to 53; 0..49"),
    ],
)
def test_bad_arguments_are_named(prompts, length, message):
    with pytest.raises(ValueError, match=message):
        generation.generate(toys.llama(), prompts, length)


def test_a_mask_that_does_not_fit_is_named():
    with pytest.raises(ValueError, match="mask is torch.float32"):
        generation.generate(toys.llama(), PROMPTS, 2, mask=torch.ones(2, 3))
