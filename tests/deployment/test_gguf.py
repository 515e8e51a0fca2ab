"""A GGUF file holds our integers, and transformers and gguf read them back."""

import copy
import re

import gguf
import numpy as np
import pytest
import tokenizers
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from lightcourse import assets, data, deployment, layers, lora, models, pruning, quantization
from lightcourse.deployment import blocks, gguf_metadata
from lightcourse.quantization import QuantizedLinear, SplitLinear
from tests.deployment.llamas import HOW, quantized

TEN_BITS = 2.0**-11  # half a step of float16's ten stored bits
SMALL = 2.0**-25  # the same below 6e-5
KINDS = ("F16", *HOW)


@pytest.fixture(scope="module")
def tokenizer():
    return models.load_tiny_tokenizer()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.gguf"


def small(**changes):
    """Return a random Llama of one layer, with a tiny tokenizer's tokens."""
    torch.manual_seed(0)
    shape = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 1}
    shape |= {"num_attention_heads": 2, "vocab_size": 2048, "max_position_embeddings": 64}
    ids = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**shape | ids | changes)).eval()


def read(path):
    """Return a file's tensors by name, as gguf turns them into floats."""
    tensors = gguf.GGUFReader(path).tensors
    return {t.name: torch.tensor(gguf.dequantize(t.data, t.tensor_type)) for t in tensors}


def draw_layer(kind, seed, spread=1.0):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(6, 96, generator=generator) * spread
    return QuantizedLinear(weight, group_size=32, **HOW[kind])


@given(st.sampled_from(sorted(HOW)), st.integers(0, 999), st.sampled_from([1e-6, 1e-3, 1, 1e3]))
def test_blocks_read_back_are_the_layer_but_for_the_rounding_of_scales(kind, seed, spread):
    layer = draw_layer(kind, seed, spread)
    back = gguf.dequantize(blocks.of_integers(layer), gguf.GGMLQuantizationType[kind])
    weight, step = layer.dequantize().numpy(), layer.scales().repeat_interleave(32, 1).numpy()
    budget = {
        "Q8_0": np.maximum(np.abs(weight) * TEN_BITS, 128 * SMALL),
        "Q4_0": 0,
        "Q4_1": np.maximum(15 * step * TEN_BITS, SMALL),
    }
    assert (np.abs(back - weight) <= 1.001 * budget[kind]).all()


def test_what_rounding_costs_in_q4_1_is_the_same_for_a_whole_block():
    layer = draw_layer("Q4_1", 1)
    back = torch.from_numpy(
        gguf.dequantize(blocks.of_integers(layer), gguf.GGMLQuantizationType.Q4_1)
    )
    moved = (back - layer.dequantize()).unflatten(1, (-1, 32))
    assert moved.abs().max() > 1e-4
    torch.testing.assert_close(moved, moved[..., :1].expand_as(moved), rtol=0, atol=1e-6)


def test_scales_that_are_float16_already_stay_as_they_are():
    weight = torch.randn(5, 64)
    layer = QuantizedLinear(weight, bits=8, group_size=32, activations=8)
    back = gguf.dequantize(blocks.of_integers(layer), gguf.GGMLQuantizationType.Q8_0)
    np.testing.assert_array_equal(back, layer.dequantize().numpy())


def test_negative_scales_and_the_lowest_integers_are_kept():
    q = torch.arange(-8, 8).repeat(2)[None]
    for scale, zero in ((-0.5, None), (0.25, 7), (0.25, -8)):
        zero = None if zero is None else torch.tensor([[zero]])
        layer = QuantizedLinear.from_integers(q, torch.tensor([[scale]]), zero, 4)
        kind = gguf.GGMLQuantizationType[blocks.kind_of(layer)]
        back = gguf.dequantize(blocks.of_integers(layer), kind)
        np.testing.assert_array_equal(back, layer.dequantize().numpy())


@pytest.mark.parametrize("size", [None, 64])
def test_a_wider_group_says_its_scale_in_each_block(size):
    layer = QuantizedLinear(torch.randn(5, 128), bits=4, group_size=size)
    back = gguf.dequantize(blocks.of_integers(layer), gguf.GGMLQuantizationType.Q4_0)
    np.testing.assert_array_equal(back, layer.dequantize().numpy())


@pytest.mark.parametrize("kind", HOW)
def test_floats_are_rounded_by_ggmls_own_rule_zeros_and_tiny_ones_too(kind):
    weight = torch.randn(4, 64)
    weight[1], weight[2, :32], weight[3, 5] = 0, 1e-40, 60000
    own = gguf.GGMLQuantizationType[kind]
    got = blocks.of_floats(weight, kind)
    np.testing.assert_array_equal(got[0], gguf.quantize(weight[:1].numpy(), own)[0])
    back = torch.from_numpy(gguf.dequantize(got, own))
    assert not back[1].any() and not back[2, :32].any() and back[2, 32:].any()
    assert back[3, 5] == pytest.approx(60000, rel=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_transformers_reads_the_same_model_back(kind, tokenizer, path):
    model = quantized(kind, embeddings=8)
    deployment.save_gguf(model, tokenizer, path, kind)
    with models._no_progress_bars():
        back = transformers.LlamaForCausalLM.from_pretrained(path.parent, gguf_file=path.name)
    ids = torch.tensor([tokenizer(data.load_speeches("test")["text"][0][:500])["input_ids"]])
    with torch.no_grad():
        got, want = (one.eval()(ids).logits for one in (back, model))
    # The bundled weights are float16; elsewhere the table's scales were float32.
    assert (got - want).norm() <= (1e-6 if kind == "F16" else 1e-3) * want.norm()
    for name in ("num_attention_heads", "rope_parameters", "rms_norm_eps", "eos_token_id"):
        assert getattr(back.config, name) == pytest.approx(getattr(model.config, name))


def test_where_all_scales_are_float16_the_logits_are_the_very_same(tokenizer, path):
    model, ids = quantized("Q4_0"), torch.arange(1, 65)[None]
    deployment.save_gguf(model, tokenizer, path, "Q4_0")
    with models._no_progress_bars():
        back = transformers.LlamaForCausalLM.from_pretrained(path.parent, gguf_file=path.name)
    with torch.no_grad():
        torch.testing.assert_close(back.eval()(ids).logits, model(ids).logits, rtol=0, atol=1e-4)


def test_transformers_reads_the_tokenizer_back(tokenizer, path):
    deployment.save_gguf(quantized("F16"), tokenizer, path)
    back = transformers.AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    for text in data.load_speeches("test")["text"][:3]:
        assert back(text)["input_ids"] == tokenizer(text)["input_ids"]


@pytest.mark.parametrize("kind", HOW)
def test_a_model_in_floats_is_rounded_here_and_its_table_to_8_bits(kind, tokenizer, path):
    model = small(tie_word_embeddings=True)
    deployment.save_gguf(model, tokenizer, path, kind)
    kinds = {name: own for name, _, own, _ in deployment.gguf_summary(path)["tensors"]}
    assert kinds.pop("token_embd.weight") == "Q8_0"
    assert {own for name, own in kinds.items() if "norm" in name} == {"F32"}
    assert {own for name, own in kinds.items() if "norm" not in name} == {kind}
    own = gguf.GGMLQuantizationType[kind]
    up = model.model.layers[0].mlp.up_proj.weight.detach().numpy()
    want = gguf.dequantize(gguf.quantize(up, own), own)
    np.testing.assert_array_equal(read(path)["blk.0.ffn_up.weight"].numpy(), want)


def test_what_a_quantized_model_keeps_in_floats_stays_so_and_8_bits_may_stand_by_4(tokenizer, path):
    model = small()
    names = {name: 4 for name in ("up_proj", "gate_proj")} | {"down_proj": 8}
    bits = {f"model.layers.0.mlp.{name}": number for name, number in names.items()}
    quantization.quantize_(model, bits, group_size=32)
    deployment.save_gguf(model, tokenizer, path, "Q4_0")
    kinds = {name: own for name, _, own, _ in deployment.gguf_summary(path)["tensors"]}
    assert kinds["blk.0.ffn_up.weight"] == kinds["blk.0.ffn_gate.weight"] == "Q4_0"
    assert kinds["blk.0.ffn_down.weight"] == "Q8_0"
    assert kinds["blk.0.attn_q.weight"] == kinds["token_embd.weight"] == "F16"
    assert kinds["output.weight"] == "F16"  # tied to nothing, so it stands there


def test_rows_of_queries_and_keys_move_with_their_scales(tokenizer, path):
    model = quantized("Q8_0")
    deployment.save_gguf(model, tokenizer, path, "Q8_0")
    layer = model.model.layers[1].self_attn.k_proj
    heads = layer.dequantize().view(4, 2, 16, 128)  # heads, halves of a head, pairs
    got = read(path)["blk.1.attn_k.weight"].view(4, 16, 2, 128)
    torch.testing.assert_close(got, heads.transpose(1, 2), rtol=TEN_BITS, atol=128 * SMALL)


def test_the_summary_counts_every_byte(tokenizer, path):
    deployment.save_gguf(quantized("Q4_1", embeddings=8), tokenizer, path, "Q4_1")
    held = deployment.gguf_summary(path)
    padded = [-(-size // held["alignment"]) * held["alignment"] for *_, size in held["tensors"]]
    assert held["data_offset"] + sum(padded) == held["bytes"] == path.stat().st_size
    assert held["version"] == 3 and len(held["tensors"]) == 1 + 4 * 9 + 1
    shapes = {name: (shape, kind, size) for name, shape, kind, size in held["tensors"]}
    assert shapes["token_embd.weight"] == ((2048, 128), "Q8_0", 2048 * 128 // 32 * 34)
    assert shapes["blk.3.ffn_down.weight"] == ((128, 384), "Q4_1", 128 * 384 // 32 * 20)
    assert shapes["output_norm.weight"] == ((128,), "F32", 128 * 4)


def test_the_metadata_tell_the_models_shape_and_tokens(tokenizer, path):
    deployment.save_gguf(quantized("F16"), tokenizer, path)
    told = deployment.gguf_summary(path)["metadata"]
    assert told["general.architecture"] == "llama" and told["general.name"] == "model"
    assert told["llama.block_count"] == 4 and told["llama.embedding_length"] == 128
    assert told["llama.feed_forward_length"] == 384 and told["llama.context_length"] == 512
    assert told["llama.attention.head_count"] == told["llama.attention.head_count_kv"] == 4
    assert told["tokenizer.ggml.pre"] == "gpt-2" and told["tokenizer.ggml.tokens"] == 2048
    assert told["tokenizer.ggml.eos_token_id"] == told["tokenizer.ggml.bos_token_id"] == 0
    assert "tokenizer.chat_template" not in told


def with_cut(tokenizer, *steps):
    """Return a copy of a tokenizer that cuts texts by other steps."""
    other = copy.deepcopy(tokenizer)
    steps = [*steps, tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)]
    other.backend_tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(steps)
    return other


def test_digits_one_by_one_are_told_and_so_is_a_chat_template(tokenizer, path):
    digits = tokenizers.pre_tokenizers.Digits(individual_digits=True)
    other = with_cut(tokenizer, digits)
    other.chat_template = "{{ messages[0]['content'] }}"
    deployment.save_gguf(small(), other, path)
    told = deployment.gguf_summary(path)["metadata"]
    assert told["tokenizer.ggml.pre"] == "smollm"
    assert told["tokenizer.chat_template"] == other.chat_template


def test_smollm2s_file_tells_what_the_file_it_came_from_told():
    (source,) = assets.path("smollm2").glob("*.gguf")
    theirs = deployment.gguf_summary(source)["metadata"]
    tokenizer = models.load_smollm2_tokenizer()
    config = transformers.LlamaConfig.from_pretrained(tokenizer.name_or_path)
    ours = gguf_metadata.of_model(config, "Q4_1") | gguf_metadata.of_tokenizer(tokenizer, config)
    ours = {key: len(value) if isinstance(value, list) else value for key, value in ours.items()}
    same = ours.keys() & theirs.keys()
    assert len(same) == 25
    # float32 there, and more digits here
    assert {key: theirs[key] for key in same} == {key: pytest.approx(ours[key]) for key in same}


def change_shape(model):
    first = model.model.layers[0].mlp
    mask = torch.arange(first.up_proj.out_features) < 64
    pruning.remove_neurons_(model, {"model.layers.0.mlp": mask})


def put(name, value):
    def change(model):
        with torch.no_grad():
            model.get_submodule(name).weight[0, 0] = value

    return change


def add_bias(model):
    layer = model.model.layers[0].mlp.up_proj
    layer.bias = nn.Parameter(torch.zeros(layer.out_features))


UP = "model.layers.0.mlp.up_proj"
REFUSED = {  # what is done to a small Llama, the kind, and what is said
    "no such kind": (lambda m: None, "Q5_0", "kind is 'Q5_0'; one of .* is wanted"),
    "bits": (lambda m: quantization.quantize_(m, 3), "Q4_0", "has 3 bits without zero points"),
    "zero points": (
        lambda m: quantization.quantize_(m, 8, 32, symmetric=False),
        "Q8_0",
        "has 8 bits with zero points; 8 without, or 4, are wanted",
    ),
    "group size": (
        lambda m: quantization.quantize_(m, 4, 16),
        "Q4_0",
        "layer .*q_proj: its group_size is 16; a multiple of 32 is wanted",
    ),
    "another kind": (
        lambda m: quantization.quantize_(m, 4, 32),
        "Q4_1",
        "its integers fit Q4_0, but kind is 'Q4_1'; kind='Q4_0' is wanted",
    ),
    "4 bits where 8 are asked for": (
        lambda m: quantization.quantize_(m, 4, 32),
        "Q8_0",
        "its integers fit Q4_0, but kind is 'Q8_0'",
    ),
    "8 bits where 4 are asked for": (
        lambda m: quantization.quantize_(m, 8, 32),
        "Q4_0",
        "kind is 'Q4_0', which no layer has; kind='Q8_0' is wanted",
    ),
    "integers as floats": (lambda m: quantization.quantize_(m, 8, 32), "F16", "dequantize_"),
    "a LoRA": (lora.add_lora_, "F16", "is a LoRALinear; a Linear, or one of integers, is wanted"),
    "outliers in floats": (
        lambda m: layers.replace_(m, UP, SplitLinear(m.get_submodule(UP).weight, outliers=[3])),
        "Q8_0",
        f"layer {UP} is a SplitLinear",
    ),
    "blocks of several shapes": (change_shape, "F16", "a file tells one shape for all blocks"),
    "a bias": (add_bias, "F16", f"layer {UP} has a bias; none is wanted"),
    "NaN": (put(UP, torch.nan), "Q4_0", f"layer {UP}: it holds NaN or infinity"),
    "too large": (put(UP, 1e5), "F16", f"layer {UP}: it reaches 1e.05, which no float16 holds"),
    "scales too large": (
        lambda m: (put(UP, 1e8)(m), quantization.quantize_(m, 8, 32)),
        "Q8_0",
        f"layer {UP}: its scales reach .*, which no float16 holds",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused_before_anything_is_written(case, tokenizer, path):
    change, kind, said = REFUSED[case]
    model = small(num_hidden_layers=2)
    change(model)
    with pytest.raises(ValueError, match=said):
        deployment.save_gguf(model, tokenizer, path, kind)
    assert not list(path.parent.iterdir())


SHAPES = {
    "width": ({"hidden_size": 48}, "Q8_0", "it is 48 columns wide; a multiple of 32 is wanted"),
    "activation": ({"hidden_act": "gelu"}, "F16", "hidden_act 'gelu'; 'silu' is wanted"),
    "biases": ({"attention_bias": True}, "F16", "q_proj has a bias; none is wanted"),
    "positions": (
        {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}},
        "F16",
        "rotary positions of type 'linear'; 'default' is wanted",
    ),
    "tokens": ({"vocab_size": 2050}, "F16", "tokenizer has 2048 tokens; the model's 2050 are"),
}


@pytest.mark.parametrize("case", SHAPES)
def test_a_llama_that_the_file_cannot_describe_is_refused(case, tokenizer, path):
    changes, kind, said = SHAPES[case]
    with pytest.raises(ValueError, match=said):
        deployment.save_gguf(small(**changes), tokenizer, path, kind)
    assert not list(path.parent.iterdir())


@pytest.mark.parametrize("size", ["gpt2", "moe"])
def test_another_architecture_is_refused(size, tokenizer, path):
    with pytest.raises(ValueError, match="a LlamaForCausalLM is wanted"):
        deployment.save_gguf(models.load_tiny_lm(size), tokenizer, path)
    with pytest.raises(ValueError, match="model is a Linear; a LlamaForCausalLM is wanted"):
        deployment.save_gguf(nn.Linear(2, 2), tokenizer, path)


def word_piece():
    words = tokenizers.Tokenizer(tokenizers.models.WordPiece({"a": 0}, unk_token="a"))
    return transformers.PreTrainedTokenizerFast(tokenizer_object=words)


def with_start(tokenizer):
    other = copy.deepcopy(tokenizer)
    single = tokenizers.processors.TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)]
    )
    other.backend_tokenizer.post_processor = single
    return other


TOKENIZERS = {
    "tokenizer is a str; a fast tokenizer": lambda own: "gpt2",
    "tokenizer is a WordPiece .*; byte-level BPE alone is wanted": lambda own: word_piece(),
    "tokenizer adds the tokens .0. to a text": with_start,
    "tokenizer cuts by .*; single Digits, or none": lambda own: with_cut(
        own, tokenizers.pre_tokenizers.Digits()
    ),
    "tokenizer does not cut as GPT-2's": lambda own: _cut_at_spaces(own),
}


def _cut_at_spaces(tokenizer):
    other = copy.deepcopy(tokenizer)
    other.backend_tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    return other


@pytest.mark.parametrize("said", TOKENIZERS)
def test_another_kind_of_tokenizer_is_refused(said, tokenizer, path):
    with pytest.raises(ValueError, match=said):
        deployment.save_gguf(small(), TOKENIZERS[said](tokenizer), path)
    assert not list(path.parent.iterdir())


def test_a_file_is_replaced_whole_or_not_at_all(tokenizer, path, monkeypatch):
    deployment.save_gguf(small(), tokenizer, path)
    before = path.read_bytes()

    def fail(writer):
        raise OSError("the disk is gone")

    monkeypatch.setattr(gguf.GGUFWriter, "write_tensors_to_file", fail)
    with pytest.raises(OSError, match="the disk is gone"):
        deployment.save_gguf(small(num_hidden_layers=2), tokenizer, path)
    assert path.read_bytes() == before and list(path.parent.iterdir()) == [path]


def test_a_saved_model_and_its_configuration_are_unchanged(tokenizer, path):
    model = quantized("Q4_0", small())
    before = copy.deepcopy(model.state_dict()), model.config.to_dict()
    assert deployment.save_gguf(model, tokenizer, path, "Q4_0") == path
    assert model.config.to_dict() == before[1]
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[0][name])


def test_paths_are_checked(tokenizer, tmp_path):
    with pytest.raises(ValueError, match="path is the folder"):
        deployment.save_gguf(small(), tokenizer, tmp_path)
    with pytest.raises(ValueError, match=re.escape("path is empty")):
        deployment.gguf_summary("")
    (tmp_path / "other").write_bytes(b"no model" * 8)
    with pytest.raises(ValueError, match="GGUF"):
        deployment.gguf_summary(tmp_path / "other")
