"""Tokens that go: kept texts are split and understood as before, to the bit."""

import copy
import string

import pytest
import tokenizers
import torch
import transformers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lightcourse import layers, models, pruning, quantization
from tests import families, toys

KEPT = ["The state of our Union is strong.", "Congress met in December 1862; 3 members spoke!"]
SHAPE = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}


def unigram():
    """Return a tokenizer of pieces with scores, such as T5's, with a byte of its own class."""
    pieces = [("<pad>", 0.0), ("<unk>", 0.0), ("\u2581", -3.0)]
    pieces += [(c, -6.0) for c in string.printable[:94]]
    words = ["the", "state", "of", "our", "union", "is", "strong", "congress"]
    pieces += [("\u2581" + word, -8.0 - i / 9) for i, word in enumerate(words)]
    inner = tokenizers.Tokenizer(tokenizers.models.Unigram(pieces, unk_id=1))
    inner.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    inner.decoder = tokenizers.decoders.Metaspace()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", unk_token="<unk>", model_max_length=99
    )


def byte_fallback():
    """Return a Llama's kind of BPE: characters, merges, and bytes for what is unknown."""
    tokens = ["<unk>", "<s>", *(f"<0x{byte:02X}>" for byte in range(256)), *"adehnst\u2581"]
    merges = [("t", "h"), ("th", "e"), ("\u2581", "the"), ("h", "e"), ("s", "t"), ("a", "nd")]
    tokens += ["nd", *(one + other for one, other in merges)]
    inner = tokenizers.Tokenizer(
        tokenizers.models.BPE(
            {token: i for i, token in enumerate(tokens)},
            [("n", "d"), *merges],
            unk_token="<unk>",
            byte_fallback=True,
        )
    )
    inner.normalizer = tokenizers.normalizers.Replace(" ", "\u2581")
    inner.post_processor = tokenizers.processors.RobertaProcessing(("<s>", 1), ("<s>", 1))
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, unk_token="<unk>", bos_token="<s>"
    )


TOKENIZERS = {
    "tiny": models.load_tiny_tokenizer,
    "minilm": models.load_minilm_tokenizer,
    "smollm2": models.load_smollm2_tokenizer,
    "unigram": unigram,
    "byte fallback": byte_fallback,
}


@pytest.fixture(scope="module")
def pairs():
    """Return each tokenizer, the tokens it keeps, and the smaller one."""
    made = {}
    for name, load in TOKENIZERS.items():
        old = load()
        keep = pruning.tokens_of(old, KEPT)
        made[name] = old, keep, pruning.smaller_tokenizer(old, keep)
    return made


def decoder(family, count):
    torch.manual_seed(0)
    if family == "gpt2":
        size = {"vocab_size": count, "n_embd": 16, "n_layer": 2, "n_head": 2}
        config = transformers.GPT2Config(**size, bos_token_id=0, eos_token_id=0)
        return transformers.GPT2LMHeadModel(config).eval()
    special = {"bos_token_id": 1, "eos_token_id": [2, 0], "pad_token_id": 2}
    config = transformers.LlamaConfig(
        vocab_size=count, **SHAPE, **special, tie_word_embeddings=True
    )
    return transformers.LlamaForCausalLM(config).eval()


def bert(count):
    torch.manual_seed(0)
    return transformers.BertForMaskedLM(transformers.BertConfig(vocab_size=count, **SHAPE)).eval()


MODELS = {
    ("bert", "minilm"): bert,
    ("gpt2", "tiny"): lambda count: decoder("gpt2", count),
    ("llama", "smollm2"): lambda count: decoder("llama", count),
}


def state(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_kept_texts_are_split_into_the_same_tokens(pairs, name):
    old, keep, new = pairs[name]
    assert keep == sorted(set(keep)) and len(new) == len(keep) < len(old)
    for text in [*KEPT, ""]:
        assert [keep[i] for i in new(text)["input_ids"]] == old(text)["input_ids"]
    assert [old.convert_ids_to_tokens(i) for i in keep] == new.convert_ids_to_tokens(
        list(range(len(new)))
    )


@pytest.mark.parametrize("name", TOKENIZERS)
def test_settings_stay_and_files_give_the_same_tokenizer(pairs, name, tmp_path):
    old, keep, new = pairs[name]
    new.save_pretrained(tmp_path)
    for one in (new, transformers.AutoTokenizer.from_pretrained(tmp_path)):
        assert type(one) is type(old)
        assert one.special_tokens_map == old.special_tokens_map
        for key in ("model_max_length", "padding_side", "truncation_side", "chat_template"):
            assert getattr(one, key) == getattr(old, key)
        assert {keep[i]: str(t) for i, t in one.added_tokens_decoder.items()} == {
            i: str(t) for i, t in old.added_tokens_decoder.items()
        }
        assert one.get_vocab() == new.get_vocab()
        text = "Unseen words, 77 of them"
        assert one(text)["input_ids"] == new(text)["input_ids"]
    assert new.name_or_path == old.name_or_path


def test_padding_and_template_stay(pairs):
    old, keep, new = pairs["minilm"]
    found, wanted = (t(KEPT, KEPT[::-1], padding=True)["input_ids"] for t in (new, old))
    assert [[keep[i] for i in row] for row in found] == wanted
    old, keep, new = pairs["smollm2"]
    talk = [{"role": "user", "content": KEPT[0]}]
    assert new.apply_chat_template(talk, tokenize=False) == old.apply_chat_template(
        talk, tokenize=False
    )


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(text=st.text(max_size=40))
def test_any_text_is_still_encoded_and_bytes_come_back(text, pairs):
    for name, (old, _, new) in pairs.items():
        ids = new(text)["input_ids"]
        assert all(0 <= i < len(new) for i in ids)
        if name in ("tiny", "smollm2"):  # SmolLM2's own vocabulary lacks a few bytes
            wanted = text if name == "tiny" else old.decode(old(text)["input_ids"])
            assert new.decode(ids) == wanted
        # Characters that were known are not lost for want of their words.
        unknown = [t(text)["input_ids"].count(t.unk_token_id) for t in (old, new)]
        assert name == "smollm2" or unknown[0] == unknown[1], name


def test_a_vocabulary_without_the_merge_path_would_split_otherwise(pairs):
    old, keep, _ = pairs["tiny"]
    used = {i for text in KEPT for i in old(text)["input_ids"]}
    bare = sorted(used | {i for t, i in old.get_vocab().items() if len(t) == 1} | {0})
    assert len(bare) < len(keep)
    new = pruning.smaller_tokenizer(old, bare)
    assert [bare[i] for i in new(KEPT[0])["input_ids"]] != old(KEPT[0])["input_ids"]


@pytest.mark.parametrize("family, name", MODELS)
def test_hidden_states_are_the_same_bits(pairs, family, name):
    old, keep, new = pairs[name]
    model = MODELS[family, name](len(old))
    small = copy.deepcopy(model)
    report = pruning.remove_tokens_(small, keep)
    sizes = [sum(p.numel() for p in m.parameters()) for m in (model, small)]
    assert report.total == sizes[0] - sizes[1] and len(report.changed) == 1 + (family == "bert")
    for text in KEPT:
        with torch.no_grad():
            wanted = model(**old(text, return_tensors="pt"), output_hidden_states=True)
            found = small(**new(text, return_tensors="pt"), output_hidden_states=True)
        assert all(map(torch.equal, found.hidden_states, wanted.hidden_states))
        torch.testing.assert_close(found.logits, wanted.logits[..., keep], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("family, name", MODELS)
def test_the_configuration_follows_and_files_give_the_same_model(pairs, family, name, tmp_path):
    old, keep, new = pairs[name]
    model = MODELS[family, name](len(old))
    special = {
        key: value
        for key, value in vars(model.config).items()
        if key.endswith("_token_id") and value is not None
    }
    pruning.remove_tokens_(model, keep)
    assert model.config.vocab_size == len(keep)
    for key, value in special.items():
        many = isinstance(value, list)
        now = getattr(model.config, key)
        assert [keep[i] for i in (now if many else [now])] == (value if many else [value])
    table, head = model.get_input_embeddings(), model.get_output_embeddings()
    assert head.weight is table.weight and table.num_embeddings == head.out_features == len(keep)
    if table.padding_idx is not None:
        assert table.padding_idx == model.config.pad_token_id
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path)
    assert same(state(again), state(model))
    assert again.get_input_embeddings().weight is again.get_output_embeddings().weight


@pytest.mark.parametrize("family, name", [("gpt2", "tiny"), ("llama", "smollm2")])
def test_generation_with_a_cache_is_that_without_and_among_kept_tokens(pairs, family, name):
    old, keep, new = pairs[name]
    model = MODELS[family, name](len(old))
    pruning.remove_tokens_(model, keep)
    asked = new(KEPT[0], return_tensors="pt")
    found = [model.generate(**asked, max_new_tokens=8, use_cache=c) for c in (True, False)]
    assert torch.equal(*found) and found[0].max() < len(keep)
    assert new.decode(found[0][0]).startswith(KEPT[0])


def test_the_order_of_keep_does_not_matter(pairs):
    old, keep, _ = pairs["tiny"]
    found = [decoder("gpt2", len(old)) for _ in range(2)]
    for model, tokens in zip(found, (keep, keep[::-1]), strict=True):
        pruning.remove_tokens_(model, tokens)
    assert same(state(found[0]), state(found[1]))
    assert (
        pruning.smaller_tokenizer(old, keep[::-1])(KEPT)["input_ids"]
        == (pruning.smaller_tokenizer(old, keep)(KEPT)["input_ids"])
    )


WORDY = {k: v for k, v in families.FAMILIES.items() if k not in ("ViT", "nn.TransformerEncoder")}


@pytest.mark.parametrize("family", WORDY)
def test_any_family_loses_tokens_and_nothing_else(family, tmp_path):
    model, inputs = families.make(family)
    keep = [*range(0, 40, 1), *range(41, families.VOCABULARY, 5)]
    words = {k: v for k, v in inputs.items() if k.endswith("input_ids")}
    wanted = families.answer(model, inputs)
    before = sum(p.numel() for p in model.parameters())
    report = pruning.remove_tokens_(model, keep)
    assert report.total == before - sum(p.numel() for p in model.parameters()) > 0
    assert all(int(ids.max()) < 40 for ids in words.values())  # their numbers stay
    found = families.answer(model, inputs)
    if wanted.shape[-1] == families.VOCABULARY:
        wanted = wanted[..., keep]
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path).eval()
    torch.testing.assert_close(families.answer(again, inputs), found)


def test_an_untied_output_layer_and_its_bias_shrink_too():
    config = transformers.BertConfig(vocab_size=50, **SHAPE, tie_word_embeddings=False)
    model = transformers.BertForMaskedLM(config).eval()
    torch.nn.init.normal_(model.cls.predictions.decoder.bias)
    wanted = toys.logits(model)
    keep = [*range(20), 30, 49]
    report = pruning.remove_tokens_(model, keep)
    assert report.changed == {
        "bert.embeddings.word_embeddings": 28 * 16,
        "cls.predictions.decoder": 28 * 17,
    }
    torch.testing.assert_close(toys.logits(model), wanted[..., keep])


def test_an_encoder_inside_of_our_classifier_and_frozen_tables():
    model = toys.bert()
    model.requires_grad_(False)
    wanted = toys.logits(model)
    pruning.remove_tokens_(model, range(20))
    assert torch.equal(toys.logits(model), wanted)
    assert model.config.vocab_size == 20
    assert not any(p.requires_grad for p in model.parameters())


def test_lists_of_suppressed_tokens_lose_what_went():
    model = toys.llama()
    model.generation_config.suppress_tokens = [3, 30, 49]
    pruning.remove_tokens_(model, [*range(0, 20, 3), 49])
    assert model.generation_config.suppress_tokens == [1, 7]


@pytest.mark.parametrize(
    "keep, message",
    [
        ([], "empty"),
        ([0, 1, 50], "holds token 50; 0..49"),
        ([-1, 0], "holds token -1"),
        ([0, 1, 1], "token 1 twice"),
        ([1, 2], "keep lacks 0, the (bos|eos|pad)_token_id|padding_idx"),
        (range(50), "nothing was shrunk"),
    ],
)
def test_wrong_tokens_are_named_before_anything_changes(keep, message):
    model = toys.llama()
    before, told = state(model), copy.deepcopy(vars(model.config))
    with pytest.raises(ValueError, match=message):
        pruning.remove_tokens_(model, keep)
    assert same(state(model), before) and vars(model.config) == told


def test_a_token_of_a_list_and_of_generation_is_missed_too():
    model = toys.llama()
    model.generation_config.eos_token_id = [0, 7]
    with pytest.raises(ValueError, match="keep lacks 7, the eos_token_id of GenerationConfig"):
        pruning.remove_tokens_(model, range(5))


def test_positions_that_are_counted_from_the_padding_hold_it_in_place():
    config = transformers.RobertaConfig(
        **SHAPE,
        vocab_size=50,
        max_position_embeddings=34,
        pad_token_id=2,
        bos_token_id=0,
        eos_token_id=1,
    )
    model = transformers.RobertaModel(config).eval()
    inputs = {"input_ids": torch.tensor([[0, 5, 6, 1, 2]])}
    wanted = families.answer(model, inputs)
    config.bos_token_id = 1
    with pytest.raises(ValueError, match="counts positions"):
        pruning.remove_tokens_(model, range(1, 20))
    pruning.remove_tokens_(model, range(20))
    assert torch.equal(families.answer(model, inputs), wanted)


@pytest.mark.parametrize("make", [toys.mlp, lambda: families.make("ViT")[0]])
def test_a_model_without_words_is_refused(make):
    with pytest.raises(ValueError, match="without a token table"):
        pruning.remove_tokens_(make(), [0])


def test_tables_of_integers_are_refused():
    model = toys.llama()
    quantization.quantize_(model, embeddings=8)
    with pytest.raises(ValueError, match="without a token table of floats|of floats is wanted"):
        pruning.remove_tokens_(model, range(5))


def test_composed_settings_are_refused():
    model = toys.llama()
    model.generation_config.bad_words_ids = [[3, 4]]
    with pytest.raises(ValueError, match="bad_words_ids"):
        pruning.remove_tokens_(model, range(5))


@pytest.mark.parametrize(
    "keep, message",
    [
        ([], "empty"),
        ([0, 2048], "holds token 2048"),
        ([0, 3, 3], "twice"),
        ([3, 4], "keep lacks 0, the special token <.endoftext.>"),
        (range(2048), "not all are wanted"),
    ],
)
def test_a_tokenizer_refuses_the_same(keep, message):
    with pytest.raises(ValueError, match=message):
        pruning.smaller_tokenizer(models.load_tiny_tokenizer(), keep)


def test_slow_tokenizers_and_no_texts_are_refused():
    slow = transformers.ByT5Tokenizer()
    for call in (pruning.tokens_of, pruning.smaller_tokenizer):
        with pytest.raises(ValueError, match="a fast one is wanted"):
            call(slow, ["a"])
    for texts in ([], "one text"):
        with pytest.raises(ValueError, match="texts is"):
            pruning.tokens_of(models.load_tiny_tokenizer(), texts)


def test_the_report_names_the_table():
    report = pruning.remove_tokens_(toys.gpt2(), range(10))
    assert isinstance(report, layers.Report) and report.changed == {"transformer.wte": 40 * 16}
