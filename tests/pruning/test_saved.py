"""A pruned checkpoint is smaller, and gives back the same model bit for bit."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lightcourse import files, layers, metrics, models, pruning
from tests import toys


def pruned(model, sparsity):
    pruning.prune_(model, pruning.layer_mask(pruning.magnitude_scores(model), sparsity))
    return model


def bits(tensor):
    kinds = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    return tensor.contiguous().flatten().view(kinds[tensor.element_size()])


def assert_same(one, other):
    first, second = one.state_dict(), other.state_dict()
    assert list(first) == list(second)
    for name, tensor in first.items():
        assert tensor.dtype == second[name].dtype
        assert tensor.shape == second[name].shape
        assert torch.equal(bits(tensor), bits(second[name]))


@pytest.mark.parametrize("family", toys.ALL)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_same_model_bit_for_bit(family, dtype, tmp_path):
    model = pruned(toys.ALL[family](), 0.6).to(dtype)
    pruning.save_pruned(model, tmp_path / "x.safetensors")
    again = toys.ALL[family]()
    for parameter in again.parameters():
        nn.init.zeros_(parameter)
    report = pruning.load_pruned_(again, tmp_path / "x.safetensors")
    assert_same(model, again)
    assert torch.equal(toys.logits(model), toys.logits(again))
    assert layers.tied_layers(again) == layers.tied_layers(model)
    assert report.changed.keys() == model.state_dict().keys()


@given(st.floats(0, 1), st.integers(0, 99), st.sampled_from([torch.float32, torch.float16]))
@settings(max_examples=25)
def test_any_zeros_any_values(tmp_path_factory, sparsity, seed, dtype):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(13, 7), nn.BatchNorm1d(7)).to(dtype)
    weight = model[0].weight.data
    weight[torch.rand(7, 13) < sparsity] = 0
    weight[0, :4] = torch.tensor([-0.0, float("nan"), float("-inf"), 1e-7])
    path = tmp_path_factory.mktemp("any") / "x.safetensors"
    pruning.save_pruned(model, path)
    again = nn.Sequential(nn.Linear(13, 7), nn.BatchNorm1d(7))
    pruning.load_pruned_(again, path)
    assert_same(model, again)


def test_it_is_as_small_as_promised(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(512, 512, bias=False))
    for sparsity in (0.5, 0.7, 0.9):
        pruned(model, sparsity)
        size = pruning.save_pruned(model, tmp_path / "x.safetensors").stat().st_size
        bits_a_weight = 8 * size / 512**2
        assert bits_a_weight == pytest.approx(1 + 32 * (1 - sparsity), abs=0.02)
    dense = files.save_tensors(model.state_dict(), tmp_path / "dense.safetensors")
    assert dense.stat().st_size > 512**2 * 4


def test_a_dense_model_costs_no_more_than_before(tmp_path):
    model = toys.llama()
    path = pruning.save_pruned(model, tmp_path / "x.safetensors")
    tensors, _ = files.load_tensors(path)
    assert sum(tensor.nbytes for tensor in tensors.values()) == metrics.size_in_bytes(model)
    assert "lm_head.weight" not in tensors  # shared: stored once


def test_equal_models_give_equal_files(tmp_path):
    for name in "ab":
        pruning.save_pruned(pruned(toys.gpt2(), 0.5), tmp_path / name)
    assert files.sha256(tmp_path / "a") == files.sha256(tmp_path / "b")


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_lost_heads_and_neurons_come_back_lost(family, tmp_path):
    model = toys.ALL[family]()
    scores = pruning.magnitude_scores(model)
    neurons = pruning.global_mask(pruning.neuron_scores(model, scores), 0.4)
    pruning.remove_neurons_(model, neurons)
    pruning.remove_heads_(model, pruning.layer_mask(pruning.head_scores(model, scores), 0.5))
    pruned(model, 0.5)
    pruning.save_pruned(model, tmp_path / "x.safetensors")
    again = toys.ALL[family]().requires_grad_(False)
    pruning.load_pruned_(again, tmp_path / "x.safetensors")
    assert_same(model, again)
    assert torch.equal(toys.logits(model), toys.logits(again))
    assert repr(model) == repr(again)
    assert not any(p.requires_grad for p in again.parameters())


def test_training_goes_on_with_the_parameters_an_optimizer_knows(tmp_path):
    model = pruned(toys.mlp(), 0.5)
    pruning.save_pruned(model, tmp_path / "x")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    pruning.load_pruned_(model, tmp_path / "x")
    before = model[0].weight.clone()
    model(torch.ones(1, 8)).sum().backward()
    optimizer.step()
    assert not torch.equal(before, model[0].weight)


def test_a_tied_file_in_an_untied_model_shares_nothing(tmp_path):
    pruning.save_pruned(toys.llama(), tmp_path / "x")
    again = toys.llama()
    again.lm_head.weight = nn.Parameter(torch.zeros(50, 16))
    pruning.load_pruned_(again, tmp_path / "x")
    assert torch.equal(again.lm_head.weight, again.model.embed_tokens.weight)
    again.lm_head.weight.data.zero_()
    assert again.model.embed_tokens.weight.any()


def test_files_of_something_else_are_refused(tmp_path):
    pruning.save_pruned(pruned(toys.mlp(), 0.5), tmp_path / "x")
    files.save_tensors(toys.mlp().state_dict(), tmp_path / "other")
    wide = nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 2))
    before = {name: value.clone() for name, value in wide.state_dict().items()}
    with pytest.raises(ValueError, match="no pruned checkpoint"):
        pruning.load_pruned_(wide, tmp_path / "other")
    with pytest.raises(ValueError, match=r"2.weight has shape \(4, 12\) there and \(2, 12\) here"):
        pruning.load_pruned_(wide, tmp_path / "x")
    with pytest.raises(ValueError, match="only one of the two has 0.bias"):
        pruning.load_pruned_(toys.bert(), tmp_path / "x")
    with pytest.raises(FileNotFoundError):
        pruning.load_pruned_(wide, tmp_path / "nowhere")
    assert all(torch.equal(before[name], value) for name, value in wide.state_dict().items())


def test_the_tiny_model_shrinks(tmp_path):
    model = pruned(models.load_tiny_lm("student"), 0.7)
    size = pruning.save_pruned(model, tmp_path / "x").stat().st_size
    dense = files.save_tensors(dict(model.named_parameters()), tmp_path / "dense").stat().st_size
    assert size < 0.6 * dense
