"""quantize_ and dequantize_ on whole models: what is converted, shared, skipped and refused."""

import pytest
import torch
import transformers
from torch import nn

from lightcourse import layers, lora, metrics, quantization
from tests import toys

TABLES = {
    "bert": [
        f"encoder.embeddings.{kind}_embeddings" for kind in ("word", "position", "token_type")
    ],
    "gpt2": ["transformer.wte", "transformer.wpe"],
    "llama": ["model.embed_tokens"],
}
RANGES = {"0": (0.0, 1.0), "2": (0.0, 1.0)}
IDS = torch.arange(1, 17).view(2, 8)
TABLE = "an embedding table; embeddings=8 would convert it"


def batch():
    return {"input_ids": IDS, "attention_mask": torch.ones_like(IDS)}


def distance(model, before):
    return (toys.logits(model) - before).abs().max() / before.abs().max()


@pytest.mark.parametrize("family", toys.ALL)
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [8, 4])
def test_every_linear_layer_of_every_family_is_converted(family, bits, symmetric):
    model = toys.ALL[family]()
    names = list(layers.linear_layers(model))
    before, size = toys.logits(model), metrics.size_in_bytes(model)
    report = quantization.quantize_(model, bits=bits, group_size=8, symmetric=symmetric)
    assert list(report.changed) == names
    assert size - metrics.size_in_bytes(model) == report.total
    assert 0 < distance(model, before) < {8: 0.05, 4: 0.8}[bits]
    assert all(model.get_submodule(name).symmetric is symmetric for name in names)


@pytest.mark.parametrize("family", toys.ALL)
@pytest.mark.parametrize("bits", [8, 4])
def test_every_family_runs_on_integer_kernels(family, bits):
    model = toys.ALL[family]()
    before = toys.logits(model)
    quantization.quantize_(model, bits=bits, activations=8, symmetric=bits == 8)
    assert 0 < distance(model, before) < {8: 0.08, 4: 1.0}[bits]


@pytest.mark.parametrize("family", toys.ALL)
@pytest.mark.parametrize(
    "how",
    [
        {"embeddings": 8},
        {"embeddings": 8, "activations": 8},
        {"embeddings": 4, "group_size": 8, "symmetric": False},
        {"bits": 4, "group_size": 8, "embeddings": 8},
    ],
)
def test_tables_and_the_output_layers_that_share_them(family, how):
    model = toys.ALL[family]()
    tied, linear = layers.tied_layers(model), layers.linear_layers(model)
    before, size = toys.logits(model), metrics.size_in_bytes(model)
    report = quantization.quantize_(model, **how)
    assert set(report.changed) == {*linear, *tied, *TABLES[family]} and not report.skipped
    assert size - metrics.size_in_bytes(model) == report.total
    assert 0 < distance(model, before) < 0.3
    for name in TABLES[family]:
        table = model.get_submodule(name)
        assert isinstance(table, quantization.QuantizedEmbedding) and table.bits in (4, 8)
    for name, table in tied.items():
        head, table = model.get_submodule(name), model.get_submodule(table)
        assert isinstance(head, quantization.QuantizedLinear)
        assert head.qweight is table.qweight and head.scale is table.scale
        assert report.changed[name] == 0


def test_eight_bit_tables_have_one_scale_a_row_whatever_the_groups():
    model = toys.llama()
    quantization.quantize_(model, 4, 32 // 4, None, False, 8)
    assert model.model.embed_tokens.scales().shape == (50, 1)
    assert model.model.embed_tokens.symmetric and model.lm_head.symmetric
    assert model.model.layers[0].mlp.up_proj.scales().shape == (32, 2)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("how", [{}, {"activations": 8}])
def test_quantized_language_models_still_write(family, how):
    model = toys.ALL[family]()
    quantization.quantize_(model, embeddings=8, **how)
    settings = {"max_new_tokens": 5, "do_sample": False, "pad_token_id": 0}
    written = model.generate(input_ids=IDS, attention_mask=torch.ones_like(IDS), **settings)
    assert written.shape == (2, 13) and torch.equal(written[:, :8], IDS)
    half = model.to(torch.bfloat16)
    assert toys.logits(half).dtype == torch.bfloat16


def test_padding_idx_is_kept_there_and_back():
    model = toys.llama()
    assert model.model.embed_tokens.padding_idx == 0
    quantization.quantize_(model, embeddings=8)
    assert model.model.embed_tokens.padding_idx == 0
    quantization.dequantize_(model)
    assert model.model.embed_tokens.padding_idx == 0


def test_tables_are_skipped_and_named_together_with_what_shares_them():
    model = toys.gpt2()
    report = quantization.quantize_(model)
    assert report.skipped == {
        "transformer.wte": TABLE,
        "transformer.wpe": TABLE,
        "lm_head": "shares its weight with transformer.wte",
    }
    assert model.lm_head.weight is model.transformer.wte.weight


def test_a_weight_that_is_read_both_ways_round_is_left():
    conv1d = transformers.pytorch_utils.Conv1D(4, 4)
    model = nn.Sequential(nn.Linear(4, 4), conv1d, nn.Linear(4, 4))
    model[0].weight = conv1d.weight
    report = quantization.quantize_(model)
    assert list(report.changed) == ["2"]
    assert report.skipped == {"0": "shares its weight with 1", "1": "shares its weight with 0"}


def test_a_layer_that_stands_twice_is_converted_in_both_places():
    model = nn.Module()
    model.first = nn.Sequential(nn.Linear(4, 4))
    model.second = nn.Sequential(model.first[0])
    quantization.quantize_(model)
    assert isinstance(model.second[0], quantization.QuantizedLinear)
    assert model.first[0] is model.second[0]


def test_tables_with_ways_of_their_own_are_left_and_named():
    class Shifted(nn.Embedding):
        def forward(self, ids):
            return super().forward(ids + 2)

    model = nn.ModuleDict(
        {
            "shifted": Shifted(9, 4),
            "shrunk": nn.Embedding(9, 4, max_norm=1.0),
            "plain": nn.Embedding(9, 4),
        }
    )
    report = quantization.quantize_(model, embeddings=8)
    assert list(report.changed) == ["plain"]
    assert report.skipped == {
        "shifted": "a Shifted that looks rows up in its own way",
        "shrunk": "a Embedding that looks rows up in its own way",
    }


def test_bits_by_name():
    model = toys.llama()
    names = ["model.layers.0.mlp.up_proj", "model.layers.2.self_attn.q_proj"]
    report = quantization.quantize_(model, {names[0]: 3, names[1]: 8, "model.embed_tokens": 4})
    assert [model.get_submodule(name).bits for name in names] == [3, 8]
    assert model.model.embed_tokens.bits == model.lm_head.bits == 4
    assert set(report.changed) == {*names, "model.embed_tokens", "lm_head"}
    left = layers.linear_layers(model)
    assert len(left) == 19 and report.skipped == dict.fromkeys(left, "not named in bits")


def test_bits_by_name_beside_bits_for_all_tables():
    model = toys.gpt2()
    report = quantization.quantize_(model, {"transformer.wpe": 4}, embeddings=8)
    assert (model.transformer.wte.bits, model.transformer.wpe.bits) == (8, 4)
    assert model.lm_head.bits == 8
    assert list(report.changed) == ["transformer.wte", "lm_head", "transformer.wpe"]


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"bits": {"0": 8, "9": 8}}, r"bits names \['9'\], which are no linear layers"),
        ({"bits": {"0": 17}}, "layer 0: bits is 17"),
        ({"bits": {"0": 0}}, "layer 0: bits is 0"),
        ({"bits": {}}, "nothing was quantized: .*0 and 1 more: not named in bits"),
        ({"skip": ["5"]}, r"skip names \['5'\]"),
        ({"embeddings": 1}, "embeddings is 1; None or a number from 2 to 8"),
        ({"embeddings": True}, "embeddings is True; None or"),
        ({"activations": 4}, "layer 0: activations is 4; None or 8"),
        ({"activations": RANGES}, "layer 0: .*ranges of calibrate go into activation_ranges"),
        ({"activation_ranges": RANGES}, "layer 0: activations is None; with ranges .* 8 is"),
        (
            {"activations": 8, "activation_ranges": {"0": (0.0, 1.0)}},
            "layer 2: activation_ranges lacks it",
        ),
        ({"activations": 8, "activation_ranges": {}}, "layer 0: activation_ranges lacks it"),
        ({"activations": 8, "symmetric": False}, "layer 0: symmetric is False; above 4 bits"),
        ({"group_size": 8}, "layer 2: group_size is 8; a divisor of the 12 columns"),
        ({"group_size": 0}, "layer 0: group_size is 0;"),
        ({"group_size": -1}, "layer 0: group_size is -1;"),
        ({"group_size": 7}, "layer 0: group_size is 7;"),
    ],
)
def test_bad_input_is_refused_and_changes_nothing(arguments, message):
    model = toys.mlp()
    with pytest.raises(ValueError, match=message):
        quantization.quantize_(model, **arguments)
    assert type(model[0]) is type(model[2]) is nn.Linear


@pytest.mark.parametrize("wrong", [0, 1, 9, 17, 2.5, True])
def test_impossible_bits_are_refused(wrong):
    with pytest.raises(ValueError, match=f"bits is {wrong}; a whole number from 2 to 8"):
        quantization.quantize_(toys.mlp(), bits=wrong)


@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
def test_weights_that_are_not_finite_are_refused_by_name(bad):
    model = toys.mlp()
    model[2].weight.data[0, 0] = bad
    with pytest.raises(ValueError, match="layer 2: x holds NaN or infinity"):
        quantization.quantize_(model)
    assert type(model[0]) is nn.Linear


def test_naming_a_shared_output_layer_says_who_decides():
    with pytest.raises(ValueError, match="lm_head shares the bits of model.embed_tokens"):
        quantization.quantize_(toys.llama(), {"lm_head": 8})


@pytest.mark.parametrize("skipped", ["lm_head", "model.embed_tokens"])
def test_skipping_one_owner_of_a_table_leaves_both(skipped):
    model = toys.llama()
    report = quantization.quantize_(model, embeddings=8, skip=[skipped])
    assert model.lm_head.weight is model.model.embed_tokens.weight
    (other,) = {"lm_head", "model.embed_tokens"} - {skipped}
    assert report.skipped == {
        skipped: "named in skip",
        other: f"shares its weight with {skipped}",
    }


def test_skip_leaves_layers_alone():
    model = toys.mlp()
    report = quantization.quantize_(model, skip=["2"])
    assert list(report.changed) == ["0"] and report.skipped == {"2": "named in skip"}
    assert type(model[2]) is nn.Linear


def test_converting_nothing_is_an_error():
    model = toys.llama()
    quantization.quantize_(model, embeddings=8)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(ValueError, match="nothing was quantized: .*22 more: stores integers alr"):
        quantization.quantize_(model, bits=4)
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    for empty in (nn.Sequential(nn.ReLU()), nn.Sequential(nn.LayerNorm(4))):
        with pytest.raises(ValueError, match="nothing was quantized: the model has no linear la"):
            quantization.quantize_(empty)


def test_what_was_left_can_be_converted_later():
    model = toys.mlp()
    quantization.quantize_(model, skip=["0"])
    report = quantization.quantize_(model, bits=4)
    assert list(report.changed) == ["0"]
    assert report.skipped == {"2": "stores integers already"}
    assert (model[0].bits, model[2].bits) == (4, 8)


def test_a_bare_layer_cannot_replace_itself():
    with pytest.raises(ValueError, match="model is itself the Linear to replace"):
        quantization.quantize_(nn.Linear(4, 4))


@pytest.mark.parametrize("family", toys.ALL)
def test_static_activations_come_from_calibration(family):
    model, plain = toys.ALL[family](), toys.ALL[family]()
    before = toys.logits(model)
    ranges = quantization.calibrate(model, [batch()])
    size = metrics.size_in_bytes(model)
    report = quantization.quantize_(model, activations=8, activation_ranges=ranges, embeddings=8)
    quantization.quantize_(plain, embeddings=8)
    assert size - metrics.size_in_bytes(model) == report.total
    assert 0 < distance(model, before) < 0.1
    assert not torch.equal(toys.logits(model), toys.logits(plain))
    for name, (low, high) in ranges.items():
        layer = model.get_submodule(name)
        wanted = quantization.choose_qparams_affine_with_min_max(low, high)
        assert (layer.input_scale, layer.input_zero_point) == wanted


def test_ranges_of_another_text_do_harm():
    model, before = toys.mlp(), None
    x = torch.randn(64, 8)
    before = model(x)
    errors = []
    for text in (x, x / 10):
        twin = toys.mlp()
        ranges = quantization.calibrate(twin, [{"input": text}])
        quantization.quantize_(twin, activations=8, activation_ranges=ranges)
        errors.append((twin(x) - before).square().mean())
    assert errors[1] > 100 * errors[0]


@pytest.mark.parametrize("family", toys.ALL)
@pytest.mark.parametrize(
    "how",
    [{}, {"embeddings": 8}, {"bits": 4, "group_size": 8, "symmetric": False, "embeddings": 4}],
)
def test_floats_again_but_rounded(family, how):
    model = toys.ALL[family]()
    original, size = toys.logits(model), metrics.size_in_bytes(model)
    tied = layers.tied_layers(model)
    saved = quantization.quantize_(model, **how)
    rounded = toys.logits(model)
    report = quantization.dequantize_(model)
    assert report.total == saved.total and report.changed.keys() == saved.changed.keys()
    assert metrics.size_in_bytes(model) == size and layers.tied_layers(model) == tied
    assert torch.allclose(toys.logits(model), rounded, atol=1e-5)
    assert not torch.allclose(toys.logits(model), original, atol=1e-5)
    changed = [model.get_submodule(name) for name in report.changed]
    assert {type(layer) for layer in changed} <= {nn.Linear, nn.Embedding}
    assert not any(p.requires_grad for layer in changed for p in layer.parameters())
    with pytest.raises(ValueError, match="nothing was dequantized: no layer .* stores integers"):
        quantization.dequantize_(model)


def test_floats_have_the_dtype_that_there_was():
    model = toys.llama().to(torch.bfloat16)
    wanted = {name: tensor.dtype for name, tensor in model.state_dict().items()}
    quantization.quantize_(model, embeddings=8)
    quantization.dequantize_(model)
    assert {name: tensor.dtype for name, tensor in model.state_dict().items()} == wanted


def test_an_update_beside_integers_can_be_merged_once_they_are_floats():
    model = toys.mlp()
    quantization.quantize_(model, bits=4)
    lora.add_lora_(model, rank=2)
    model[0].lora_b.data.normal_()
    x = torch.randn(3, 8)
    wanted = model(x)
    with pytest.raises(ValueError, match="dequantize the layer first"):
        lora.merge_lora_(model)
    quantization.dequantize_(model)
    assert {name.rpartition(".")[2] for name, p in model.named_parameters() if p.requires_grad} == {
        "lora_a",
        "lora_b",
    }
    lora.merge_lora_(model)
    assert type(model[0]) is nn.Linear and torch.allclose(model(x), wanted, atol=1e-5)


def test_quantizing_what_was_rounded_loses_nothing_more():
    model = toys.mlp()
    quantization.quantize_(model)
    once = [layer.integers() for layer in (model[0], model[2])]
    quantization.dequantize_(model)
    quantization.quantize_(model)
    assert all(torch.equal(q, m.integers()) for q, m in zip(once, model[0::2], strict=True))


def test_a_masked_language_model_shares_its_table_with_a_head_that_has_a_bias():
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
    )
    model = transformers.BertForMaskedLM(config).eval()
    model.cls.predictions.bias.data.normal_()
    before = toys.logits(model)
    report = quantization.quantize_(model, embeddings=8)
    assert "cls.predictions.decoder" in report.changed
    assert 0 < distance(model, before) < 0.05


def test_dequantized_layers_run_in_the_dtype_the_model_was_cast_to():
    model = toys.gpt2()
    quantization.quantize_(model)
    model.bfloat16()
    quantization.dequantize_(model)
    assert toys.logits(model).dtype == torch.bfloat16


def test_moving_a_model_keeps_a_table_and_its_output_layer_shared():
    model = toys.llama()
    quantization.quantize_(model, embeddings=8)
    model.to("meta")
    assert model.lm_head.qweight is model.model.embed_tokens.qweight
    assert model.lm_head.qweight.is_meta


def test_a_linear_layer_with_a_forward_of_its_own_is_left_and_named():
    class Louder(nn.Linear):
        def forward(self, x):
            return 10 * super().forward(x)

    model = nn.Sequential(Louder(16, 4), nn.Linear(4, 4))
    report = quantization.quantize_(model)
    assert list(report.changed) == ["1"] and "Louder" in report.skipped["0"]


def test_a_subclass_that_multiplies_as_its_parent_does_is_converted():
    shape = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 1}
    config = transformers.FalconConfig(**shape, num_attention_heads=2)
    model = transformers.FalconForCausalLM(config).eval()
    before = toys.logits(model)
    report = quantization.quantize_(model)
    assert len(report.changed) == 4 and 0 < distance(model, before) < 0.05


def test_a_forward_put_on_one_layer_is_seen():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4))
    model[0].forward = lambda x: x
    model[1].forward = lambda: None
    report = quantization.quantize_(model)
    assert list(report.skipped) == ["0", "1"]


def test_a_weight_that_is_computed_is_left_and_named():
    model = toys.mlp()
    nn.utils.parametrizations.weight_norm(model[0])
    report = quantization.quantize_(model)
    assert list(report.changed) == ["2"] and "computed from other tensors" in report.skipped["0"]


def test_no_bits_for_a_table_are_refused_like_for_a_layer():
    with pytest.raises(ValueError, match="bits is 0"):
        quantization.quantize_(toys.llama(), {"model.embed_tokens": 0})


def test_a_table_behind_its_output_layer_takes_one_scale_a_row():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(32, 20, bias=False)
            self.table = nn.Embedding(20, 32)
            self.table.weight = self.head.weight
            self.body = nn.Linear(32, 32)

    model = Tied()
    quantization.quantize_(model, 4, 32, activations=8, embeddings=8)
    assert model.table.qweight is model.head.qweight


def test_quantizing_twice_says_that_it_was_done():
    model = toys.mlp()
    quantization.quantize_(model)
    with pytest.raises(ValueError, match="nothing was quantized: .*0 and 1 more: stores integers"):
        quantization.quantize_(model)


def test_a_second_call_takes_what_the_first_one_left():
    model = toys.llama()
    quantization.quantize_(model)
    report = quantization.quantize_(model, embeddings=8)
    assert list(report.changed) == ["model.embed_tokens", "lm_head"]


def test_a_model_that_is_itself_one_layer_is_refused_unchanged():
    model = nn.Linear(8, 4)
    before = model.weight.clone()
    with pytest.raises(ValueError, match="model is itself the Linear to replace"):
        quantization.quantize_(model)
    with pytest.raises(ValueError, match="nothing was adapted"):
        lora.add_lora_(model)
    assert torch.equal(model.weight, before) and model.weight.requires_grad


def test_buffers_are_kept_through_a_checkpoint(tmp_path):
    def make():
        return nn.Sequential(nn.Linear(8, 6), nn.BatchNorm1d(6), nn.Linear(6, 4))

    model, x = make(), torch.randn(16, 8)
    model(x)
    quantization.quantize_(model.eval())
    quantization.save_quantized(model=model, path=tmp_path / "q")
    again = make().eval()
    quantization.load_quantized_(model=again, path=tmp_path / "q")
    assert torch.equal(again(x), model(x)) and int(again[1].num_batches_tracked) == 1
