"""Linear layers are found in every family, tied ones are not mistaken for free ones."""

import pytest
import torch
import toys

from lightcourse import layers

COUNTS = {"bert": 2 * 6 + 1, "gpt2": 2 * 4, "llama": 3 * 7}


@pytest.mark.parametrize("family", toys.ALL)
def test_every_linear_layer_of_its_own_is_found(family):
    assert len(layers.linear_layers(toys.ALL[family]())) == COUNTS[family]


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_the_tied_output_layer_is_named_with_its_other_owner(family):
    tied = layers.tied_layers(toys.ALL[family]())
    assert list(tied) == ["lm_head"]
    assert tied["lm_head"].endswith(("wte", "embed_tokens"))


def test_matrix_is_a_view_of_outputs_by_inputs():
    model = toys.gpt2()
    layer = layers.linear_layers(model)["transformer.h.0.mlp.c_fc"]
    assert layers.matrix(layer).shape == (64, 16)
    layers.matrix(layer).data.zero_()
    assert (layer.weight == 0).all()


def test_replace_reaches_nested_layers():
    model = toys.llama()
    layers.replace(model, "model.layers.1.mlp.up_proj", torch.nn.Identity())
    assert isinstance(model.model.layers[1].mlp.up_proj, torch.nn.Identity)


def test_a_report_reads_well():
    report = layers.Report("pruned", "weights set to zero", {"a": 1500, "b": 2}, {"c": "tied"})
    assert str(report) == "pruned 2 layers: 1,502 weights set to zero\n  skipped c: tied"
    with pytest.raises(ValueError, match=r"nothing was pruned: why \(c: tied\)"):
        layers.Report("pruned", "weights", {}, {"c": "tied"}).raise_if_nothing_changed("why")
