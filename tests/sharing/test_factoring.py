"""Factored layers fit into the bytes, answer as they should, and other verbs find them."""

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lightcourse import calibration, layers, lora, metrics, pruning, quantization, sharing
from lightcourse.sharing.factoring import Plan, share_out
from tests import families, toys

IDS = torch.arange(1, 33).view(4, 8)
BATCHES = [{"input_ids": IDS, "attention_mask": torch.ones_like(IDS)}]


def matrices(model):
    return sum(layer.weight.nbytes for layer in layers.linear_layers(model).values())


def factored(model, share=0.7, **how):
    report = sharing.factor_(model, int(share * matrices(model)), **how)
    return model, report


def found(model):
    return {n: m for n, m in model.named_modules() if isinstance(m, sharing.FactoredLinear)}


PLANS = st.lists(
    st.tuples(st.integers(1, 9), st.integers(1, 9), st.sampled_from([2, 4]), st.integers(0, 99)),
    min_size=1,
    max_size=4,
)


def plan(rows, columns, each, seed):
    generator = torch.Generator().manual_seed(seed)
    energies = torch.rand(min(rows, columns), generator=generator).sort(descending=True).values
    return Plan(torch.empty(0), [0.0, *energies.cumsum(0).tolist()], (rows, columns), each)


@given(PLANS, st.floats(0, 1, exclude_max=True))
@settings(max_examples=200)
def test_the_budget_is_kept_and_used_up_to_a_rank(sides, share):
    plans = {str(index): plan(*one) for index, one in enumerate(sides)}
    least = sum(p.size(1 if p.most else p.full) for p in plans.values())
    whole = sum(p.size(p.full) for p in plans.values())
    if least == whole:
        return
    budget = least + int(share * (whole - least))
    ranks = share_out(plans, budget)
    used = sum(plans[name].size(rank) for name, rank in ranks.items())
    assert used <= budget and ranks.keys() == plans.keys()
    for name, one in plans.items():
        assert ranks[name] == one.full or 1 <= ranks[name] <= one.most
        if ranks[name] < one.full:
            larger = ranks[name] + 1 if ranks[name] < one.most else one.full
            assert used + one.size(larger) - one.size(ranks[name]) > budget


@given(st.integers(1, 30), st.integers(1, 30))
def test_factors_are_made_only_where_they_are_smaller(rows, columns):
    one = plan(rows, columns, 4, 0)
    assert one.most * (rows + columns) < rows * columns <= (one.most + 1) * (rows + columns)
    assert one.most < one.full


@pytest.mark.parametrize("family", toys.ALL)
@pytest.mark.parametrize("share", [0.3, 0.7, 0.95])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_fits_into_the_bytes(family, share, dtype):
    model = toys.ALL[family]().to(dtype)
    size, before = metrics.size_in_bytes(model), matrices(model)
    model, report = factored(model, share)
    assert matrices(model) <= int(share * before)
    assert size - metrics.size_in_bytes(model) == report.total == before - matrices(model)
    assert torch.isfinite(toys.logits(model)).all() and found(model).keys() == report.changed.keys()


@pytest.mark.parametrize("hessian", [False, True])
def test_conv1d_gives_what_the_same_linear_layer_gives(hessian):
    model = toys.gpt2()
    twin = copy.deepcopy(model)
    for name, layer in layers.linear_layers(twin).items():
        if layers.is_conv1d(layer):
            new = nn.Linear(layer.nx, layer.nf)
            new.weight.data, new.bias.data = layer.weight.data.T.clone(), layer.bias.data
            layers.replace_(twin, name, new)
    how = {"hessians": calibration.hessians(model, BATCHES)} if hessian else {}
    one, other = factored(model, **how), factored(twin, **how)
    assert one[1].changed == other[1].changed
    torch.testing.assert_close(toys.logits(one[0]), toys.logits(other[0]), rtol=1e-3, atol=1e-5)


def test_outputs_are_nearer_with_hessians():
    model = toys.mlp()
    x = toys.correlated(0, tokens=200)[1].float()
    hessians = calibration.hessians(model, [{"input": x}])
    gaps = []
    for how in ({}, {"hessians": hessians}):
        changed, _ = factored(copy.deepcopy(model), 0.5, targets=["0"], **how)
        gaps.append((changed[0](x) - model[0](x)).norm())
    assert gaps[1] < gaps[0]


def test_targets_choose_layers():
    least = 4 * (3 * 48 + 32)  # rank 1 of three matrices of 32 x 16 and of one of 16 x 16
    targets = ["up_proj", "layers.0.self_attn.q_proj"]
    report = sharing.factor_(toys.llama(), least, targets=targets)
    assert [name.rpartition("layers.")[2] for name in report.changed] == [
        "0.self_attn.q_proj", "0.mlp.up_proj", "1.mlp.up_proj", "2.mlp.up_proj"
    ]  # fmt: skip
    report = sharing.factor_(toys.llama(), 4 * 3 * 48, targets=r".*\.1\.mlp\..*")
    assert len(report.changed) == 3
    with pytest.raises(ValueError, match="targets is 'nope', but 'nope' fits no layer; .*up_proj"):
        sharing.factor_(toys.llama(), 100, targets="nope")
    with pytest.raises(ValueError, match="targets is '\\(', no regular expression"):
        sharing.factor_(toys.llama(), 100, targets="(")


def test_a_tied_output_layer_is_left_and_thin_layers_stay_whole():
    model, report = factored(toys.llama())
    assert report.skipped["lm_head"] == "shares its weight with model.embed_tokens"
    model = nn.Sequential(nn.Linear(8, 12), nn.Linear(12, 1))
    report = sharing.factor_(model, 4 * (3 * 20 + 12))
    assert report.changed == {"0": 4 * (96 - 60)}
    assert report.skipped["1"].startswith("stays whole") and "ranks 3 to 3" in str(report)


def test_layers_that_share_a_weight_share_its_factors():
    model = toys.llama()
    sharing.share_layers_(model)
    size = metrics.size_in_bytes(model)
    model, report = factored(model, 0.5)
    assert size - metrics.size_in_bytes(model) == report.total
    first, second = (layer.mlp.up_proj for layer in model.model.layers[:2])
    assert first is not second and first.left.weight is second.left.weight


def test_what_cannot_be_done_changes_nothing():
    model = toys.llama()
    whole, before = matrices(model), list(model.state_dict())
    hessians = calibration.hessians(model, BATCHES)
    cases = [
        ((whole,), "num_bytes is .*; the layers take .* now and .* at rank 1"),
        ((whole + 1,), "less than now"),
        ((100,), "num_bytes is 100; "),
        ((math.nan,), "num_bytes is nan; "),
        ((whole // 2, {}), "hessians lacks model.layers.0.self_attn.q_proj"),
        ((whole // 2, hessians | {"model.layers.1.mlp.up_proj": torch.full((16, 16), math.nan)}),
         "layer model.layers.1.mlp.up_proj: second_moments holds NaN"),
    ]  # fmt: skip
    for given_, message in cases:
        with pytest.raises(ValueError, match=message):
            sharing.factor_(model, *given_)
    assert list(model.state_dict()) == before
    least = sum(4 * sum(m.weight.shape) for m in layers.linear_layers(model).values())
    with pytest.raises(ValueError, match=f"{least} at rank 1"):
        sharing.factor_(model, least - 1)
    sharing.factor_(model, least)
    assert all(layer.rank == 1 for layer in found(model).values())
    with pytest.raises(ValueError, match="nothing was factored: model is a LlamaForCausalLM"):
        sharing.factor_(model, 100)
    with pytest.raises(ValueError, match="nothing was factored"):
        sharing.factor_(nn.Linear(8, 8), 100)


def test_what_multiplies_in_its_own_way_is_left():
    class Louder(nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    model = nn.Sequential(Louder(8, 8), nn.Linear(8, 8), nn.Linear(8, 8))
    nn.utils.parametrizations.weight_norm(model[2])
    report = sharing.factor_(model, 150)
    assert list(report.changed) == ["1"] and "in its own way" in report.skipped["0"]
    assert "in its own way" in report.skipped["2"]


@pytest.mark.parametrize("family", toys.ALL)
def test_other_verbs_find_ordinary_layers(family):
    model, _ = factored(toys.ALL[family]())
    before, names = toys.logits(model), list(layers.linear_layers(model))
    assert any(name.endswith(".left") for name in names)
    pruned = copy.deepcopy(model)
    pruning.prune_(pruned, pruning.layer_mask(pruning.magnitude_scores(pruned), 0.5))
    assert metrics.sparsity(pruned) == pytest.approx(0.5, abs=0.01)
    adapted = copy.deepcopy(model)
    lora.add_lora_(adapted, rank=1)
    torch.testing.assert_close(toys.logits(adapted), before)
    lora.merge_lora_(adapted)
    torch.testing.assert_close(toys.logits(adapted), before)
    assert quantization.quantize_(model).changed.keys() == set(names)
    assert (toys.logits(model) - before).abs().max() < 0.1 * before.abs().max()


@pytest.mark.parametrize("family", ["T5", "BART", "nn.TransformerEncoder", "Mixtral", "Falcon"])
def test_code_that_reads_a_weight_finds_one(family):
    model, inputs = families.make(family)
    before = families.answer(model, inputs)
    factored(model, 0.95)
    now = families.answer(model, inputs)
    assert torch.cosine_similarity(now.flatten(), before.flatten(), dim=0) > 0.8


def test_gradients_reach_both_factors_and_frozen_layers_stay_frozen():
    model = toys.mlp()
    model[2].requires_grad_(False)
    factored(model, 0.7)
    model(torch.randn(3, 8)).sum().backward()
    assert model[0].left.weight.grad is not None and model[0].right.weight.grad is not None
    assert not any(p.requires_grad for p in model[2].parameters())


@pytest.mark.parametrize("family", toys.ALL)
@pytest.mark.parametrize("together", [False, True])
def test_the_same_model_from_a_file_bit_for_bit(family, together, tmp_path):
    model = toys.ALL[family]()
    if together:
        sharing.share_layers_(model)
    factored(model.to(torch.bfloat16), 0.6)
    path = sharing.save_factored(model, tmp_path / "x.safetensors")
    again = toys.ALL[family]().to(torch.bfloat16)  # a Llama's angles are in no file
    if together:
        sharing.share_layers_(again)
    report = sharing.load_factored_(again, path)
    assert report.total == metrics.size_in_bytes(model) == metrics.size_in_bytes(again)
    assert torch.equal(toys.logits(again), toys.logits(model))
    assert list(again.state_dict()) == list(model.state_dict())


def test_files_of_other_models_change_nothing(tmp_path):
    path = sharing.save_factored(factored(toys.llama())[0], tmp_path / "x")
    for other in (toys.gpt2(), toys.bert(), toys.mlp()):
        before = toys.logits(other) if hasattr(other, "config") else None
        with pytest.raises(ValueError, match="belongs to another model"):
            sharing.load_factored_(other, path)
        assert before is None or torch.equal(toys.logits(other), before)
    narrow = toys.llama()
    narrow.model.layers[0].mlp.up_proj = nn.Linear(16, 31, bias=False)
    with pytest.raises(ValueError, match="belongs to another model"):
        sharing.load_factored_(narrow, path)
    shared = toys.llama()
    sharing.share_layers_(shared)
    with pytest.raises(ValueError, match="are one tensor here, but two there"):
        sharing.load_factored_(shared, path)
    with pytest.raises(ValueError, match="no pruned checkpoint"):
        pruning.load_pruned_(toys.llama(), path)
    with pytest.raises(ValueError, match="model has no factored layer"):
        sharing.save_factored(toys.llama(), tmp_path / "y")
    model = factored(toys.llama())[0]
    quantization.quantize_(model)
    with pytest.raises(ValueError, match="stores integers in .*; save_quantized saves them"):
        sharing.save_factored(model, tmp_path / "y")


def test_integers_of_factors_are_saved_as_all_integers_are(tmp_path):
    model = factored(toys.llama())[0]
    path = sharing.save_factored(model, tmp_path / "x")
    quantization.quantize_(model)
    quantization.save_quantized(model, tmp_path / "q")
    again = toys.llama()
    sharing.load_factored_(again, path)
    quantization.load_quantized_(again, tmp_path / "q")
    assert torch.equal(toys.logits(again), toys.logits(model))


def test_save_pretrained_refuses_what_no_configuration_tells(tmp_path):
    model = factored(toys.llama())[0]
    with pytest.raises(ValueError, match="save_factored"):
        model.save_pretrained(tmp_path)
    assert not any(tmp_path.iterdir())
