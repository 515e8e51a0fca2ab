"""Layers that share: fewer parameters, the same function as a model built so by hand."""

import copy

import pytest
import torch
from torch import nn

from lightcourse import layers, metrics, pruning, quantization, sharing, surgery
from tests import families, toys

IDS = torch.arange(1, 17).view(2, 8)


def shared(family, groups=1):
    model = toys.ALL[family]()
    sharing.share_layers_(model, groups)
    return model


def stack_of(model):
    return next(iter(surgery.layer_stacks(model).values()))


def by_hand(family):
    """Return a model of which each layer has a copy of the first one's weights."""
    model = toys.ALL[family]()
    stack = stack_of(model)
    for layer in stack:
        layer.load_state_dict(stack[0].state_dict())
    return model


def loss(model):
    return model(input_ids=IDS, attention_mask=torch.ones_like(IDS)).logits.square().sum()


@pytest.mark.parametrize("family", toys.ALL)
def test_layers_that_share_compute_what_copies_do(family):
    model, copies = shared(family), by_hand(family)
    assert torch.equal(toys.logits(model), toys.logits(copies))
    assert not torch.equal(toys.logits(model), toys.logits(toys.ALL[family]()))


@pytest.mark.parametrize("family", toys.ALL)
def test_the_gradient_is_the_sum_over_the_copies(family):
    model, copies = shared(family), by_hand(family)
    loss(model).backward()
    loss(copies).backward()
    for name, parameter in stack_of(model)[0].named_parameters():
        gradients = [layer.get_parameter(name).grad for layer in stack_of(copies)]
        torch.testing.assert_close(parameter.grad, sum(gradients), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", toys.ALL)
def test_parameters_and_bytes_count_once(family):
    model, whole = shared(family), toys.ALL[family]()
    report = sharing.share_layers_(whole)
    assert str(report).startswith(f"shared {len(stack_of(model)) - 1} layer")
    before = sum(p.numel() for p in toys.ALL[family]().parameters())
    assert before - sum(p.numel() for p in model.parameters()) == report.total > 0
    assert metrics.size_in_bytes(toys.ALL[family]()) - metrics.size_in_bytes(model) == (
        4 * report.total
    )
    assert len({id(layer) for layer in stack_of(model)}) == len(stack_of(model))


@pytest.mark.parametrize("groups", [1, 2])
def test_a_cache_of_keys_and_values_stays_right(groups):
    with_cache, without = toys.written(shared("llama", groups), IDS[:1])
    assert torch.equal(with_cache, without)


@pytest.mark.parametrize(
    "groups, wanted",
    [(1, [[0, 1, 2, 3, 4]]), (2, [[0, 1], [2, 3, 4]]), (4, [[0], [1], [2], [3, 4]])],
)
def test_neighbours_share_as_evenly_as_they_can(groups, wanted):
    model = nn.Sequential(nn.ModuleList(nn.Sequential(nn.Linear(4, 4)) for _ in range(5)))
    sharing.share_layers_(model, groups)
    owners = [id(layer[0].weight) for layer in model[0]]
    found = [[i for i, one in enumerate(owners) if one == owner] for owner in dict.fromkeys(owners)]
    assert found == wanted


def test_fewer_sets_again_and_never_more():
    model = nn.Sequential(nn.ModuleList(nn.Sequential(nn.Linear(4, 4)) for _ in range(6)))
    sharing.share_layers_(model, 3)
    with pytest.raises(ValueError, match="groups is 4, but 0 has 6 layers with 3 sets of weights"):
        sharing.share_layers_(model, 4)
    with pytest.raises(ValueError, match="nothing was shared: every stack has 3 sets"):
        sharing.share_layers_(model, 3)
    assert sharing.share_layers_(model, 1).total == 2 * 20


def test_t5_keeps_the_table_of_distances_in_its_first_layers():
    model, inputs = families.make("T5")
    report = sharing.share_layers_(model)
    assert list(report.changed) == ["encoder.block.1", "decoder.block.1"]
    copies, _ = families.make("T5")
    for stack in surgery.layer_stacks(copies).values():
        stack[1].load_state_dict(stack[0].state_dict(), strict=False)
    assert torch.equal(families.answer(model, inputs), families.answer(copies, inputs))


@pytest.mark.parametrize("family", ["BART", "CLIP", "Whisper", "Mixtral", "nn.TransformerEncoder"])
def test_other_families_run_and_save_bytes(family):
    model, inputs = families.make(family)
    size, report = metrics.size_in_bytes(model), sharing.share_layers_(model)
    assert size - metrics.size_in_bytes(model) == 4 * report.total > 0
    assert torch.isfinite(families.answer(model, inputs)).all()


@pytest.mark.parametrize("groups", [0, -1, 1.5, True, "2"])
def test_wrong_groups(groups):
    with pytest.raises(ValueError, match="groups is .*; 1 or more is wanted"):
        sharing.share_layers_(toys.llama(), groups)


def test_what_cannot_share_is_refused_and_unchanged():
    model = toys.llama()
    with pytest.raises(ValueError, match="groups is 4, but model.layers has 3 layers with 3 sets"):
        sharing.share_layers_(model, 4)
    model.model.layers[2].mlp.up_proj = nn.Linear(16, 30, bias=False)
    with pytest.raises(
        ValueError, match="0 and 2 of model.layers cannot share: mlp.up_proj.weight"
    ):
        sharing.share_layers_(model)
    assert layers.tied_layers(model) == {"lm_head": "model.embed_tokens"}
    model = toys.llama()
    model.model.layers[1].mlp.up_proj.bias = nn.Parameter(torch.zeros(32))
    with pytest.raises(ValueError, match="mlp.up_proj.bias is none in the one"):
        sharing.share_layers_(model)
    quantization.quantize_(model)
    with pytest.raises(ValueError, match="stores integers in model.layers.0"):
        sharing.share_layers_(model)
    with pytest.raises(ValueError, match="without a ModuleList of layers"):
        sharing.share_layers_(toys.mlp())


@pytest.mark.parametrize("family", toys.ALL)
def test_files_hold_what_is_shared_once(family, tmp_path):
    model, whole = shared(family), toys.ALL[family]()
    pruning.save_pruned(model, tmp_path / "shared")
    pruning.save_pruned(whole, tmp_path / "whole")
    saved = metrics.size_in_bytes(whole) - metrics.size_in_bytes(model)
    on_disk = [(tmp_path / name).stat().st_size for name in ("whole", "shared")]
    assert on_disk[0] - on_disk[1] > 0.75 * saved  # headers have names of all
    again = shared(family)
    for parameter in again.parameters():
        nn.init.zeros_(parameter)
    pruning.load_pruned_(again, tmp_path / "shared")
    assert torch.equal(toys.logits(again), toys.logits(model))
    pruning.load_pruned_(whole, tmp_path / "shared")  # as copies
    assert torch.equal(toys.logits(whole), toys.logits(model))


def test_one_tensor_is_not_filled_from_two(tmp_path):
    pruning.save_pruned(toys.llama(), tmp_path / "whole")
    model = shared("llama")
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match="are one tensor here, but two there"):
        pruning.load_pruned_(model, tmp_path / "whole")
    assert all(torch.equal(before[name], now) for name, now in model.state_dict().items())


@pytest.mark.parametrize("family", toys.ALL)
@pytest.mark.parametrize("verb", [None, quantization.quantize_])
def test_save_pretrained_refuses_what_no_configuration_tells(family, verb, tmp_path):
    model = shared(family)
    if verb:
        verb(model)
    with pytest.raises(ValueError, match="is one tensor with .*save_pruned or save_quantized"):
        toys.reloaded(model, tmp_path)
    assert not any(tmp_path.iterdir())
