"""Calibration sums what the layers see, and nothing else; Wanda's scores come from it."""

import weakref

import pytest
import torch
import toys

from lightcourse import data, layers, models, pruning

IDS = torch.arange(1, 33).view(4, 8)


def batch(ids=IDS, mask=None):
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids) if mask is None else mask}


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
    norms, squares = pruning.input_norms(model, batches), pruning.hessians(model, batches)
    assert list(norms) == list(squares) == list(layers.linear_layers(model))
    for name, x in inputs.items():
        torch.testing.assert_close(norms[name], x.norm(dim=0))
        torch.testing.assert_close(squares[name], x.T @ x, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", toys.ALL)
def test_padding_does_not_count(family):
    model = toys.ALL[family]()
    mask = torch.ones_like(IDS)
    mask[:, 6:] = 0
    garbage = IDS.clone()
    garbage[:, 6:] = 49
    padded = pruning.hessians(model, [batch(garbage, mask)])
    clean = pruning.hessians(model, [batch(IDS[:, :6])])
    counted = pruning.hessians(model, [batch(garbage)])
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

    pruning.hessians(Spy(), [{"x": torch.rand(5, 8)} for _ in range(4)])
    assert len(alive) == 4


def test_the_model_is_left_as_it_was():
    model = toys.bert().train()
    pruning.input_norms(model, [batch() | {"labels": torch.tensor([0, 1, 2, 9])}])
    assert model.training
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert all(p.grad is None for p in model.parameters())
    first, again = (pruning.input_norms(model, [batch()]) for _ in range(2))
    assert all(torch.equal(first[name], again[name]) for name in first)  # dropout was off


def test_hooks_go_even_where_the_model_fails():
    model = toys.mlp()
    with pytest.raises(RuntimeError):
        pruning.input_norms(model, [{"input": torch.rand(2, 7)}])
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_half_precision_is_summed_in_float32():
    model = toys.llama().bfloat16()
    squares = pruning.hessians(model, [batch()])
    assert all(square.dtype == torch.float32 for square in squares.values())


def test_layers_by_name_and_layers_that_never_run():
    model = toys.gpt2()
    assert list(pruning.hessians(model, [batch()], ["transformer.h.1.mlp.c_fc"])) == [
        "transformer.h.1.mlp.c_fc"
    ]
    model.idle = torch.nn.Linear(3, 3)
    assert "idle" not in pruning.input_norms(model, [batch()])
    with pytest.raises(ValueError, match="no linear layer saw an input"):
        pruning.input_norms(model, [batch()], ["idle"])
    with pytest.raises(ValueError, match=r"names holds \['head'\]"):
        pruning.input_norms(model, [batch()], ["head"])


def test_calibration_without_text_is_refused():
    model = toys.llama()
    with pytest.raises(ValueError, match="batches is empty"):
        pruning.input_norms(model, [])
    with pytest.raises(ValueError, match="batches holds a str; dicts are wanted, in a list"):
        pruning.input_norms(model, batch())
    with pytest.raises(ValueError, match="batches is a function"):
        pruning.hessians(model, data.token_batches(torch.arange(32), 8, 2))
    with pytest.raises(ValueError, match="without a linear layer"):
        pruning.hessians(torch.nn.Sequential(torch.nn.ReLU()), [{"input": torch.rand(2)}])


def test_inputs_that_are_not_finite_are_refused():
    model = toys.mlp()
    with pytest.raises(ValueError, match="the inputs of 0 hold NaN"):
        pruning.input_norms(model, [{"input": torch.tensor([[float("nan")] * 8])}])


def test_wanda_weighs_each_column_by_its_input():
    weight, norms = torch.randn(3, 5), torch.rand(5)
    scores = pruning.wanda_scores(weight, norms)
    for row in range(3):
        for column in range(5):
            wanted = abs(weight[row, column].item()) * norms[column].item()
            assert scores[row, column].item() == pytest.approx(wanted)


@pytest.mark.parametrize("family", toys.ALL)
def test_wanda_on_a_model_is_wanda_on_each_layer(family):
    model = toys.ALL[family]()
    norms = pruning.input_norms(model, [batch()])
    scores = pruning.wanda_scores(model, norms)
    found = layers.linear_layers(model)
    assert list(scores) == list(found)
    for name, score in scores.items():
        wanted = pruning.wanda_scores(layers.matrix(found[name]), norms[name])
        assert torch.equal(score, wanted)
        assert not score.requires_grad
    equal = {name: torch.ones_like(norm) for name, norm in norms.items()}
    plain = pruning.magnitude_scores(model)
    flat = pruning.wanda_scores(model, equal)
    assert all(torch.equal(flat[name], plain[name]) for name in plain)


def test_norms_that_fit_nothing_are_refused():
    model = toys.mlp()
    with pytest.raises(ValueError, match="input_norms is empty"):
        pruning.wanda_scores(model, {})
    with pytest.raises(ValueError, match=r"input_norms names \['9'\]"):
        pruning.wanda_scores(model, {"9": torch.ones(8)})
    with pytest.raises(ValueError, match=r"shape \(12,\); \(8,\) is wanted"):
        pruning.wanda_scores(model, {"0": torch.ones(12)})
    model[0].weight.data[0, 0] = float("nan")
    with pytest.raises(ValueError, match="the weight of 0 holds NaN"):
        pruning.wanda_scores(model, {"0": torch.ones(8)})


def test_a_layer_behind_the_pooling_counts_every_text():
    model = toys.bert()
    mask = torch.ones_like(IDS)
    mask[2, 4:] = 0
    with torch.no_grad():
        pooled = model.embed(**batch(IDS, mask))
    norms = pruning.input_norms(model, [batch(IDS, mask)])
    assert isinstance(model, models.EncoderClassifier)
    torch.testing.assert_close(norms["head"], pooled.norm(dim=0))
