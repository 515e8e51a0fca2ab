"""Parts that go: rows and columns of layers, units of blocks, layers of stacks, and the config."""

import pytest
import torch
import transformers
from torch import nn
from transformers.pytorch_utils import Conv1D

from lightcourse import distillation, layers, surgery
from tests import families, toys

MASK = torch.tensor([True, False, True])


def linear(bias=True):
    torch.manual_seed(0)
    return nn.Linear(6, 9, bias=bias)


def conv1d():
    torch.manual_seed(0)
    layer = Conv1D(9, 6)
    nn.init.normal_(layer.bias)
    return layer


LAYERS = {"linear": linear, "without bias": lambda: linear(False), "Conv1D": conv1d}


@pytest.mark.parametrize("kind", LAYERS)
def test_outputs_that_go_are_slices_of_the_answer(kind):
    layer, x = LAYERS[kind](), torch.randn(4, 6)
    before, size = layer(x).detach(), sum(p.numel() for p in layer.parameters())
    removed = surgery.drop_outputs_(layer, MASK)
    torch.testing.assert_close(layer(x), before.view(4, 3, 3)[:, MASK].flatten(1))
    assert removed == size - sum(p.numel() for p in layer.parameters()) == 3 * (size // 9)
    assert kind == "Conv1D" or (layer.out_features, layer.in_features) == (6, 6)


@pytest.mark.parametrize("kind", LAYERS)
def test_inputs_that_go_are_inputs_of_zero(kind):
    layer, x = LAYERS[kind](), torch.randn(4, 3, 2)
    before = layer((x * MASK[:, None]).flatten(1)).detach()
    assert surgery.drop_inputs_(layer, MASK) == 2 * 9
    torch.testing.assert_close(layer(x[:, MASK].flatten(1)), before)


def test_what_is_frozen_stays_frozen_and_its_neighbour_trains():
    layer = linear()
    layer.weight.requires_grad_(False)
    surgery.drop_outputs_(layer, MASK)
    assert not layer.weight.requires_grad and layer.bias.requires_grad
    assert layer.weight.is_leaf and layer.weight.is_contiguous()


@pytest.mark.parametrize(
    ("family", "name", "block"),
    [
        (
            "BERT",
            "bert.encoder.layer.1",
            surgery.Block(("intermediate.dense",), "output.dense", 64),
        ),
        ("GPT-2", "transformer.h.1.mlp", surgery.Block(("c_fc",), "c_proj", 128)),
        ("Llama", "model.layers.1.mlp", surgery.Block(("gate_proj", "up_proj"), "down_proj", 64)),
    ],
)
def test_feed_forwards_are_known_by_their_layers(family, name, block):
    model, _ = families.make(family)
    assert len(surgery.feed_forwards(model)) == 2
    makers = tuple(f"{name}.{maker}" for maker in block.makers)
    wanted = surgery.Block(makers, f"{name}.{block.reader}", block.units)
    assert surgery.feed_forwards(model)[name] == wanted


@pytest.mark.parametrize(
    "family, heads", [("BERT", 4), ("GPT-2", 4), ("Llama", 2), ("Qwen2-MoE", 2)]
)
def test_attentions_count_the_heads_that_can_go(family, heads):
    model, _ = families.make(family)
    found = surgery.attentions(model)
    assert {block.units for block in found.values()} == {heads} and len(found) == 2
    for name, block in found.items():
        assert len(block.makers) * block.fused == 3 and block.reader.startswith(name)


def test_keys_and_values_of_another_text_are_no_heads_of_gpt2():
    shape = {"vocab_size": 9, "n_embd": 8, "n_layer": 1, "n_head": 2, "add_cross_attention": True}
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**shape))
    assert list(surgery.attentions(model)) == ["transformer.h.0.attn"]


def test_a_block_whose_layer_another_one_shares_is_none():
    model = toys.llama()
    model.model.layers[1].mlp.up_proj.weight = model.model.layers[0].mlp.up_proj.weight
    assert list(surgery.feed_forwards(model)) == ["model.layers.2.mlp"]


def test_the_config_tells_a_width_only_where_all_have_it():
    model = toys.gpt2()
    blocks = surgery.feed_forwards(model)
    mask = torch.arange(64) < 24
    for name, wanted in zip(blocks, (None, 24), strict=True):
        removed = surgery.drop_units_(model, blocks[name], mask)
        surgery.note_sizes(model)
        assert removed == 40 * (16 + 1 + 16)
        assert model.config.n_inner == wanted
        maker, reader = (model.get_submodule(f"{name}.{part}") for part in ("c_fc", "c_proj"))
        assert (maker.nf, reader.nx) == (24, 24)


def test_sizes_that_lie_are_set_right():
    model = toys.mlp()
    model[0].out_features = 7
    surgery.note_sizes(model)
    assert model[0].out_features == 12


def cut_(model, kept):
    """Keep some layers, in place: what a verb that removes layers will do."""
    stacks = surgery.layer_stacks(model)
    surgery.check_layers(stacks, kept)
    for name, stack in stacks.items():
        layers.replace_(model, name, nn.ModuleList(stack[index] for index in kept))
    lengths = {name: len(stack) for name, stack in stacks.items()}
    surgery.note_layers(model, lengths, dict.fromkeys(stacks, kept))


@pytest.mark.parametrize("family", families.FAMILIES)
def test_layers_removed_in_place_leave_the_same_model_as_a_student(family):
    (model, inputs), (teacher, _) = families.make(family), families.make(family)
    student = distillation.student_from(teacher, [0])
    cut_(model, [0])
    assert list(model.state_dict()) == list(student.state_dict())
    assert torch.equal(families.answer(model, inputs), families.answer(student, inputs))
    if hasattr(model, "config"):
        assert model.config.to_dict() == student.config.to_dict() != teacher.config.to_dict()


@pytest.mark.parametrize(
    ("family", "names"),
    [
        ("BERT", ["bert.encoder.layer"]),
        ("T5", ["encoder.block", "decoder.block"]),
        ("CLIP", ["text_model.encoder.layers", "vision_model.encoder.layers"]),
        ("Mixtral", ["model.layers"]),
    ],
)
def test_stacks_are_found_by_name(family, names):
    assert list(surgery.layer_stacks(families.make(family)[0])) == names


def test_layers_in_another_order_are_renumbered_for_the_cache():
    model = toys.llama()
    wanted = [model.model.layers[index].mlp for index in (2, 0)]
    cut_(model, [2, 0])
    assert [layer.mlp for layer in model.model.layers] == wanted
    assert [layer.self_attn.layer_idx for layer in model.model.layers] == [0, 1]
    assert model.config.num_hidden_layers == 2


def test_layers_that_others_lean_on_must_stay_first():
    stacks = surgery.layer_stacks(families.make("T5")[0])
    with pytest.raises(ValueError, match=r"layer 0 must be the first: it holds .*relative"):
        surgery.check_layers(stacks, [1, 0])
    with pytest.raises(ValueError, match=r"layers is \[2\]; some of the layers 0\.\.1 are wanted"):
        surgery.check_layers(stacks, [2])
    surgery.check_layers(stacks, [0])
