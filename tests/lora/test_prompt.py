"""Trained vectors before the text: as peft has them, cut off the answers, kept on disk."""

import json

import pytest
import torch

from lightcourse import files, generation, lora, metrics, models, quantization, training
from tests import toys

IDS = torch.arange(1, 17).view(2, 8)
MASK = torch.ones_like(IDS)
MASK[1, 6:] = 0
BATCH = {"input_ids": IDS, "attention_mask": MASK}
DECODERS = ["gpt2", "llama"]


def tuned(family="llama", tokens=4):
    """Return a toy decoder behind a prompt."""
    torch.manual_seed(0)
    return lora.PromptTuned(toys.ALL[family](), tokens)


def peft_twin(model, family, task="CAUSAL_LM"):
    """Return peft's own, with the same prompt."""
    import peft

    toy = toys.bert().encoder if family == "bert" else toys.ALL[family]()
    config = peft.PromptTuningConfig(task_type=task, num_virtual_tokens=len(model.prompt))
    twin = peft.get_peft_model(toy, config).eval()
    prompt = next(p for p in twin.parameters() if p.requires_grad)
    prompt.data.copy_(model.prompt)
    return twin, prompt


@pytest.mark.parametrize("family", DECODERS)
def test_a_prompt_of_tokens_answers_as_these_tokens_in_the_text(family):
    start = [7, 3, 9]
    model = lora.PromptTuned(toys.ALL[family](), start)
    with torch.no_grad():
        whole = torch.cat([torch.tensor([start, start]), IDS], dim=1)
        wanted = toys.ALL[family]()(input_ids=whole).logits[:, 3:]
        assert torch.allclose(model(input_ids=IDS).logits, wanted, atol=1e-5)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("family", DECODERS)
def test_peft_computes_and_learns_the_same(family):
    ours = tuned(family)
    theirs, prompt = peft_twin(ours, family)
    labels = IDS.masked_fill(MASK == 0, -100)
    mine, twin = ours(**BATCH, labels=labels), theirs(**BATCH, labels=labels)
    assert torch.allclose(mine.logits, twin.logits[:, 4:], atol=1e-6)
    assert torch.allclose(mine.loss, twin.loss, atol=1e-6)
    mine.loss.backward()
    twin.loss.backward()
    assert torch.allclose(ours.prompt.grad, prompt.grad, rtol=1e-4, atol=1e-7)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_peft_computes_the_same_for_an_encoder():
    ours = lora.PromptTuned(toys.bert().encoder, 4)
    theirs, _ = peft_twin(ours, "bert", "FEATURE_EXTRACTION")
    with torch.no_grad():
        twin = theirs(**BATCH).last_hidden_state[:, 4:]
        assert torch.allclose(ours(**BATCH).last_hidden_state, twin, atol=1e-6)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("family", DECODERS)
def test_files_go_to_peft_and_back(tmp_path, family):
    import peft

    ours = tuned(family)
    with torch.no_grad():
        wanted = ours(**BATCH).logits
        path = lora.save_prompt(ours, tmp_path / "ours")
        there = peft.PeftModel.from_pretrained(toys.ALL[family](), path).eval()
        assert torch.allclose(there(**BATCH).logits[:, 4:], wanted, atol=1e-6)
        peft_twin(ours, family)[0].save_pretrained(tmp_path / "theirs")
        for name in ("ours", "theirs"):
            back = lora.load_prompt(toys.ALL[family](), tmp_path / name)
            assert torch.allclose(back(**BATCH).logits, wanted, atol=1e-6)


def test_a_classifier_learns_by_its_prompt_and_the_model_stays():
    torch.manual_seed(0)
    toy = toys.bert()
    model = models.EncoderClassifier(lora.PromptTuned(toy.encoder, 4), 3)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    assert set(training.trainable_parameters(model)) == {
        "encoder.prompt",
        "head.weight",
        "head.bias",
    }
    batch = BATCH | {"labels": torch.tensor([0, 1])}
    recipe = training.Recipe(steps=3, learning_rate=1e-2)
    training.train(model, lambda epoch, seed: [batch], recipe, progress=False)
    for name, parameter in model.named_parameters():
        assert torch.equal(before[name], parameter) == (".model." in name)


def test_two_prompts_share_one_model_which_answers_as_before():
    toy = toys.llama()
    before = toys.logits(toy)
    one, two = lora.PromptTuned(toy, [1, 2]), lora.PromptTuned(toy, [3])
    assert one.model is two.model
    assert not torch.allclose(one(**BATCH).logits, two(**BATCH).logits, atol=1e-3)
    assert torch.equal(before, toys.logits(toy))
    assert metrics.perplexity(one, torch.arange(1, 40) % 50, window=8) > 1


def test_a_prompt_before_integers_learns():
    toy = toys.llama()
    quantization.quantize_(toy, 4, embeddings=8)
    model = lora.PromptTuned(toy, 4)
    model(**BATCH, labels=IDS).loss.backward()
    assert model.prompt.grad.abs().sum() > 0


def test_token_types_of_the_text_are_kept():
    model = lora.PromptTuned(toys.bert().encoder, 2)
    types = torch.zeros_like(IDS)
    with torch.no_grad():
        plain = model(**BATCH).last_hidden_state
        assert torch.equal(plain, model(**BATCH, token_type_ids=types).last_hidden_state)
        other = model(**BATCH, token_type_ids=types + 1).last_hidden_state
        assert not torch.allclose(plain, other, atol=1e-3)


@pytest.mark.parametrize("family", DECODERS)
def test_a_prompt_of_tokens_writes_as_these_tokens_would(family):
    start, prompts = [7, 3, 9], torch.tensor([[1, 2, 4], [5, 6, 8]])
    toy = toys.ALL[family]()
    model = lora.PromptTuned(toy, start)
    whole = torch.cat([torch.tensor([start, start]), prompts], dim=1)
    wanted = generation.generate(toy, whole, 6)[:, 3:]
    assert torch.equal(generation.generate(model, prompts, 6), wanted)
    mask = torch.tensor([[False, True, True], [True, True, True]])
    with torch.no_grad():
        session, alone = model.begin(mask), model.begin()
        padded = session.read(prompts)
        assert torch.allclose(padded[:1], alone.read(prompts[:1, 1:]), atol=1e-5)
        assert session.length == 3 and alone.length == 2
        again = session.read(prompts[:, :1])
        session.forget(1)
        assert torch.allclose(session.read(prompts[:, :1]), again, atol=1e-5)
        with pytest.raises(ValueError, match="count is 5; 0 to 4"):
            session.forget(5)


# Bad input


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (0, "tokens is 0"),
        ([], "tokens is \\[\\]"),
        ([50], "within 0..49"),
        ([-1], "within 0..49"),
        ([0.5], "token ids"),
        ([[1]], "token ids"),
    ],
)
def test_wrong_tokens_are_told_and_nothing_is_frozen(tokens, message):
    toy = toys.llama()
    with pytest.raises(ValueError, match=message):
        lora.PromptTuned(toy, tokens)
    assert all(p.requires_grad for p in toy.parameters())


def test_models_and_arguments_that_do_not_fit():
    import transformers

    with pytest.raises(ValueError, match="Sequential; a model of transformers"):
        lora.PromptTuned(toys.mlp())
    config = transformers.T5Config(
        vocab_size=20, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2
    )
    with pytest.raises(ValueError, match="of two stacks"):
        lora.PromptTuned(transformers.T5ForConditionalGeneration(config))
    model = tuned()
    with pytest.raises(ValueError, match="position_ids is given"):
        model(IDS, position_ids=torch.arange(8))
    with pytest.raises(ValueError, match="input_ids has 29 tokens; at most 28 are wanted"):
        model(torch.ones(1, 29, dtype=torch.long))


def test_files_that_do_not_fit(tmp_path):
    model = tuned()
    path = lora.save_prompt(model, tmp_path / "prompt")
    with pytest.raises(ValueError, match="another model: its vectors are"):
        lora.load_prompt(models.new_tiny_lm("student"), path)
    with pytest.raises(ValueError, match="holds no prompt"):
        lora.load_prompt(toys.llama(), tmp_path)
    with pytest.raises(ValueError, match="a PromptTuned is wanted"):
        lora.save_prompt(toys.llama(), tmp_path / "no")
    config = json.loads((path / "adapter_config.json").read_text())
    files.save_tensors(
        {"prompt_embeddings": torch.full((2, 16), float("nan"))},
        path / "adapter_model.safetensors",
    )
    with pytest.raises(ValueError, match="holds NaN"):
        lora.load_prompt(toys.llama(), path)
    model.prompt.data[0] = float("inf")
    with pytest.raises(ValueError, match="holds NaN"):
        lora.save_prompt(model, tmp_path / "no")
    (path / "adapter_config.json").write_text(json.dumps(config | {"peft_type": "LORA"}))
    with pytest.raises(ValueError, match="wants peft_type='LORA'"):
        lora.load_prompt(toys.llama(), path)
