"""Layers that go: how much each one turns, and what is left without some."""

import pytest
import torch

from lightcourse import distillation, layers, pruning
from tests import families, toys

IDS = torch.arange(1, 17).view(2, 8)
STACKS = {"bert": "encoder.encoder.layer", "gpt2": "transformer.h", "llama": "model.layers"}


def batch(padding=0):
    mask = torch.ones_like(IDS)
    mask[1, 8 - padding :] = 0
    return {"input_ids": IDS, "attention_mask": mask, "labels": IDS[:, 0] % 3}


def silence_(layer):
    """Let a pre-norm layer add nothing."""
    for name, part in layers.linear_layers(layer).items():
        if name.endswith(("o_proj", "down_proj", "c_proj")):
            part.weight.data.zero_()


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_the_influence_is_read_off_the_hidden_states(family):
    model = toys.ALL[family]()
    found = pruning.block_influence(model, [batch(3), batch()])
    wanted = {}
    for asked in (batch(3), batch()):
        inputs = {name: asked[name] for name in ("input_ids", "attention_mask")}
        with torch.no_grad():
            hidden = model(**inputs, output_hidden_states=True).hidden_states
        real = asked["attention_mask"].bool()
        # The last hidden state is normalized: what the last layer made does not stand there.
        for index, (before, after) in enumerate(zip(hidden[:-2], hidden[1:-1], strict=True)):
            cosines = torch.cosine_similarity(before, after, dim=-1)[real]
            wanted.setdefault(f"{STACKS[family]}.{index}", []).append(cosines)
    assert len(found) == len(wanted) + 1
    for name, cosines in wanted.items():
        assert found[name] == pytest.approx(1 - torch.cat(cosines).mean().item(), abs=1e-6)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_layer_that_adds_nothing_has_no_influence_and_can_go(family):
    model = toys.ALL[family]()
    name = f"{STACKS[family]}.1"
    silence_(model.get_submodule(name))
    found = pruning.block_influence(model, [batch()])
    assert found[name] == pytest.approx(0, abs=1e-6) and max(found.values()) > 1e-4
    wanted, size = toys.logits(model), sum(p.numel() for p in model.parameters())
    report = pruning.remove_layers_(model, [name])
    torch.testing.assert_close(toys.logits(model), wanted)
    assert list(report.changed) == [name]
    assert report.total == size - sum(p.numel() for p in model.parameters()) > 0


def test_padding_does_not_count_and_nothing_is_changed():
    model = toys.bert().train()
    short = {"input_ids": IDS[1:, :5], "attention_mask": torch.ones(1, 5, dtype=torch.int64)}
    first = {name: value[:1] for name, value in batch().items()}
    found = pruning.block_influence(model, [batch(3)])
    wanted = pruning.block_influence(model, [first, short])
    assert found == pytest.approx(wanted, abs=1e-6)
    assert model.training and model.encoder.training
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("family", families.FAMILIES)
def test_every_family_is_measured_and_gets_what_a_student_has(family):
    model, inputs = families.make(family)
    found = pruning.block_influence(model, [inputs])
    last = [name for name in found if name.endswith(".1")]
    assert len(found) == 2 * len(last) and all(0 <= value <= 2 for value in found.values())
    student = distillation.student_from(model, [0])
    pruning.remove_layers_(model, last)
    assert list(model.state_dict()) == list(student.state_dict())
    assert torch.equal(families.answer(model, inputs), families.answer(student, inputs))
    if hasattr(model, "config"):
        assert model.config.to_dict() == student.config.to_dict()


@pytest.mark.parametrize("name", ["encoder.block.1", "decoder.block.1"])
def test_one_of_two_stacks_may_lose_a_layer(name, tmp_path):
    model, inputs = families.make("T5")
    pruning.remove_layers_(model, [name])
    sizes = (model.config.num_layers, model.config.num_decoder_layers)
    assert sizes == ((1, 2) if "encoder" in name else (2, 1))
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path).eval()
    assert torch.equal(families.answer(again, inputs), families.answer(model, inputs))


@pytest.mark.parametrize("family", toys.ALL)
def test_saved_loaded_and_written_on(family, tmp_path):
    model = toys.ALL[family]()
    pruning.remove_layers_(model, [0])
    again = toys.reloaded(model, tmp_path)
    if family != "bert":
        assert torch.equal(*toys.written(model, IDS))
    assert torch.equal(toys.logits(again.eval()), toys.logits(model))
    assert again.config.num_hidden_layers == len(again.get_submodule(STACKS[family]))


def test_a_parameter_that_a_kept_layer_shares_is_not_counted():
    model = toys.llama()
    first, second, _ = model.model.layers
    second.mlp.up_proj.weight = first.mlp.up_proj.weight
    size = sum(p.numel() for p in model.parameters())
    report = pruning.remove_layers_(model, ["model.layers.1"])
    assert report.total == size - sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("family", "given", "message"),
    [
        ("Llama", [], r"layers is \[\]; a list of one or more"),
        ("Llama", "model.layers.1", "layers is 'model.layers.1'; a list"),
        ("Llama", 1, "layers is 1; a list"),
        ("Llama", [0, 1], r"layers is \[0, 1\], all 2 layers of model.layers"),
        ("Llama", [2], "layers holds 2, which is no layer"),
        ("Llama", [-1], "layers holds -1, which is no layer"),
        ("Llama", ["model.layers.x"], "layers holds 'model.layers.x', which is no layer"),
        ("Llama", [1, "model.layers.1"], "with model.layers.1 twice"),
        ("T5", [1], "several stacks .encoder.block, decoder.block.; names such as encoder.block.1"),
        ("T5", ["encoder.block.1", "decoder.block.0"], "layer 0 must be the first: it holds"),
        ("T5", ["decoder.block.0", "decoder.block.1"], "all 2 layers of decoder.block"),
    ],
)
def test_wrong_layers_change_nothing(family, given, message):
    model, _ = families.make(family)
    before, told = list(model.state_dict()), model.config.to_dict()
    with pytest.raises(ValueError, match=message):
        pruning.remove_layers_(model, given)
    assert list(model.state_dict()) == before and model.config.to_dict() == told


def test_what_has_no_layers_or_no_numbers_is_refused():
    for verb, given in ((pruning.block_influence, [batch()]), (pruning.remove_layers_, [0])):
        with pytest.raises(ValueError, match="Sequential without a ModuleList of layers"):
            verb(toys.mlp(), given)
    model = toys.llama()
    with pytest.raises(ValueError, match="batches is empty"):
        pruning.block_influence(model, [])
    with pytest.raises(ValueError, match="batches show layer model.layers.0 no token"):
        pruning.block_influence(model, [{"input_ids": IDS, "attention_mask": IDS * 0}])
    model.model.layers[1].mlp.down_proj.weight.data[0] = float("nan")
    with pytest.raises(ValueError, match="model.layers.1 gives NaN"):
        pruning.block_influence(model, [batch()])
    assert not any(module._forward_hooks for module in model.modules())


def test_a_token_outside_of_the_vocabulary_is_named():
    model = toys.llama()
    with pytest.raises(ValueError, match=r"asks model.embed_tokens for ids 50\.\.50; 0 to 49"):
        pruning.block_influence(model, [{"input_ids": torch.full((1, 4), 50)}])
    assert not any(module._forward_hooks for module in model.modules())
