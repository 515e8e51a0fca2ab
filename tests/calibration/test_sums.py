"""Calibration sees every real token once, batch by batch, and leaves the model alone."""

import weakref

import pytest
import torch

from lightcourse import calibration, data, layers, models, pruning, quantization
from tests import toys

IDS = torch.arange(1, 33).view(4, 8)


def batch(ids=IDS, mask=None):
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids) if mask is None else mask}


def count(state, rows):
    return (state or 0) + len(rows)


def keep(state, rows):
    return [*(state or []), rows.clone()]


@pytest.mark.parametrize("family", toys.ALL)
def test_each_layer_folds_its_own_inputs_in_order(family):
    model = toys.ALL[family]()
    found = layers.linear_layers(model)
    parts = calibration.observe_inputs(model, [batch(IDS[:1]), batch(IDS[1:])], found, keep)
    whole = calibration.observe_inputs(model, [batch()], found, keep)
    assert list(parts) == list(found)
    for name, layer in found.items():
        width = layers.weight_matrix(layer).shape[1]
        assert all(rows.dtype == torch.float32 and rows.shape[1] == width for rows in parts[name])
        assert len(parts[name]) == 2
        torch.testing.assert_close(torch.cat(parts[name]), whole[name][0])


def test_padded_tokens_are_left_out_and_batches_of_nothing_else_too():
    model, mask = toys.llama(), torch.ones_like(IDS)
    mask[:, 5:] = 0
    found = layers.linear_layers(model)
    batches = [batch(IDS, mask), batch(IDS, torch.zeros_like(IDS))]
    counts = calibration.observe_inputs(model, batches, found, count)
    assert set(counts.values()) == {20}
    with pytest.raises(ValueError, match="no linear layer saw an input"):
        calibration.observe_inputs(model, batches[1:], found, count)


def test_the_model_is_left_as_it_was():
    model = toys.bert().train()
    found = layers.linear_layers(model)
    labelled = batch() | {"labels": torch.zeros(4, dtype=torch.int64)}
    calibration.observe_inputs(model, [labelled], found, count)
    model.encoder.embeddings.LayerNorm.weight.data.fill_(float("nan"))
    with pytest.raises(ValueError, match="the inputs of head hold NaN"):
        calibration.observe_inputs(model, [batch()], {"head": model.head}, count)
    assert model.training and not any(m._forward_pre_hooks for m in model.modules())


def test_layers_are_chosen_by_name_in_the_models_order():
    model = toys.mlp()
    found = layers.linear_layers(model)
    assert list(calibration.choose_layers(model, found, None)) == ["0", "2"]
    assert list(calibration.choose_layers(model, found, iter(["2", "0"]))) == ["0", "2"]
    with pytest.raises(ValueError, match=r"names holds \['1'\], which are no linear layers"):
        calibration.choose_layers(model, found, ["1"])
    with pytest.raises(ValueError, match="without a linear layer to measure"):
        calibration.choose_layers(model, {}, None)


def test_text_that_is_none_is_refused():
    model = toys.mlp()
    found = layers.linear_layers(model)
    for batches, message in [
        ([], "batches is empty"),
        (["text"], "batches holds a str; dicts are wanted"),
        (lambda epoch, seed: [], "batches is a function"),
    ]:
        with pytest.raises(ValueError, match=message):
            calibration.observe_inputs(model, batches, found, count)


def recorded(model, batches):
    """Keep all inputs of all layers, as calibration must not."""
    seen = {}
    hooks = [
        layer.register_forward_pre_hook(
            lambda _, inputs, name=name: seen.setdefault(name, []).append(inputs[0].flatten(0, -2))
        )
        for name, layer in layers.linear_layers(model).items()
    ]
    with torch.no_grad():
        for one in batches:
            model(**one)
    for hook in hooks:
        hook.remove()
    return {name: torch.cat(parts) for name, parts in seen.items()}


@pytest.mark.parametrize("family", toys.ALL)
def test_sums_equal_those_of_all_inputs_kept(family):
    model = toys.ALL[family]()
    batches = [batch(IDS[:1]), batch(IDS[1:])]
    inputs = recorded(model, batches)
    norms, squares = calibration.input_norms(model, batches), calibration.hessians(model, batches)
    assert list(norms) == list(squares) == list(layers.linear_layers(model))
    for name, x in inputs.items():
        torch.testing.assert_close(norms[name], x.norm(dim=0))
        torch.testing.assert_close(squares[name], x.T @ x, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", toys.ALL)
def test_padding_does_not_count_in_sums(family):
    model = toys.ALL[family]()
    mask = torch.ones_like(IDS)
    mask[:, 6:] = 0
    garbage = IDS.clone()
    garbage[:, 6:] = 49
    padded = calibration.hessians(model, [batch(garbage, mask)])
    clean = calibration.hessians(model, [batch(IDS[:, :6])])
    counted = calibration.hessians(model, [batch(garbage)])
    for name in clean:
        torch.testing.assert_close(padded[name], clean[name], rtol=1e-4, atol=1e-4)
        assert (counted[name] - clean[name]).norm() > 0.03 * clean[name].norm()


def test_memory_does_not_grow_with_the_text():
    """What a hook keeps of a batch is gone when the next one comes."""
    model, alive = toys.mlp(), []

    class Spy(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = model

        def forward(self, x):
            assert not any(ref() is not None for ref in alive)
            inside = x * 1.0
            alive.append(weakref.ref(inside))
            return self.layers(inside)

    calibration.hessians(Spy(), [{"x": torch.rand(5, 8)} for _ in range(4)])
    assert len(alive) == 4


def test_sums_leave_the_model_as_it_was():
    model = toys.bert().train()
    calibration.input_norms(model, [batch() | {"labels": torch.tensor([0, 1, 2, 9])}])
    assert model.training
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert all(p.grad is None for p in model.parameters())
    first, again = (calibration.input_norms(model, [batch()]) for _ in range(2))
    assert all(torch.equal(first[name], again[name]) for name in first)  # dropout was off


def test_hooks_go_even_where_the_model_fails():
    model = toys.mlp()
    with pytest.raises(RuntimeError):
        calibration.input_norms(model, [{"input": torch.rand(2, 7)}])
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_half_precision_is_summed_in_float32():
    model = toys.llama().bfloat16()
    squares = calibration.hessians(model, [batch()])
    assert all(square.dtype == torch.float32 for square in squares.values())


def test_layers_by_name_and_layers_that_never_run():
    model = toys.gpt2()
    assert list(calibration.hessians(model, [batch()], ["transformer.h.1.mlp.c_fc"])) == [
        "transformer.h.1.mlp.c_fc"
    ]
    model.idle = torch.nn.Linear(3, 3)
    assert "idle" not in calibration.input_norms(model, [batch()])
    with pytest.raises(ValueError, match="no linear layer saw an input"):
        calibration.input_norms(model, [batch()], ["idle"])
    with pytest.raises(ValueError, match=r"names holds \['head'\]"):
        calibration.input_norms(model, [batch()], ["head"])


def test_calibration_without_text_is_refused():
    model = toys.llama()
    with pytest.raises(ValueError, match="batches is empty"):
        calibration.input_norms(model, [])
    with pytest.raises(ValueError, match="batches holds a str; dicts are wanted, in a list"):
        calibration.input_norms(model, batch())
    with pytest.raises(ValueError, match="batches is a function"):
        calibration.hessians(model, data.token_batches(torch.arange(32), 8, 2))
    with pytest.raises(ValueError, match="without a linear layer"):
        calibration.hessians(torch.nn.Sequential(torch.nn.ReLU()), [{"input": torch.rand(2)}])


def test_inputs_that_are_not_finite_are_refused():
    model = toys.mlp()
    with pytest.raises(ValueError, match="the inputs of 0 hold NaN"):
        calibration.input_norms(model, [{"input": torch.tensor([[float("nan")] * 8])}])


def test_a_layer_behind_the_pooling_counts_every_text():
    model = toys.bert()
    mask = torch.ones_like(IDS)
    mask[2, 4:] = 0
    with torch.no_grad():
        pooled = model.embed(**batch(IDS, mask))
    norms = calibration.input_norms(model, [batch(IDS, mask)])
    assert isinstance(model, models.EncoderClassifier)
    torch.testing.assert_close(norms["head"], pooled.norm(dim=0))


def test_each_method_offers_the_measures_that_it_takes():
    assert pruning.input_norms is calibration.input_norms
    assert pruning.hessians is calibration.hessians
    assert quantization.calibrate is calibration.calibrate
