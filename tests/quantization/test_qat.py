"""Prepared, trained, converted: the integers answer as the floats did, and bad input is told."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lightcourse import (
    calibration,
    distillation,
    generation,
    layers,
    lora,
    models,
    pruning,
    training,
)
from lightcourse import quantization as q
from lightcourse.quantization import FakeQuantizedLinear, convert_qat_, prepare_qat_
from tests import toys
from tests.kernels.every_path import on_every_path, use

GRIDS = [(8, None), (8, 32), (4, None), (4, 32), (3, None), (2, 32), ("ternary", None)]
every_grid = pytest.mark.parametrize("bits, group_size", GRIDS)
WAYS = ["floats", "integers", "one range"]


def wide(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(64, 40), nn.GELU(), nn.Linear(40, 64), nn.Linear(64, 8))


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def how(way, model=None, batch=None):
    if way == "one range":
        ranges = calibration.calibrate(model, [batch])
        return {"activations": 8, "activation_ranges": ranges}
    return {"activations": 8 if way == "integers" else None}


def moved(model, x, rate=0.05):
    """Take one step of plain gradient descent, so that nothing lies where it started."""
    model(x).square().sum().backward()
    torch.optim.SGD(model.parameters(), rate).step()
    return model


def batches(epoch, seed):
    generator = torch.Generator().manual_seed(seed * 1000 + epoch)
    for _ in range(4):
        ids = torch.randint(1, 50, (4, 8), generator=generator)
        yield {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}


@every_grid
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_converted_model_answers_bit_for_bit(bits, group_size, way, dtype):
    model, x = nn.Sequential(wide()[0]).to(dtype), draw(3, 9, 64, seed=1).to(dtype)
    ranges = {"0": (-2.0, 2.5)} if way == "one range" else None
    activations = None if way == "floats" else 8
    prepare_qat_(model, bits, group_size, activations, activation_ranges=ranges)
    moved(model, x)
    with torch.no_grad():
        wanted = model(x), model(x[0, :1])
        convert_qat_(model)
        with use("portable", 1):
            found = model(x), model(x[0, :1])
    assert all(torch.equal(one, other) for one, other in zip(wanted, found, strict=True))
    assert wanted[0].std() > 0.1


@pytest.mark.parametrize("bits, group_size", [(8, 32), (4, None), ("ternary", 32)])
@pytest.mark.parametrize("way", WAYS)
def test_whole_language_models_answer_bit_for_bit(bits, group_size, way):
    model, ids = models.load_tiny_lm("student"), torch.randint(0, 2000, (1, 12))
    prepare_qat_(model, bits, group_size, **how(way, model, {"input_ids": ids}))
    model(ids, labels=ids).loss.backward()
    torch.optim.SGD(model.parameters(), 0.01).step()
    with torch.no_grad():
        wanted = model(ids).logits
        report = convert_qat_(model)
        with use("portable", 1):
            assert torch.equal(model(ids).logits, wanted)
    assert len(report.changed) == 28 and report.total > 0


@settings(max_examples=40)
@given(
    st.integers(1, 40),
    st.integers(1, 5),
    st.sampled_from([8, 7, 5, 4, 3, 2, "ternary"]),
    st.booleans(),
    st.integers(0, 2**16),
)
def test_odd_shapes_answer_bit_for_bit(outputs, inputs, bits, grouped, seed):
    torch.manual_seed(seed)
    inputs = 32 * inputs if grouped else 7 * inputs
    layer = nn.Sequential(nn.Linear(inputs, outputs, bias=seed % 2 == 0))
    layer[0].weight.data *= 10.0 ** torch.randint(-3, 3, (outputs, 1))
    layer[0].weight.data[0] = 0
    x = torch.randn(5, inputs) * 10.0 ** torch.randint(-6, 6, (5, 1))
    x[1], x[2, 0] = 0, torch.nan
    prepare_qat_(layer, bits, 32 if grouped else None, activations=8)
    with torch.no_grad():
        wanted = layer(x)
        convert_qat_(layer)
        with use("portable", 1):
            assert torch.equal(layer(x).nan_to_num(7.0), wanted.nan_to_num(7.0))
    assert wanted[2].isnan().all() and not wanted[[0, 1, 3, 4]].isnan().any()


@pytest.mark.parametrize("bits", [8, 4])
def test_long_rows_are_summed_exactly(bits):
    torch.manual_seed(0)
    layer, x = nn.Sequential(nn.Linear(9000, 3)), torch.rand(2, 9000) + 1
    layer[0].weight.data.abs_()  # all products of one sign: the sums are as large as can be
    prepare_qat_(layer, bits, activations=8)
    with torch.no_grad():
        wanted = layer(x)
        convert_qat_(layer)
        with use("portable", 1):
            assert torch.equal(layer(x), wanted)


@on_every_path
def test_other_paths_stay_within_the_kernels_budget():
    for bits, group_size in GRIDS:
        layer, x = nn.Sequential(wide()[0]), draw(9, 64, seed=1)
        prepare_qat_(layer, bits, group_size, activations=8)
        with torch.no_grad():
            wanted = layer(x).double()
            convert_qat_(layer)
            sizes = (x.abs() @ layer[0].weight.abs().T).double() * 1.01 + layer[0].bias.abs()
            assert ((layer(x) - wanted).abs() <= (2 + 4) * 2**-23 * sizes).all()


@pytest.mark.parametrize("bits", [3, 2, "ternary"])
@pytest.mark.parametrize("rows", [1, 8, 9, 40])
def test_codes_store_every_bit_and_err_in_the_last_ones(bits, rows):
    model, x = nn.Sequential(wide()[0]), draw(rows, 64, seed=1)
    prepare_qat_(model, bits, 32)
    packed = copy.deepcopy(model)
    with torch.no_grad():
        wanted = model(x)
        convert_qat_(model)
        convert_qat_(packed, codes=True)
        assert torch.equal(packed[0].dequantize(), model[0].dequantize())
        sizes = x.abs() @ packed[0].weight.abs().T + packed[0].bias.abs()
        # 64 products and sums of float32, each rounded by one half of 2**-23, on both sides
        assert ((packed(x) - wanted).abs() <= 2 * 66 * 2**-24 * sizes).all()
    if rows > 8:
        assert torch.equal(packed(x), wanted)
    number = 3 if bits == 3 else 2
    assert packed[0].qweight.nbytes == 40 * 64 * number // 8 < model[0].qweight.nbytes


# Not 8 bits in groups with 8-bit inputs: quantize_ rounds there before it makes its scales float16.
ROUNDED = [(8, None, None), (8, 32, None), (8, None, 8), (4, None, 8), (3, 32, 8), (2, 32, None)]


@pytest.mark.parametrize("bits, group_size, activations", ROUNDED)
def test_without_training_it_is_what_quantize_makes(bits, group_size, activations):
    model, x = wide(), draw(4, 64)
    model = nn.Sequential(model[0]) if group_size else model
    rounded = copy.deepcopy(model)
    q.quantize_(rounded, bits, group_size, activations)
    prepare_qat_(model, bits, group_size, activations)
    convert_qat_(model)
    assert torch.equal(model(x), rounded(x))
    for name, buffer in rounded.named_buffers():
        assert torch.equal(model.get_buffer(name), buffer)


def test_gradients_pass_straight_through():
    layer = nn.Sequential(nn.Linear(4, 2, bias=False))
    layer[0].weight.data = torch.tensor([[0.1, 0.6, -0.4, 5.0], [1.0, 1.0, 1.0, 1.0]])
    prepare_qat_(layer, 2, choose_step=lambda groups, *ends: torch.ones(2, 1))
    x = torch.tensor([[2.0, 3.0, 5.0, 7.0]])
    y = layer(x)
    y[0, 0].backward()
    assert y.tolist() == [[3 + 7, 17]]  # 0, 1, -0 and 1 times the inputs
    assert layer[0].weight.grad[0].tolist() == [2, 3, 5, 0]  # 5.0 was clamped
    by_hand = 2 * -0.1 + 3 * 0.4 + 5 * 0.4 + 7 * 1
    assert layer[0].step.grad.tolist() == pytest.approx([by_hand / 2, 0])  # 1 / sqrt(4 * 1)


@every_grid
def test_the_inputs_gradient_is_that_of_the_weight_on_the_grid(bits, group_size):
    layer, x = nn.Sequential(wide()[0]), draw(5, 64).requires_grad_()
    prepare_qat_(layer, bits, group_size, activations=8)
    upstream = draw(5, 40, seed=2)
    layer(x).backward(upstream)
    weight = layer[0].on_grid(layer[0].steps()).detach()
    assert torch.allclose(x.grad, upstream @ weight, atol=1e-5)
    assert torch.allclose(layer[0].bias.grad, upstream.sum(0), atol=1e-5)
    step, layer[0].weight.grad = layer[0].weight.grad, None
    rounded = q.fake_quantize(x.detach(), *q.choose_qparams_affine(x, 8, True, dim=-1))
    layer[0].activations = None
    layer(rounded).backward(upstream)
    if not (bits == 8 and group_size):  # there the inputs have a scale a group
        assert torch.allclose(step, layer[0].weight.grad, atol=1e-4)


@pytest.mark.parametrize("family", toys.ALL)
@pytest.mark.parametrize("bits", [4, "ternary"])
def test_a_few_steps_reduce_the_loss_and_nothing_else_of_training_changes(family, bits):
    model = toys.ALL[family]()
    batch = next(iter(batches(0, 0)))
    if family == "bert":
        batch["labels"] = torch.tensor([0, 1, 2, 0])
    prepare_qat_(model, bits, activations=8)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    recipe = training.Recipe(8, learning_rate=5e-3, weight_decay=0.01)
    history = training.train(model, lambda *_: [batch], recipe, progress=False)
    assert history.losses[-1] < 0.97 * history.losses[0]
    changed = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert all(name in changed for name in before if name.endswith((".weight", ".step")))
    with torch.no_grad():
        wanted = toys.logits(model)
        convert_qat_(model)
        with use("portable", 1):
            assert torch.equal(toys.logits(model), wanted)


def test_a_teacher_teaches_on_the_grid():
    teacher, model = models.load_tiny_lm("student"), models.load_tiny_lm("student")
    prepare_qat_(model, 2)

    def loss(model, batch):
        with torch.no_grad():
            wanted = teacher(batch["input_ids"]).logits
        return distillation.forward_kl(model(batch["input_ids"]).logits, wanted)

    history = training.train(
        model, batches, training.Recipe(12, learning_rate=3e-3), loss, progress=False
    )
    assert sum(history.losses[-3:]) < 0.8 * sum(history.losses[:3])
    assert all(p.grad is None for p in teacher.parameters())


def test_frozen_steps_stay_and_refitted_ones_follow():
    model = toys.llama()
    prepare_qat_(model, "ternary", choose_step=q.mean_step)
    for step in q.qat_steps(model).values():
        step.requires_grad_(False)
    before = {name: step.clone() for name, step in q.qat_steps(model).items()}
    recipe = training.Recipe(3, learning_rate=1e-2)
    training.train(model, batches, recipe, progress=False)
    assert all(torch.equal(step, before[name]) for name, step in q.qat_steps(model).items())
    training.train(
        model, batches, recipe, progress=False, after_step=lambda model, _: q.refit_steps_(model)
    )
    layer = model.model.layers[0].mlp.up_proj
    assert torch.equal(layer.step, layer.weight.abs().mean(1))


def test_weight_decay_leaves_steps_alone():
    model = toys.llama()
    prepare_qat_(model, 4, 8)
    groups = training.updates.optimizer_groups(
        training.trainable_parameters(model), training.Recipe(1, weight_decay=0.5)
    )
    decayed = {id(p) for group in groups if group["weight_decay"] for p in group["params"]}
    assert not decayed & {id(step) for step in q.qat_steps(model).values()}
    assert len(q.qat_steps(model)) == 21


@pytest.mark.parametrize("family", toys.ALL)
def test_held_zeros_stay_zeros_among_the_integers(family):
    model = toys.ALL[family]()
    masks = pruning.layer_mask(pruning.magnitude_scores(model), 0.5)
    pruning.prune_(model, masks)
    prepare_qat_(model, 4)
    recipe = training.Recipe(5, learning_rate=1e-2, weight_decay=0.3)
    batch = next(iter(batches(0, 0)))
    batch["labels"] = torch.tensor([0, 1, 2, 0]) if family == "bert" else batch["labels"]
    with pruning.hold_masks(model) as held:
        training.train(model, lambda *_: [batch], recipe, progress=False)
    assert all(torch.equal(held[name], mask) for name, mask in masks.items())
    convert_qat_(model)
    for name, mask in masks.items():
        integers = model.get_submodule(name).integers()
        assert not integers[~mask].any() and integers[mask].any()


def test_momentum_from_before_does_not_refill_a_prepared_layer():
    model = wide()
    prepare_qat_(model, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)

    def step():
        optimizer.zero_grad()
        model(draw(4, 64)).square().sum().backward()
        optimizer.step()

    step()
    masks = pruning.layer_mask(pruning.magnitude_scores(model), 0.5)
    with pruning.hold_masks(model, masks):
        for _ in range(3):
            step()
            found = layers.linear_layers(model)
            assert all((found[name].weight[~mask] == 0).all() for name, mask in masks.items())
    convert_qat_(model)
    assert all(not model.get_submodule(n).integers()[~mask].any() for n, mask in masks.items())


@pytest.mark.parametrize("way", WAYS)
def test_training_goes_on_from_a_state_dict_and_from_a_checkpoint(way, tmp_path):
    def fresh():
        model = toys.llama()
        prepare_qat_(
            model, 3, 8 if way == "floats" else None, **how(way, model, {"input_ids": ids})
        )
        return model

    ids = torch.arange(16).view(2, 8)
    once, again = fresh(), fresh()
    recipe = training.Recipe(6, learning_rate=1e-2, evaluate_every=2)
    training.train(once, batches, recipe, progress=False)
    again.load_state_dict(once.state_dict())
    assert torch.equal(toys.logits(once), toys.logits(again))
    half, path = fresh(), tmp_path / "run.safetensors"

    def stop(model, step):
        if step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        training.train(half, batches, recipe, checkpoint=path, after_step=stop, progress=False)
    resumed = fresh()
    training.train(resumed, batches, recipe, checkpoint=path, progress=False)
    assert torch.equal(toys.logits(once), toys.logits(resumed))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("codes", [False, True])
def test_converted_it_is_saved_and_loaded_bit_for_bit(way, codes, tmp_path):
    model, ids = toys.llama(), torch.arange(16).view(2, 8)
    prepare_qat_(model, 2, **how(way, model, {"input_ids": ids}))
    convert_qat_(model, codes)
    path = q.save_quantized(model, tmp_path / "q.safetensors")
    again = toys.llama()
    q.load_quantized_(again, path)
    assert torch.equal(toys.logits(model), toys.logits(again))
    assert torch.equal(toys.logits(model), toys.logits(toys.reloaded(model, tmp_path / "hf")))


def test_a_prepared_model_may_change_its_dtype():
    model, x = wide(), draw(4, 64)
    prepare_qat_(model, 4, activations=8)
    moved(model.bfloat16(), x.bfloat16())
    with torch.no_grad():
        wanted = model(x.bfloat16())
        convert_qat_(model)
        with use("portable", 1):
            assert torch.equal(model(x.bfloat16()), wanted) and wanted.dtype == torch.bfloat16


def test_converted_it_becomes_a_program_that_writes():
    model, ids = models.load_tiny_lm("student"), torch.arange(20)[None]
    prepare_qat_(model, 4, 32, activations=8)
    convert_qat_(model)
    q.quantize_(model, {"model.embed_tokens": 8}, activations=8)
    wanted = generation.generate(model, ids, 5)
    assert torch.equal(generation.generate(generation.jit(model), ids, 5), wanted)


def test_save_pretrained_refuses_a_model_that_is_still_on_its_way(tmp_path):
    model = toys.llama()
    prepare_qat_(model, 4)
    with pytest.raises(ValueError, match="convert_qat_"):
        model.save_pretrained(tmp_path)


def test_the_weight_stays_the_callers_own():
    model = wide()
    weight, bias = model[0].weight, model[0].bias
    prepare_qat_(model, 4)
    assert model[0].weight is weight and model[0].bias is bias
    assert isinstance(model[0], FakeQuantizedLinear) and "bits=4" in repr(model)
    assert layers.linear_layers(model).keys() == {"0", "2", "3"}


def test_layers_that_share_a_weight_share_steps_and_integers():
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    model[1].weight = model[0].weight
    prepare_qat_(model, 4)
    assert model[0].step is model[1].step and model[0].weight is model[1].weight
    moved(model, draw(3, 8))
    wanted = model(draw(3, 8))
    report = convert_qat_(model)
    assert model[0].qweight is model[1].qweight and report.changed["1"] == 0
    assert torch.equal(model(draw(3, 8)), wanted)


def test_each_layer_may_have_bits_of_its_own():
    model = wide()
    report = prepare_qat_(model, {"0": 8, "3": "ternary"})
    assert (model[0].grid, model[3].grid) == (8, "ternary")
    assert type(model[2]) is nn.Linear and "2: not named in bits" in str(report)
    assert report.changed == {"0": 64 * 40, "3": 64 * 8}


def test_other_verbs_leave_a_prepared_layer_alone_or_stand_beside_it():
    model = wide()
    prepare_qat_(model, 4)
    with pytest.raises(ValueError, match="multiplies in its own way"):
        q.quantize_(model, 4)
    lora.add_lora_(model, rank=2)
    assert torch.isfinite(model(draw(2, 64))).all()
    with pytest.raises(ValueError, match="keep the update beside it"):
        lora.merge_lora_(model)


def test_rows_that_were_removed_afterwards_are_told_of():
    model = toys.llama()
    prepare_qat_(model, 4)
    scores = {f"model.layers.{i}.mlp": torch.arange(32) for i in range(3)}
    pruning.remove_neurons_(model, pruning.layer_mask(scores, 0.5))
    with pytest.raises(ValueError, match="16 rows now, but steps for 32; remove rows first"):
        toys.logits(model)
    with pytest.raises(ValueError, match="gate_proj: weight has 16 rows now"):
        convert_qat_(model)


def test_weights_that_are_read_and_not_multiplied_stay():
    model = nn.Sequential(nn.MultiheadAttention(8, 2), nn.Linear(8, 8))
    report = prepare_qat_(model, 4)
    assert "a MultiheadAttention reads its weight" in report.skipped["0.out_proj"]
    assert list(report.changed) == ["1"]


def spoiled(value):
    model = wide()
    model[2].weight.data[3, 3] = value
    return model


def prepared_twice(_):
    model = wide()
    prepare_qat_(model, {"0": 4})
    prepare_qat_(model, {"0": 4, "2": 3})


BAD = {
    "9": (lambda m: prepare_qat_(m, {"9": 4}), r"bits names \['9'\]"),
    "skip": (lambda m: prepare_qat_(m, 4, skip=["encoder"]), r"skip names \['encoder'\]"),
    "1 bit": (lambda m: prepare_qat_(m, 1), "bits is 1; a whole number from 2 to 8"),
    "1 bit by name": (lambda m: prepare_qat_(m, {"0": 1}), "bits is 1; a whole number from 2"),
    "a word": (lambda m: prepare_qat_(m, "two"), "bits is two; a whole number"),
    "group": (lambda m: prepare_qat_(m, 4, 48), "layer 0: group_size is 48; a divisor"),
    "kernel": (lambda m: prepare_qat_(m, 4, 8, 8), "layer 0: group_size is 8; int8 activations"),
    "activations": (lambda m: prepare_qat_(m, 4, activations=4), "activations is 4; None or 8"),
    "ranges": (
        lambda m: prepare_qat_(m, 4, activations=8, activation_ranges={"0": (-1, 1)}),
        "layer 2: activation_ranges lacks it",
    ),
    "range": (
        lambda m: prepare_qat_(m, {"0": 4}, activations=8, activation_ranges={"0": (1, -1)}),
        "layer 0: low is above high",
    ),
    "ranges alone": (
        lambda m: prepare_qat_(m, {"0": 4}, activation_ranges={"0": (-1, 1)}),
        "layer 0: activations is None",
    ),
    "all skipped": (lambda m: prepare_qat_(m, 4, skip=["0", "2", "3"]), "nothing was prepared"),
    "no function": (lambda m: prepare_qat_(m, 4, choose_step=3), "choose_step is a int"),
    "no step": (
        lambda m: prepare_qat_(m, 4, choose_step=lambda groups, *_: groups),
        r"layer 0: choose_step gave .*\(40, 1\) are wanted",
    ),
    "not prepared": (convert_qat_, "prepare_qat_ it first"),
    "not prepared, steps": (q.qat_steps, "prepare_qat_ it first"),
    "not prepared, refit": (q.refit_steps_, "prepare_qat_ it first"),
}


@pytest.mark.parametrize("change, words", BAD.values(), ids=list(BAD))
def test_bad_input_changes_nothing(change, words):
    model = wide()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=words):
        change(model)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert not any(isinstance(layer, FakeQuantizedLinear) for layer in model)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_weight_that_is_no_number_is_refused_before_and_after(value):
    model = spoiled(value)
    with pytest.raises(ValueError, match="layer 2: weight holds NaN or infinity"):
        prepare_qat_(model, 4)
    assert type(model[0]) is nn.Linear
    model = wide()
    prepare_qat_(model, 4)
    model[2].weight.data[3, 3] = value
    with pytest.raises(ValueError, match="layer 2: weight holds NaN or infinity"):
        convert_qat_(model)
    assert isinstance(model[0], FakeQuantizedLinear)
    model[2].weight.data[3, 3] = 0
    model[3].step.data[0] = value
    with pytest.raises(ValueError, match="layer 3: step holds NaN or infinity"):
        convert_qat_(model)


def test_bits_are_given_once():
    model = wide()
    prepare_qat_(model, {"0": 4})
    with pytest.raises(ValueError, match="prepared already: 0 has 4 bits"):
        prepare_qat_(model, {"2": 4})
    assert type(model[2]) is nn.Linear
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    model[1].weight = model[0].weight
    with pytest.raises(ValueError, match="1 shares the bits of 0"):
        prepare_qat_(model, {"0": 2, "1": "ternary"})


def test_a_table_is_no_layer():
    with pytest.raises(ValueError, match="embedding tables; linear layers are wanted"):
        prepare_qat_(toys.llama(), {"model.embed_tokens": 4})
