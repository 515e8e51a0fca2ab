"""Linear layers are found in every family, tied ones are not mistaken for free ones."""

import pytest
import torch
from torch import nn

from lightcourse import layers
from tests import toys

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
    assert layers.weight_matrix(layer).shape == (64, 16)
    layers.weight_matrix(layer).data.zero_()
    assert (layer.weight == 0).all()


def test_replace_reaches_nested_layers():
    model = toys.llama()
    layers.replace_(model, "model.layers.1.mlp.up_proj", torch.nn.Identity())
    assert not model.model.layers[1].mlp.up_proj.training  # as the model is not
    assert isinstance(model.model.layers[1].mlp.up_proj, torch.nn.Identity)


def test_replace_reaches_every_place_of_a_layer_but_not_the_model_itself():
    model = toys.mlp()
    model.append(model[0])
    layers.replace_(model, "0", torch.nn.Identity())
    assert model[0] is model[3] and isinstance(model[3], torch.nn.Identity)
    with pytest.raises(ValueError, match="model is itself the Sequential to replace"):
        layers.replace_(model, "", torch.nn.Identity())


def test_owners_of_a_weight_stand_together():
    owners = layers.weight_owners(toys.gpt2())
    assert ["transformer.wte", "lm_head"] in owners and ["transformer.ln_f"] in owners
    assert sum(len(names) > 1 for names in owners) == 1


def test_tables_are_found_unless_they_look_up_in_their_own_way():
    class Shifted(torch.nn.Embedding):
        pass

    assert list(layers.embedding_tables(toys.gpt2())) == ["transformer.wte", "transformer.wpe"]
    tables = [Shifted(5, 2), torch.nn.Embedding(5, 2, max_norm=1.0), torch.nn.Embedding(5, 2)]
    assert list(layers.embedding_tables(torch.nn.ModuleList(tables))) == ["2"]


def test_shared_tensors_are_those_of_one_place_and_shape():
    x = torch.arange(6.0)
    views = {"a": x, "b": x.view(6), "c": x.view(2, 3), "d": x[1:], "e": x.clone()}
    empty = {"f": torch.empty(0), "g": torch.empty(0)}
    assert layers.shared_tensors(views | empty) == {"b": "a"}


def test_a_report_reads_well():
    report = layers.Report("pruned", "weights set to zero", {"a": 1500, "b": 2}, {"c": "tied"})
    assert str(report) == "pruned 2 layers: 1,502 weights set to zero\n  skipped c: tied"
    with pytest.raises(ValueError, match=r"nothing was pruned: why \(c: tied\)"):
        layers.Report("pruned", "weights", {}, {"c": "tied"}).raise_if_nothing_changed("why")
    two = layers.Report("pruned", "weights", {}, {"c": "tied", "d": "tied", "e": "small"})
    with pytest.raises(ValueError, match=r"why \(c and 1 more: tied; e: small\)"):
        two.raise_if_nothing_changed("why")


def test_evaluating_gives_each_module_its_own_mode_back():
    model = nn.Sequential(nn.Dropout(), nn.Sequential(nn.Dropout(), nn.Linear(2, 2))).train()
    model[1].eval()
    before = [module.training for module in model.modules()]
    with layers.evaluating(model) as same:
        assert same is model and not any(module.training for module in model.modules())
    assert [module.training for module in model.modules()] == before and len(set(before)) == 2
