"""Quantized models on disk: bit for bit, what is shared once, and never into another model."""

import copy
import json

import pytest
import torch
from torch import nn

from lightcourse import files, layers, metrics, quantization
from lightcourse.quantization.saved import _move
from tests import toys

FORMS = [
    {"bits": 8},
    {"bits": 8, "embeddings": 8, "activations": 8},
    {"bits": 4, "group_size": 8, "symmetric": False, "embeddings": 4},
    {"bits": 6, "group_size": 4, "symmetric": False},
    {"bits": 3, "embeddings": 5, "skip": []},
]


def bits_of(tensor):
    return tensor.contiguous().view(torch.uint8) if tensor.ndim else tensor.view(1)


def fresh(family):
    """The same architecture with other weights."""
    model = toys.ALL[family]()
    for parameter in model.parameters():
        parameter.data = torch.randn_like(parameter)
    return model


def assert_same(model, other):
    state, wanted = other.state_dict(), model.state_dict()
    assert list(state) == list(wanted)
    for name, tensor in wanted.items():
        assert state[name].dtype == tensor.dtype
        assert torch.equal(bits_of(state[name]), bits_of(tensor)), name
    assert str(other) == str(model)
    assert metrics.size_in_bytes(other) == metrics.size_in_bytes(model)


@pytest.mark.parametrize("family", toys.ALL)
@pytest.mark.parametrize("how", FORMS)
def test_models_come_back_bit_for_bit(tmp_path, family, how):
    model, other = toys.ALL[family](), fresh(family)
    quantization.quantize_(model, **how)
    path = quantization.save_quantized(model, tmp_path / "m.safetensors")
    report = quantization.load_quantized_(other, path)
    assert_same(model, other)
    assert torch.equal(toys.logits(other), toys.logits(model))
    assert report.total == metrics.size_in_bytes(model)
    for name, table in layers.tied_layers(toys.ALL[family]()).items():
        head, table = other.get_submodule(name), other.get_submodule(table)
        if "embeddings" in how:
            assert head.qweight is table.qweight
        else:
            assert head.weight is table.weight


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_parts_stay_what_they_are(tmp_path, dtype):
    model, other, same = toys.llama().to(dtype), toys.llama(), toys.llama().to(dtype)
    model.model.norm.weight.data[0] = -0.0
    quantization.quantize_(model, embeddings=8)
    path = quantization.save_quantized(model, tmp_path / "m")
    for target in (other, same):
        quantization.load_quantized_(target, path)
        assert_same(model, target)
    assert torch.equal(toys.logits(same), toys.logits(model))
    assert other.lm_head.dtype == other.model.embed_tokens.dtype == dtype
    quantization.dequantize_(other)
    assert other.lm_head.weight.dtype == dtype


def test_static_grids_and_mixed_bits_are_kept(tmp_path):
    model, other = toys.gpt2(), fresh("gpt2")
    ranges = quantization.calibrate(model, [{"input_ids": torch.arange(1, 17).view(2, 8)}])
    names = list(layers.linear_layers(model))
    bits = {name: 3 + number % 6 for number, name in enumerate(names[:-1])}
    quantization.quantize_(model, bits, activations=8, activation_ranges=ranges)
    quantization.load_quantized_(other, quantization.save_quantized(model, tmp_path / "m"))
    assert_same(model, other)
    assert type(other.get_submodule(names[-1])).__name__ == "Conv1D"
    assert torch.equal(toys.logits(other), toys.logits(model))


def test_the_header_names_each_layer(tmp_path):
    model = toys.llama()
    quantization.quantize_(model, 4, 8, None, False, 8)
    _, metadata = files.load_tensors(quantization.save_quantized(model, tmp_path / "m"))
    notes = json.loads(metadata["quantized"])["layers"]
    assert len(notes) == 23
    assert notes["model.layers.0.mlp.up_proj"] == {
        "kind": "linear",
        "out_features": 32,
        "in_features": 16,
        "bits": 4,
        "group_size": 8,
        "symmetric": False,
        "activations": None,
        "dtype": "float32",
    }
    assert notes["model.embed_tokens"]["kind"] == "embedding"
    assert notes["model.embed_tokens"]["symmetric"] is True


def test_the_file_is_as_large_as_the_model_and_always_the_same(tmp_path):
    paths = []
    for name in "ab":
        model = toys.llama()
        quantization.quantize_(model, embeddings=8)
        paths.append(quantization.save_quantized(model, tmp_path / name))
    assert paths[0].read_bytes() == paths[1].read_bytes()
    tensors, metadata = files.load_tensors(paths[0])
    assert sum(tensor.nbytes for tensor in tensors.values()) == metrics.size_in_bytes(model)
    assert list(metadata) == ["quantized"]


def test_a_quantized_model_takes_other_integers(tmp_path):
    model, other = toys.llama(), fresh("llama")
    quantization.quantize_(model, bits=4)
    quantization.quantize_(other, bits=8, activations=8)
    quantization.load_quantized_(other, quantization.save_quantized(model, tmp_path / "m"))
    assert_same(model, other)


@pytest.mark.parametrize("bits, static", [(8, False), (6, False), (8, True)])
def test_groups_for_integer_kernels_are_kept(tmp_path, bits, static):
    model, other = (torch.nn.Sequential(torch.nn.Linear(64, 20)) for _ in range(2))
    ranges = {"activation_ranges": {"0": (-3.0, 3.0)}} if static else {}
    quantization.quantize_(model, bits, 32, 8, **ranges)
    quantization.load_quantized_(other, quantization.save_quantized(model, tmp_path / "m"))
    assert_same(model, other)
    x = torch.randn(3, 64)
    assert torch.equal(other(x), model(x))
    quantization.dequantize_(other)
    assert torch.equal(other[0].weight, model[0].dequantize())


@pytest.mark.parametrize("how", [{"group_size": 8}, {"activations": 8}])
def test_an_equally_quantized_twin_takes_the_state_dict(tmp_path, how):
    model, twin = toys.llama(), fresh("llama")
    for either in (model, twin):
        quantization.quantize_(either, bits=4, **how)
    state = {k: v for k, v in model.state_dict().items() if k != "lm_head.weight"}
    files.save_tensors(state, tmp_path / "m.safetensors")
    loaded, _ = files.load_tensors(tmp_path / "m.safetensors")
    twin.load_state_dict(loaded, strict=False)
    assert torch.equal(toys.logits(model), toys.logits(twin))


def test_training_mode_and_other_tensors_stand_for_themselves(tmp_path):
    model, other = toys.bert(), toys.bert().train()
    quantization.quantize_(model)
    quantization.load_quantized_(other, quantization.save_quantized(model, tmp_path / "m"))
    assert all(module.training for module in other.modules())
    assert not any(module.training for module in model.modules())
    with torch.no_grad():
        other.encoder.embeddings.LayerNorm.weight.add_(1)
    assert not torch.equal(
        other.encoder.embeddings.LayerNorm.weight, model.encoder.embeddings.LayerNorm.weight
    )


def test_a_model_without_integers_is_not_saved(tmp_path):
    with pytest.raises(ValueError, match="model stores no integers"):
        quantization.save_quantized(toys.llama(), tmp_path / "m")
    assert not list(tmp_path.iterdir())


def state_of(model):
    return {name: (id(tensor), tensor.clone()) for name, tensor in model.named_parameters()}


def assert_untouched(model, before):
    now = dict(model.named_parameters())
    assert now.keys() == before.keys()
    assert all(id(now[n]) == i and torch.equal(now[n], t) for n, (i, t) in before.items())


def saved(folder, model, **how):
    quantization.quantize_(model, **how)
    return quantization.save_quantized(model, folder / "m.safetensors")


def three(first, last):
    return nn.Sequential(first, nn.ReLU(), last)


@pytest.mark.parametrize(
    "source, target, message",
    [
        (toys.llama(), toys.gpt2(), "this one has no model.layers.0.self_attn.q_proj"),
        (toys.mlp(), toys.bert(), "this one has no 0"),
        (toys.bert(3), toys.bert(4), r"head is linear of shape \(3, 16\), with bias there"),
        (
            toys.mlp(),
            three(nn.Linear(8, 12), nn.Linear(12, 5)),
            r"2 is linear of shape \(4, 12\), with bias there and linear of shape \(5, 12\)",
        ),
        (
            toys.mlp(),
            three(nn.Linear(8, 12, bias=False), nn.Linear(12, 4)),
            "with bias there and linear of shape .*, without bias here",
        ),
        (
            toys.mlp(),
            three(nn.Embedding(12, 8), nn.Linear(12, 4)),
            "0 is linear of shape .* there and a table of shape",
        ),
        (toys.mlp(), three(nn.ReLU(), nn.Linear(12, 4)), "0 is linear of .* and a ReLU here"),
    ],
)
def test_other_models_are_refused_and_left_as_they_were(tmp_path, source, target, message):
    path, model = saved(tmp_path, copy.deepcopy(source)), target
    before = state_of(model)
    with pytest.raises(ValueError, match=f"belongs to another model: .*{message}"):
        quantization.load_quantized_(model, path)
    assert_untouched(model, before)


def test_other_tensors_that_do_not_fit_are_refused(tmp_path):
    path = saved(tmp_path, nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3)))
    for norm, message in [
        (nn.ReLU(), "only one of the two has 1.bias"),
        (nn.LayerNorm(5), r"1.weight has shape \(3,\) there and \(5,\) here"),
    ]:
        model = nn.Sequential(nn.Linear(4, 3), norm)
        before = state_of(model)
        with pytest.raises(ValueError, match=message):
            quantization.load_quantized_(model, path)
        assert_untouched(model, before)


def test_tables_that_are_tied_in_one_of_the_two_are_refused(tmp_path):
    untied = toys.llama()
    untied.lm_head.weight = nn.Parameter(torch.randn(50, 16))
    path = saved(tmp_path, untied, skip=["lm_head"])
    with pytest.raises(ValueError, match="lm_head.weight and model.embed_tokens.weight are one"):
        quantization.load_quantized_(toys.llama(), path)


def test_foreign_and_damaged_files_are_refused(tmp_path):
    model = toys.mlp()
    before = state_of(model)
    foreign = files.save_tensors(model.state_dict(), tmp_path / "foreign")
    text = tmp_path / "text"
    text.write_text("no tensors here")
    for path in (foreign, text):
        with pytest.raises(ValueError, match="no quantized checkpoint"):
            quantization.load_quantized_(model, path)
    tensors, metadata = files.load_tensors(saved(tmp_path, toys.mlp()))
    del tensors["2.scale"]
    damaged = files.save_tensors(tensors, tmp_path / "damaged", metadata)
    with pytest.raises(ValueError, match="damaged: it holds no integers or no scales for 2"):
        quantization.load_quantized_(model, damaged)
    with pytest.raises(FileNotFoundError):
        quantization.load_quantized_(model, tmp_path / "missing")
    assert_untouched(model, before)


def test_a_loaded_model_no_longer_reads_its_file(tmp_path):
    model, path = toys.llama(), tmp_path / "model.safetensors"
    quantization.quantize_(model)
    quantization.save_quantized(model, path)
    fresh = toys.llama()
    quantization.load_quantized_(fresh, path)
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(bytes(path.stat().st_size // 2))
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, fresh.state_dict()[name]), name


def test_layers_move_to_another_device_together():
    model = toys.llama()
    quantization.quantize_(model, embeddings=8)
    new = {name: model.get_submodule(name) for name in ("lm_head", "model.embed_tokens")}
    _move(toys.llama().to("meta"), new)
    assert model.lm_head.qweight.is_meta
    assert model.lm_head.qweight is model.model.embed_tokens.qweight
