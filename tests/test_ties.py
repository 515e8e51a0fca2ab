"""One weight that several layers read is changed once, and stays one."""

import pytest
import torch
from torch import nn

from lightcourse import layers, lora, metrics, pruning, quantization
from tests import toys

BATCHES = [{"input": torch.randn(6, 8, generator=torch.Generator().manual_seed(0))}]


def chain(count=3):
    """Return layers that share one weight, each with a bias of its own, and one more layer."""
    torch.manual_seed(0)
    model = nn.Sequential(*[nn.Linear(8, 8) for _ in range(count)], nn.Linear(8, 8)).eval()
    for layer in model[1:count]:
        layer.weight = model[0].weight
    return model


class Around(nn.Module):
    """A table between two layers that share its weight."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.table = nn.Linear(8, 20, bias=False), nn.Embedding(20, 8)
        self.last = nn.Linear(8, 20)
        self.first.weight = self.last.weight = self.table.weight

    def forward(self, ids):
        x = self.table(ids)
        return self.first(x) + self.last(x)


def answer(model):
    with torch.no_grad():
        return model(BATCHES[0]["input"])


def test_the_first_layer_stands_for_all_that_share_its_weight():
    model = chain()
    assert list(layers.linear_layers(model)) == ["0", "3"]
    assert layers.tied_layers(model) == {"1": "0", "2": "0"}
    assert set(layers.shared_layers(model)) == {"0", "1", "2"}


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("how", [{}, {"activations": 8}, {"bits": 4, "symmetric": False}])
def test_layers_that_share_a_weight_share_its_integers(count, how, tmp_path):
    model = chain(count)
    before, size = answer(model), metrics.size_in_bytes(model)
    report = quantization.quantize_(model, **how)
    assert size - metrics.size_in_bytes(model) == report.total
    assert all(layer.qweight is model[0].qweight for layer in model[:count])
    assert len({layer.bias.data_ptr() for layer in model}) == count + 1
    assert (answer(model) - before).abs().max() < 0.2 * before.abs().max()
    quantization.save_quantized(model=model, path=tmp_path / "q")
    again = chain(count)
    quantization.load_quantized_(model=again, path=tmp_path / "q")
    assert torch.equal(answer(again), answer(model)) and again[0].qweight is again[1].qweight
    quantization.dequantize_(model)
    assert model[0].weight is model[1].weight


def test_each_of_them_has_a_fixed_grid_of_its_own():
    model = chain(2)
    ranges = quantization.calibrate(model, BATCHES)
    assert list(ranges) == ["0", "1", "2"]
    quantization.quantize_(model, activations=8, activation_ranges=ranges)
    assert model[0].qweight is model[1].qweight
    assert model[0].input_scale != model[1].input_scale


@pytest.mark.parametrize("how", [{}, {"activations": 8}])
def test_a_table_and_two_layers_share_integers(how):
    model, ids = Around().eval(), torch.arange(20)
    before, size = model(ids), metrics.size_in_bytes(model)
    assert quantization.plan.plan_bits(model, 8, None, ())[0] == {}
    report = quantization.quantize_(model, embeddings=8, **how)
    assert size - metrics.size_in_bytes(model) == report.total
    assert model.first.qweight is model.table.qweight is model.last.qweight
    assert (model(ids) - before).abs().max() < 0.05 * before.abs().max()


def test_bits_for_one_weight_are_one_number_whoever_is_named():
    model = nn.ModuleList([nn.Embedding(9, 4), nn.Embedding(9, 4), nn.Embedding(9, 4)])
    model[1].weight = model[0].weight
    with pytest.raises(ValueError, match="bits is {'0': 8, '1': 4} for one weight that they"):
        quantization.quantize_(model, {"0": 8, "1": 4})
    quantization.quantize_(model, {"1": 4}, embeddings=8)
    assert [table.bits for table in model] == [4, 4, 8]


def test_one_named_table_is_enough_for_all_that_share_it():
    model = nn.ModuleList([nn.Embedding(9, 4), nn.Embedding(9, 4)])
    model[1].weight = model[0].weight
    assert len(quantization.quantize_(model, {"0": 4}).changed) == 2


def test_a_tied_layer_takes_the_bits_of_the_first():
    with pytest.raises(ValueError, match="1 shares the bits of 0"):
        quantization.quantize_(chain(), {"1": 8})


def test_a_shared_weight_is_pruned_once_and_stays_shared():
    model = chain()
    masks = pruning.layer_mask(pruning.magnitude_scores(model), 0.5)
    report = pruning.prune_(model, masks)
    assert report.changed == {"0": 32, "3": 32} and metrics.sparsity(model) == 0.5
    assert model[0].weight is model[2].weight
    with pruning.hold_masks(model, masks):
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        model(BATCHES[0]["input"]).sum().backward()
        optimizer.step()
    assert metrics.sparsity(model) == 0.5


def test_a_shared_weight_meets_the_inputs_of_all_its_layers():
    model, seen = chain(2), []
    for layer in model[:2]:
        layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    norms = pruning.input_norms(model, BATCHES)
    assert list(norms) == ["0", "2"]
    assert torch.allclose(norms["0"], torch.cat(seen).norm(dim=0))
    assert list(pruning.input_norms(model, BATCHES, ["2"])) == ["2"]
    assert pruning.wanda_scores(model, norms)["0"].shape == (8, 8)


def test_each_of_them_gets_an_update_of_its_own():
    model = chain(2)
    before = answer(model)
    report = lora.add_lora_(model, rank=2)
    assert list(report.changed) == ["0", "1", "2"] and not report.skipped
    assert model[0].base.weight is model[1].base.weight
    nn.init.ones_(model[1].lora_b)
    assert not torch.equal(answer(model), before)
    with pytest.raises(ValueError, match="layer 0 shares its weight with 1, which would"):
        lora.merge_lora_(model)


def test_lora_leaves_what_is_a_table_too_and_names_it():
    model = nn.ModuleDict({"last": nn.Linear(8, 8), "around": Around()})
    report = lora.add_lora_(model, rank=2)
    assert list(report.changed) == ["last"]
    why = "shares its weight with around.table"
    assert report.skipped == {"around.first": why, "around.last": why}
    with pytest.raises(ValueError, match="around.first shares its weight with around.table"):
        lora.add_lora_(model, targets=["first"], adapter="other")


def test_an_update_is_not_merged_into_a_weight_that_others_read():
    model = chain(2)
    quantization.quantize_(model)
    lora.add_lora_(model, rank=2)
    quantization.dequantize_(model)
    before = [p.clone() for p in model.parameters()]
    with pytest.raises(ValueError, match="layer 0 shares its weight with 1, which would"):
        lora.merge_lora_(model)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_an_update_is_not_merged_into_a_layer_that_multiplies_in_its_own_way():
    class Louder(nn.Linear):
        def forward(self, x):
            return 10 * super().forward(x)

    model = nn.Sequential(Louder(8, 4))
    lora.add_lora_(model, rank=2)
    with pytest.raises(ValueError, match="layer 0 is a Louder that multiplies"):
        lora.merge_lora_(model)


def test_weights_that_are_computed_take_no_mask():
    model = toys.mlp()
    nn.utils.parametrizations.weight_norm(model[0])
    with pytest.raises(ValueError, match="masks names 0, whose weight is computed"):
        pruning.prune_(model, {"0": torch.zeros(12, 8, dtype=torch.bool)})


def test_neurons_are_not_taken_out_of_one_layer_of_two_that_share():
    model = toys.llama()
    first, second = (model.model.layers[index].mlp for index in (0, 1))
    first.up_proj.weight = second.up_proj.weight
    scores = pruning.neuron_scores(model, pruning.magnitude_scores(model))
    assert list(scores) == ["model.layers.2.mlp"]
