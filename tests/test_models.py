"""The loaders give real, working models; the classifier's pooling ignores padding."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from lightcourse import assets, data, models
from tests.toys import bert


def parameters(model):
    return sum(p.numel() for p in model.parameters())


@pytest.fixture(scope="module")
def minilm():
    return models.load_minilm()


@pytest.fixture(scope="module")
def smollm2():
    return models.load_smollm2()


# Tiny language models


@pytest.mark.parametrize(("size", "millions"), [("teacher", 4.3), ("student", 1.1), ("gpt2", 1.1)])
def test_new_tiny_lm_has_the_stated_size(size, millions):
    assert round(parameters(models.new_tiny_lm(size)) / 1e6, 1) == millions


@pytest.mark.parametrize("load", [models.new_tiny_lm, models.load_tiny_lm])
def test_tiny_lm_of_another_size(load):
    with pytest.raises(ValueError, match="size is 'giant'"):
        load("giant")


@pytest.mark.parametrize("size", ["teacher", "student", "gpt2"])
def test_tiny_lm_has_learned(size):
    model = models.load_tiny_lm(size)
    assert not model.training
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert model.lm_head.weight is model.get_input_embeddings().weight
    tokens = data.speech_tokens(models.load_tiny_tokenizer(), "test")[:2048].view(8, 256)
    with torch.no_grad():
        loss = model(input_ids=tokens, labels=tokens).loss
    assert loss < 4.5 < F.cross_entropy(torch.zeros(1, 2048), torch.zeros(1).long())


def test_tiny_tokenizer_is_lossless():
    tokenizer = models.load_tiny_tokenizer()
    text = "Fellow citizens — 1 € costs ¥ 160; 你好!"
    ids = tokenizer(text)["input_ids"]
    assert len(tokenizer) == 2048 > max(ids)
    assert tokenizer.decode(ids) == text
    assert tokenizer.eos_token_id == 0


# MiniLM


def test_minilm_is_whole(minilm):
    assert parameters(minilm) == 22_565_376
    assert not minilm.training
    assert {p.dtype for p in minilm.parameters()} == {torch.float32}
    assert len(models.load_minilm_tokenizer()) == minilm.config.vocab_size == 30_522


def test_minilm_puts_like_sentences_together(minilm):
    texts = ["A man is eating food.", "Someone eats a meal.", "The stock market fell sharply."]
    batch = models.load_minilm_tokenizer()(texts, padding=True, return_tensors="pt")
    means = F.normalize(models.embed(minilm, [batch]), dim=1)
    alike = means @ means.T
    assert alike[0, 1] > 0.5 > 0.3 > alike[0, 2].abs()


@pytest.mark.parametrize("load", [models.load_minilm, models.load_minilm_tokenizer])
def test_minilm_that_is_missing(load, tmp_path, monkeypatch):
    monkeypatch.setenv("LIGHTCOURSE_CACHE", str(tmp_path))
    with pytest.raises(assets.AssetMissing, match="lightcourse assets minilm"):
        load()


def test_loading_is_silent(minilm, capfd):
    models.load_minilm()
    models.load_minilm_tokenizer()
    assert capfd.readouterr() == ("", "")


@settings(max_examples=20)
@given(lengths=st.lists(st.integers(1, 8), min_size=1, max_size=5))
def test_embed_gives_each_text_the_mean_of_its_own_tokens(lengths):
    encoder = bert().encoder
    texts = [torch.arange(1, length + 1) for length in lengths]
    ids = torch.nn.utils.rnn.pad_sequence(texts, batch_first=True)
    batch = {"input_ids": ids, "attention_mask": (ids > 0).long(), "labels": "not looked at"}
    with torch.no_grad():
        want = torch.cat([encoder(text[None]).last_hidden_state.mean(1) for text in texts])
    torch.testing.assert_close(models.embed(encoder, [batch]), want)
    torch.testing.assert_close(models.embed(encoder, [batch, batch]), want.repeat(2, 1))


@pytest.mark.parametrize("training", [True, False])
def test_embed_is_what_a_head_gets_without_dropout_and_gradients(training):
    model = bert().train(training)
    ids = torch.tensor([[5, 9, 12], [40, 3, 0]])
    batch = {"input_ids": ids, "attention_mask": (ids > 0).long()}
    vectors = models.embed(model.encoder, [batch])
    assert not vectors.requires_grad and model.encoder.training is training
    with torch.no_grad():
        assert torch.equal(model.eval().head(vectors), model(**batch).logits)


@pytest.mark.parametrize(
    "part, batches, message",
    [
        ("encoder", [], "batches is empty"),
        ("encoder", [{"input_ids": torch.ones(1, 2).long()}], "attention_mask is wanted too"),
        (
            "",
            [dict.fromkeys(("input_ids", "attention_mask"), torch.ones(1, 2).long())],
            "encoder is a EncoderClassifier, which returns no last_hidden_state",
        ),
    ],
)
def test_embed_names_bad_input(part, batches, message):
    with pytest.raises(ValueError, match=message):
        models.embed(bert().get_submodule(part), batches)


# SmolLM2


def test_smollm2_is_silent_and_its_help_says_that_it_was_rounded(smollm2, capfd):
    models.load_smollm2(torch.bfloat16)
    assert capfd.readouterr() == ("", "")
    assert "Its weights were rounded" in models.load_smollm2.__doc__


def test_smollm2_really_was_rounded(smollm2):
    weight = smollm2.model.layers[3].mlp.up_proj.weight.detach()
    groups = weight.reshape(-1, 32).sort(dim=1).values
    assert (groups.diff(dim=1) != 0).sum(dim=1).max() + 1 == 16


def test_smollm2_is_whole(smollm2):
    assert parameters(smollm2) == 134_515_008
    assert not smollm2.training
    assert {p.dtype for p in smollm2.parameters()} == {torch.float32}
    assert smollm2.lm_head.weight is smollm2.model.embed_tokens.weight
    assert not getattr(smollm2.config, "quantization_config", None)


def test_smollm2_speaks_english(smollm2):
    tokenizer = models.load_smollm2_tokenizer()
    prompt = tokenizer("The capital of France is", return_tensors="pt")
    with torch.no_grad():
        tokens = smollm2.generate(**prompt, max_new_tokens=3, do_sample=False)
    assert "Paris" in tokenizer.decode(tokens[0])


def test_smollm2_has_a_chat_template():
    tokenizer = models.load_smollm2_tokenizer()
    chat = [{"role": "user", "content": "Hello"}]
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert text.endswith("<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n")


@pytest.mark.parametrize("load", [models.load_smollm2, models.load_smollm2_tokenizer])
def test_smollm2_that_is_missing(load, tmp_path, monkeypatch):
    monkeypatch.setenv("LIGHTCOURSE_CACHE", str(tmp_path))
    with pytest.raises(assets.AssetMissing, match="lightcourse assets smollm2"):
        load()
    assert not list(tmp_path.glob("smollm2*"))


# The classifier


@pytest.fixture(scope="module")
def classifier():
    return bert(labels=3)


@settings(max_examples=20)
@given(padding=st.integers(1, 8), filler=st.integers(0, 49))
def test_classifier_ignores_padding(classifier, padding, filler):
    ids = torch.tensor([[5, 9, 12, 40]])
    mask = torch.ones_like(ids)
    longer = F.pad(ids, (0, padding), value=filler)
    with torch.no_grad():
        want = classifier(ids, mask).logits
        logits = classifier(longer, F.pad(mask, (0, padding))).logits
    torch.testing.assert_close(logits, want)


def test_classifier_uses_every_real_token(classifier):
    ids = torch.tensor([[5, 9, 12, 40]])
    with torch.no_grad():
        short = classifier(ids, torch.tensor([[1, 1, 1, 0]])).logits
        full = classifier(ids, torch.ones_like(ids)).logits
    assert not torch.allclose(short, full)


def test_classifier_survives_an_empty_text(classifier):
    logits = classifier(torch.tensor([[3, 4]]), torch.tensor([[0, 0]])).logits
    assert torch.isfinite(logits).all()


def test_classifier_loss_is_cross_entropy_and_trains_everything():
    model = bert(labels=3)
    batch = {"input_ids": torch.tensor([[5, 9], [1, 2]]), "attention_mask": torch.ones(2, 2).long()}
    assert model(**batch).loss is None
    output = model(**batch, labels=torch.tensor([0, 2]))
    assert output.logits.shape == (2, 3)
    torch.testing.assert_close(output.loss, F.cross_entropy(output.logits, torch.tensor([0, 2])))
    output.loss.backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_classifier_of_one_label():
    with pytest.raises(ValueError, match="num_labels is 1"):
        models.EncoderClassifier(bert().encoder, 1)
