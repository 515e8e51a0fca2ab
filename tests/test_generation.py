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


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_a_temperature_that_makes_no_distribution_is_refused(temperature):
    with pytest.raises(ValueError, match=f"temperature is {temperature}"):
        generation.sampled(temperature, torch.Generator())


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
