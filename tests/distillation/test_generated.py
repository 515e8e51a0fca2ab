"""What a teacher writes: its own distribution, reproducibly, and nothing else moves."""

import pytest
import torch

from lightcourse import distillation
from tests import toys

PROMPTS = torch.tensor([[3, 4, 5], [6, 7, 8]])
FAMILIES = {"llama": toys.llama, "gpt2": toys.gpt2}


@pytest.mark.parametrize("family", FAMILIES)
def test_prompts_come_first_and_the_likeliest_text_is_that_of_generate(family):
    teacher = FAMILIES[family]()
    got = distillation.generate_targets(teacher, PROMPTS, 6, temperature=0)
    want = teacher.generate(PROMPTS, max_new_tokens=6, do_sample=False, eos_token_id=None)
    assert torch.equal(got, want)
    assert got.shape == (2, 9) and torch.equal(got[:, :3], PROMPTS)


def test_the_seed_alone_decides():
    teacher = toys.llama()
    torch.manual_seed(1)
    first = distillation.generate_targets(teacher, PROMPTS, 10)
    torch.manual_seed(2)
    assert torch.equal(first, distillation.generate_targets(teacher, PROMPTS, 10))
    assert not torch.equal(first, distillation.generate_targets(teacher, PROMPTS, 10, seed=1))


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_samples_follow_the_teacher_at_the_temperature(temperature):
    teacher = toys.llama()
    for parameter in teacher.parameters():
        parameter.data *= 10  # a surer teacher: temperatures differ
    count = 4000
    ids = distillation.generate_targets(teacher, PROMPTS[:1].repeat(count, 1), 1, temperature)
    with torch.no_grad():
        wanted = (teacher(input_ids=PROMPTS[:1]).logits[0, -1] / temperature).softmax(-1)
    found = ids[:, -1].bincount(minlength=50) / count
    assert (found - wanted).abs().max() < 0.04
    assert wanted.max() > 0.1


@pytest.mark.parametrize("training", [True, False])
def test_neither_the_global_generator_nor_the_teacher_is_touched(training):
    teacher = toys.gpt2().train(training)
    state, weights = torch.get_rng_state(), [p.clone() for p in teacher.parameters()]
    ids = distillation.generate_targets(teacher, PROMPTS, 4)
    assert torch.equal(state, torch.get_rng_state()) and teacher.training is training
    assert all(torch.equal(a, b) for a, b in zip(weights, teacher.parameters(), strict=True))
    assert not ids.requires_grad
    assert torch.equal(ids, distillation.generate_targets(teacher.eval(), PROMPTS, 4))


def test_the_cache_is_used():
    teacher, seen = toys.llama(), []
    teacher.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    distillation.generate_targets(teacher, PROMPTS, 4)
    assert seen == [3, 1, 1, 1]


@pytest.mark.parametrize(
    "change, message",
    [
        ({"prompts": torch.zeros(2, 0, dtype=torch.int64)}, r"of shape \(2, 0\)"),
        ({"prompts": torch.zeros(0, 3, dtype=torch.int64)}, r"of shape \(0, 3\)"),
        ({"prompts": torch.tensor([1, 2])}, r"of shape \(2,\)"),
        ({"prompts": torch.ones(2, 3)}, "prompts is torch.float32"),
        ({"prompts": torch.tensor([[1, 50]])}, "ids from 1 to 50; 0..49"),
        ({"prompts": torch.tensor([[-1, 5]])}, "ids from -1 to 5; 0..49"),
        ({"length": 0}, "length is 0"),
        ({"length": 30}, "make 33 tokens; 32 at most"),
        ({"temperature": -1.0}, "temperature is -1.0"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"temperature": float("inf")}, "temperature is inf"),
    ],
)
@pytest.mark.parametrize("family", FAMILIES)
def test_bad_arguments_are_named(family, change, message):
    arguments = {"teacher": FAMILIES[family](), "prompts": PROMPTS, "length": 2}
    with pytest.raises(ValueError, match=message):
        distillation.generate_targets(**{**arguments, **change})


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("lost", [torch.nan, torch.inf, -torch.inf])
def test_a_teacher_without_a_distribution_is_named(lost, temperature):
    teacher = toys.llama()
    teacher.lm_head.register_forward_hook(lambda module, args, logits: logits * 0 + lost)
    with pytest.raises(ValueError, match="teacher_logits hold NaN, .inf or nothing but -inf"):
        distillation.generate_targets(teacher, PROMPTS, 2, temperature)


def test_what_the_teacher_excludes_is_never_written():
    teacher = toys.llama()
    odd = torch.arange(1, 50, 2)
    teacher.lm_head.register_forward_hook(
        lambda module, args, logits: logits.index_fill(-1, odd, -torch.inf)
    )
    ids = distillation.generate_targets(teacher, PROMPTS.repeat(50, 1), 8, temperature=5.0)
    assert (ids[:, 3:] % 2 == 0).all()


def test_a_temperature_under_which_logits_overflow_is_refused():
    with pytest.raises(ValueError, match="at the given temperature"):
        distillation.generate_targets(toys.llama(), PROMPTS, 2, temperature=1e-45)


def test_the_window_can_be_filled():
    assert distillation.generate_targets(toys.llama(), PROMPTS, 29).shape == (2, 32)
