"""GPTQ: as the exact surgeon rounds, and on whole models layer by layer."""

import copy
import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightcourse import calibration, layers, quantization
from lightcourse.quantization import choose_qparams_affine, gptq, gptq_, round_to_nearest
from tests import families, toys

TINY = 1e-9  # so little damping that exact answers hold
SHAPES = [(2, None), (3, 8), (4, None), (4, 8), (8, 16)]


def back(q, scale, zero_point):
    """Return the floats that integers stand for, in float64."""
    groups = q.double().unflatten(1, (scale.shape[1], -1))
    zero = 0 if zero_point is None else zero_point[..., None]
    return ((groups - zero) * scale[..., None].double()).flatten(1)


def lost(x, weight, found):
    """Return the squared output error of each row."""
    return ((x @ (weight - back(*found)).T) ** 2).sum(0)


def surgeon(weight, x, order, scale, bits):
    """Round column by column, and solve for all columns to come by least squares each time."""
    low, high = quantization.quant_range(bits)
    wanted, new, q = x @ weight.T, weight.clone(), torch.zeros(weight.shape, dtype=torch.int8)
    for done, j in enumerate(order):
        q[:, j] = (new[:, j] / scale).round().clamp(low, high)
        new[:, j] = q[:, j] * scale
        fixed, free = order[: done + 1], order[done + 1 :]
        if free:
            left = wanted - x[:, fixed] @ new[:, fixed].T
            new[:, free] = torch.linalg.lstsq(x[:, free], left).solution.T
    return q


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([2, 3, 4]), st.integers(1, 9), st.booleans())
def test_it_rounds_as_the_surgeon_who_solves_for_all_columns_to_come(seed, bits, block, act_order):
    weight, x = toys.correlated(seed)
    how = {"act_order": act_order, "block_size": block, "damping": TINY}
    q, scale, _ = gptq(weight, x.T @ x, bits, **how)
    diagonal = (x.T @ x).diagonal()
    order = diagonal.argsort(descending=True).tolist() if act_order else list(range(8))
    exact = surgeon(weight, x, order, scale[:, 0].double(), bits)
    same = (q == exact).all(1)
    # A value that lies halfway between two levels, but for rounding, may go either way.
    assert same.float().mean() >= 0.8 or torch.allclose(
        lost(x, weight, (q, scale, None)), lost(x, weight, (exact, scale, None)), rtol=1e-3
    )


def test_on_tiny_layers_it_is_no_better_than_the_best_and_mostly_better_than_the_nearest():
    won = 0
    every = torch.tensor(list(itertools.product(range(-4, 4), repeat=4)))
    for seed in range(20):
        weight, x = toys.correlated(seed, 6, 4)
        x = 0.2 * x + x.sum(1, keepdim=True)
        found, plain = gptq(weight, x.T @ x, 3), round_to_nearest(weight, 3)
        ours, nearest = lost(x, weight, found), lost(x, weight, plain)
        for row in range(6):
            apart = weight[row] - every * found[1][row].double()
            best = (apart @ x.T).square().sum(1).min()
            assert ours[row] >= best * (1 - 1e-9)
        won += bool(ours.sum() < nearest.sum())
    assert won >= 12


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits, group_size", SHAPES)
def test_inputs_without_correlation_give_the_nearest(bits, group_size, symmetric):
    torch.manual_seed(0)
    weight = torch.randn(6, 32)
    nearest = round_to_nearest(weight, bits, group_size, symmetric)
    for act_order in (False, True):
        found = gptq(weight, 3 * torch.eye(32), bits, group_size, symmetric, act_order)
        for ours, theirs in zip(found, nearest, strict=True):
            assert (ours is None and theirs is None) or torch.equal(ours, theirs)


@pytest.mark.parametrize("act_order", [False, True])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits, group_size", SHAPES)
def test_correlated_inputs_lose_less_than_with_the_nearest(bits, group_size, symmetric, act_order):
    for seed in range(3):
        weight, x = toys.correlated(seed, 16, 32, 400)
        found = gptq(weight, x.T @ x, bits, group_size, symmetric, act_order)
        plain = round_to_nearest(weight, bits, group_size, symmetric)
        assert lost(x, weight, found).sum() < 0.95 * lost(x, weight, plain).sum()
        assert [part is None for part in found] == [part is None for part in plain]
        layer = quantization.QuantizedLinear.from_integers(*found, bits)
        torch.testing.assert_close(layer.dequantize().double(), back(*found), rtol=1e-6, atol=0)


def test_a_groups_grid_is_chosen_for_the_weights_as_they_are_by_then():
    weight, x = toys.correlated(0, 4, 16, 200)
    x[:, 8:] = x[:, :8] + 0.1 * x[:, 8:]
    seen = []

    def choose(groups, bits, symmetric, dim):
        seen.append(groups)
        return choose_qparams_affine(groups, bits, symmetric, dim)

    q, scale, _ = gptq(weight, x.T @ x, 4, 8, damping=TINY, choose_qparams=choose)
    assert [tuple(groups.shape) for groups in seen] == [(4, 1, 8)] * 2
    torch.testing.assert_close(seen[0][:, 0], weight[:, :8].float())
    left = x @ weight.T - x[:, :8] @ back(q, scale, None)[:, :8].T
    moved = torch.linalg.lstsq(x[:, 8:], left).solution.T
    torch.testing.assert_close(seen[1][:, 0], moved.float(), rtol=1e-3, atol=1e-4)
    assert not torch.allclose(seen[1][:, 0], weight[:, 8:].float(), atol=0.01)


def test_act_order_keeps_neighbours_together_and_is_the_same_each_time():
    weight, x = toys.correlated(0, 4, 16, 200)
    x *= torch.linspace(0.1, 3, 16)
    first, again = (gptq(weight, x.T @ x, 4, 8, act_order=True) for _ in range(2))
    assert all(map(torch.equal, first[:2], again[:2]))
    assert torch.equal(first[1], round_to_nearest(weight, 4, 8)[1])
    # The last column has the largest inputs: it is rounded first, as it is.
    assert torch.equal(first[0][:, -1], round_to_nearest(weight, 4, 8)[0][:, -1])


def test_an_input_that_was_always_zero_is_rounded_to_the_nearest_and_moves_no_other():
    weight, x = toys.correlated(0, 4, 16, 200)
    x[:, [0, 5]] = 0
    q, scale, _ = gptq(weight, x.T @ x)
    assert torch.equal(q[:, [0, 5]], round_to_nearest(weight, 4)[0][:, [0, 5]])
    other = weight.clone()
    other[:, [0, 5]] *= 0.5

    def fixed(groups, bits, symmetric, dim):
        return torch.full((4, 1, 1), 0.3), torch.zeros(4, 1, 1)

    one, two = (gptq(w, x.T @ x, choose_qparams=fixed)[0] for w in (weight, other))
    live = [1, 2, 3, 4, *range(6, 16)]
    assert torch.equal(one[:, live], two[:, live]) and not torch.equal(one, two)


def refusals():
    weight, x = toys.correlated(0)
    hessian = x.T @ x
    yield "bits is 9", (weight, hessian, 9)
    yield "group_size is 3; a divisor of the 8", (weight, hessian, 4, 3)
    yield "hessian has shape", (weight, hessian[:4])
    yield "hessian is zero", (weight, hessian * 0)
    yield "weight holds NaN", (weight * float("nan"), hessian)
    yield "block_size is 0", (weight, hessian, 4, None, True, False, 0)
    yield "choose_qparams is a int", (weight, hessian, 4, None, True, False, 8, 0.01, 3)


@pytest.mark.parametrize("message, arguments", list(refusals()))
def test_bad_input_is_refused(message, arguments):
    with pytest.raises(ValueError, match=message):
        gptq(*arguments)


def text(seed=0, masked=0):
    """Return batches of ids for toys; the last tokens of each row are padding if wanted."""
    ids = torch.randint(0, 50, (3, 2, 16), generator=torch.Generator().manual_seed(seed))
    mask = torch.ones(2, 16, dtype=torch.long)
    mask[:, 16 - masked :] = 0
    return [{"input_ids": rows, "attention_mask": mask, "labels": rows} for rows in ids]


@pytest.mark.parametrize("act_order", [False, True])
@pytest.mark.parametrize("family", toys.ALL)
def test_every_family_is_rounded_and_comes_back_from_disk(family, act_order, tmp_path):
    model = toys.ALL[family]()
    report = gptq_(model, text(), 4, 8, symmetric=False, act_order=act_order)
    inside = [n for n in layers.linear_layers(toys.ALL[family]()) if ".layer" in n or ".h." in n]
    assert list(report.changed) == inside and report.total > 0
    assert set(report.changed) == set(layers.integer_layers(model))
    quantization.save_quantized(model, tmp_path / "q")
    loaded = toys.ALL[family]()
    quantization.load_quantized_(loaded, tmp_path / "q")
    assert torch.equal(toys.logits(loaded), toys.logits(model))


def test_first_layers_get_what_gptq_says_and_later_ones_see_integers_before_them():
    model = toys.llama()
    before, names = copy.deepcopy(model), list(layers.linear_layers(model))
    measured = calibration.hessians(before, text(masked=4))
    gptq_(model, text(masked=4), 2)
    for name in names[:3]:  # queries, keys and values of the first layer
        weight = before.get_submodule(name).weight
        q, _, _ = gptq(weight, measured[name], 2)
        assert torch.equal(model.get_submodule(name).integers(), q)
    seen = calibration.hessians(quantization_of_all_but(model, names[-1], before), text(masked=4))
    q, scale, _ = gptq(before.get_submodule(names[-1]).weight, seen[names[-1]], 2)
    last = model.get_submodule(names[-1])
    assert torch.equal(last.scales(), scale) and (last.integers() == q).float().mean() > 0.98
    alone, _, _ = gptq(before.get_submodule(names[-1]).weight, measured[names[-1]], 2)
    assert not torch.equal(last.integers(), alone)


def quantization_of_all_but(model, name, before):
    """Return a copy in which one layer has floats again."""
    model = copy.deepcopy(model)
    layers.replace_(model, name, copy.deepcopy(before.get_submodule(name)))
    return model


def test_outputs_lose_less_than_by_the_nearest():
    model, by_gptq, nearest = toys.llama(), toys.llama(), toys.llama()
    gptq_(by_gptq, text(), 3)
    quantization.quantize_(nearest, dict.fromkeys(layers.integer_layers(by_gptq), 3))
    far = {}
    for way, small in {"gptq": by_gptq, "nearest": nearest}.items():
        with torch.no_grad():
            answers = [(m(**b).logits) for b in text() for m in (small, model)]
        far[way] = sum(
            (a - b).square().sum() for a, b in zip(answers[::2], answers[1::2], strict=True)
        )
    assert far["gptq"] < 0.9 * far["nearest"]


def test_kernels_and_the_cache_of_generation_work_afterwards():
    model = toys.llama()
    gptq_(model, text(), 4, activations=8)
    assert all(layer.multiplies_integers for layer in layers.integer_layers(model).values())
    ids = torch.arange(1, 7)[None]
    with torch.no_grad():
        long = model.generate(ids, max_new_tokens=5, do_sample=False, use_cache=True)
        plain = model.generate(ids, max_new_tokens=5, do_sample=False, use_cache=False)
    assert torch.equal(long, plain) and long.shape == (1, 11)


def test_bits_by_layer_skip_and_the_mode_are_respected():
    model = toys.llama().train()
    names = list(layers.linear_layers(model))
    bits = dict.fromkeys(names[:2], 8) | {names[2]: 3, names[3]: 4}
    report = gptq_(model, text(), bits, skip=[names[3]])
    assert list(report.changed) == names[:3]
    assert report.skipped[names[3]] == "named in skip"
    assert report.skipped[names[4]] == "not named in bits"
    assert [model.get_submodule(name).bits for name in names[:3]] == [8, 8, 3]
    assert model.training and all(module.training for module in model.modules())


def model_refusals():
    lone = {"input_ids": torch.arange(8)[None]}
    yield "batches is empty", [], {}
    yield "8 tokens; at least 32, the inputs of the widest", [lone], {}
    yield "ids 0..50; 0 to 49 is wanted", [{"input_ids": torch.tensor([[0, 50]])}], {}
    yield "batches holds a list", [[1]], {}
    yield "batches is a function", text, {}
    yield "q_proj: group_size is 5", text(), {"group_size": 5}
    yield "bits is 1", text(), {"bits": 1}
    yield "q_proj: symmetric is False", text(), {"bits": 8, "symmetric": False, "activations": 8}
    yield "damping -1", text(), {"damping": -1.0}
    yield "nothing was quantized: model.layers has no", text(), {"bits": {}}
    yield "skip names", text(), {"skip": ["other"]}
    yield "no token", [{"input_ids": torch.zeros(1, 0, dtype=torch.long)}], {}


@pytest.mark.parametrize("message, batches, how", list(model_refusals()))
def test_models_stay_as_they_were_where_gptq_refuses(message, batches, how):
    model = toys.llama()
    before, kinds = toys.logits(model), [type(module) for module in model.modules()]
    with pytest.raises(ValueError, match=message):
        gptq_(model, batches, **how)
    assert torch.equal(toys.logits(model), before)
    assert kinds == [type(module) for module in model.modules()]
    assert not any(module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("name", ["model.embed_tokens", "model.layers.2.mlp.down_proj"])
def test_nan_is_refused_by_name(name):
    model = toys.llama()
    model.get_submodule(name).weight.data[3] = torch.nan
    with pytest.raises(ValueError, match="NaN or infinity"):
        gptq_(model, text())


def test_models_without_one_plain_stack_are_refused():
    with pytest.raises(ValueError, match="without a ModuleList of layers"):
        gptq_(toys.mlp(), text())
    model, inputs = families.make("T5")
    with pytest.raises(ValueError, match="has the stacks"):
        gptq_(model, [inputs] * 8)

    class Twice(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.parts = torch.nn.ModuleList([torch.nn.Sequential(torch.nn.Linear(4, 4))])

        def forward(self, x):
            return self.parts[0](self.parts[0](x))

    with pytest.raises(ValueError, match="do not each run once"):
        gptq_(Twice(), [{"x": torch.randn(8, 4)}])


PLAIN = ["BERT", "DistilBERT", "GPT-2", "GPT-NeoX", "Falcon", "Llama", "Qwen2", "Qwen2-MoE"]


@pytest.mark.parametrize("family", [*PLAIN, "Mixtral", "ViT", "Mamba"])
def test_other_families_with_one_stack_are_rounded_too(family):
    model, inputs = families.make(family)
    before = families.answer(model, inputs)
    report = gptq_(model, [inputs] * 32, 8)
    assert len(report.changed) > 4
    after = families.answer(model, inputs)
    assert 0 < (after - before).norm() < 0.1 * before.norm()
