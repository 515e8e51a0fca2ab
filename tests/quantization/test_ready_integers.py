"""quantize_ stores integers that others found, as they are, or refuses them."""

import pytest
import torch
from torch import nn

from lightcourse import layers, quantization
from tests import toys


def rounded(model, bits, group_size=None, symmetric=True):
    """Return the integers of each linear layer, rounded down instead of to nearest."""
    found = {}
    for name, layer in layers.linear_layers(model).items():
        weight = layers.weight_matrix(layer).detach()
        q, *grid = quantization.round_to_nearest(weight, bits, group_size, symmetric)
        quant_min, _ = quantization.quant_range(bits)
        found[name] = (q - 1).clamp(min=quant_min), *grid
    return found


@pytest.mark.parametrize("family", toys.ALL)
@pytest.mark.parametrize("bits, group_size, symmetric", [(8, None, True), (4, 8, False)])
def test_finished_integers_are_stored_as_they_are(family, bits, group_size, symmetric):
    model = toys.ALL[family]()
    ready = rounded(model, bits, group_size, symmetric)
    report = quantization.quantize_(model, bits, integers=ready)
    assert list(report.changed) == list(ready)
    for name, (q, scale, zero_point) in ready.items():
        layer = model.get_submodule(name)
        assert torch.equal(layer.integers(), q) and torch.equal(layer.scales(), scale)
        assert layer.symmetric == (zero_point is None)
        assert layer.group_size == group_size
    assert toys.logits(model).isfinite().all()


def test_layers_without_finished_integers_are_rounded_to_nearest():
    model, twin = toys.mlp(), toys.mlp()
    ready = rounded(model, 4, 4)
    quantization.quantize_(model, 4, 4, integers={"2": ready["2"]})
    quantization.quantize_(twin, 4, 4)
    assert torch.equal(model[0].integers(), twin[0].integers())
    assert torch.equal(model[2].integers(), ready["2"][0])


def test_a_table_and_its_output_layer_share_finished_integers():
    model = toys.llama()
    weight = model.lm_head.weight.detach()
    ready = quantization.round_to_nearest(weight, 4, 8)
    quantization.quantize_(
        model, {"model.embed_tokens": 4}, activations=None, integers={"lm_head": ready}
    )
    head, table = model.lm_head, model.model.embed_tokens
    assert head.qweight is table.qweight and torch.equal(head.integers(), ready[0])


def test_finished_integers_keep_the_dtype_and_the_bias_of_their_layer():
    model = toys.mlp().bfloat16()
    bias = model[0].bias.detach().clone()
    quantization.quantize_(model, 8, integers=rounded(model, 8))
    assert model[0].dtype == torch.bfloat16 and torch.equal(model[0].bias, bias)


Q, SCALE = torch.ones(12, 8, dtype=torch.int8), torch.ones(12, 1)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"integers": {"9": (Q, SCALE, None)}}, "integers names 9, which .* no linear layer"),
        ({"integers": {"0": (Q, SCALE, None)}, "skip": ["0"]}, "not converted: named in skip"),
        ({"integers": {"0": (Q, SCALE, None)}, "bits": {"2": 8}}, "0, .*: not named in bits"),
        ({"integers": {"0": (Q, SCALE)}}, r"layer 0: integers is a tuple; \(q, scale, zero_point"),
        ({"integers": {"0": (Q.T, SCALE[:8], None)}}, r"layer 0: q has shape \(8, 12\); the weigh"),
        ({"integers": {"0": (Q * 9, SCALE, None)}, "bits": 4}, "layer 0: q spans 9..9; -8 to 7"),
        ({"integers": {"0": (Q, SCALE * 0, None)}}, "layer 0: scale holds 0, NaN or infinity"),
        ({"integers": [1]}, "integers is a list; a dict"),
        ({"integers": {"0": None}}, "layer 0: integers is a NoneType; .q, scale, zero_point"),
        ({"integers": {"0": Q}}, "layer 0: integers is a Tensor; .q, scale, zero_point"),
        ({"activations": 8, "activation_ranges": (-1, 1)}, "activation_ranges is a tuple; a dict"),
    ],
)
def test_integers_that_do_not_fit_are_refused_and_change_nothing(arguments, message):
    model = toys.mlp()
    with pytest.raises(ValueError, match=message):
        quantization.quantize_(model, **arguments)
    assert type(model[0]) is type(model[2]) is nn.Linear


def test_one_weight_takes_finished_integers_once():
    model = toys.llama()
    ready = quantization.round_to_nearest(model.lm_head.weight.detach(), 8)
    both = {"lm_head": ready, "model.embed_tokens": ready}
    with pytest.raises(ValueError, match="which share one weight; one name is wanted"):
        quantization.quantize_(model, 8, embeddings=8, integers=both)


def test_the_callers_choice_of_a_grid_serves_tables_as_well():
    model, asked = toys.gpt2(), []

    def choose(groups, bits, symmetric, dim):
        asked.append(tuple(groups.shape))
        return quantization.choose_qparams_mse(groups, bits, symmetric, dim)

    report = quantization.quantize_(model, 8, embeddings=8, choose_qparams=choose)
    table = model.transformer.wte
    assert (*table.shape[:1], 1, table.shape[1]) in asked
    assert len(asked) == len(report.changed) - 1  # the output layer shares the table's
