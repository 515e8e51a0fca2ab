"""A model without values is refused by every verb, by name, before anything is changed."""

import pytest
import torch

from lightcourse import distillation, lora, metrics, pruning, quantization
from tests import toys

BATCHES = [{"input_ids": torch.arange(8)[None]}]
FULL = torch.ones(32, 16, dtype=torch.bool)
NAME = "model.layers.1.mlp.up_proj"
MLP = "model.layers.1.mlp"
VERBS = {
    "quantize_": lambda model, _: quantization.quantize_(model),
    "quantize_ 8": lambda model, _: quantization.quantize_(model, activations=8),
    "gptq_": lambda model, _: quantization.gptq_(model, BATCHES),
    "prepare_qat_": lambda model, _: quantization.prepare_qat_(model),
    "convert_qat_": lambda model, _: quantization.convert_qat_(model),
    "rotate_": lambda model, _: quantization.rotate_(model),
    "smooth_": lambda model, _: quantization.smooth_(model, BATCHES),
    "awq_": lambda model, _: quantization.awq_(model, BATCHES),
    "split_outliers_": lambda model, _: quantization.split_outliers_(model, BATCHES),
    "synthetic_outliers_": lambda model, _: quantization.synthetic_outliers_(model, [0]),
    "calibrate": lambda model, _: quantization.calibrate(model, BATCHES),
    "prune_": lambda model, _: pruning.prune_(model, {NAME: ~FULL}),
    "hold_masks": lambda model, _: pruning.hold_masks(model, {NAME: FULL}).__enter__(),
    "magnitude_scores": lambda model, _: pruning.magnitude_scores(model),
    "random_scores": lambda model, _: pruning.random_scores(model),
    "wanda_scores": lambda model, _: pruning.wanda_scores(model, {NAME: torch.ones(16)}),
    "input_norms": lambda model, _: pruning.input_norms(model, BATCHES),
    "hessians": lambda model, _: pruning.hessians(model, BATCHES),
    "sparsegpt_": lambda model, _: pruning.sparsegpt_(model, {NAME: torch.eye(16)}, torch.ones),
    "remove_neurons_": lambda model, _: pruning.remove_neurons_(model, {MLP: FULL[:, 0]}),
    "remove_layers_": lambda model, _: pruning.remove_layers_(model, [0]),
    "remove_width_": lambda model, _: pruning.remove_width_(model, torch.arange(16) < 12),
    "taylor_scores": lambda model, _: pruning.taylor_scores(model, BATCHES),
    "neuron_taylor": lambda model, _: pruning.neuron_taylor(model, BATCHES),
    "head_taylor": lambda model, _: pruning.head_taylor(model, BATCHES),
    "block_influence": lambda model, _: pruning.block_influence(model, BATCHES),
    "width_scores": lambda model, _: pruning.width_scores(model, BATCHES),
    "add_lora_": lambda model, _: lora.add_lora_(model),
    "add_dora_": lambda model, _: lora.add_dora_(model),
    "add_ia3_": lambda model, _: lora.add_ia3_(model, ["k_proj"]),
    "PromptTuned": lambda model, _: lora.PromptTuned(model),
    "train_biases_": lambda model, _: lora.train_biases_(model),
    "student_from": lambda model, _: distillation.student_from(model, [0]),
    "sparsity": lambda model, _: metrics.sparsity(model),
    "load_pruned_": lambda model, folder: pruning.load_pruned_(model=model, path=folder / "p"),
    "load_quantized_": lambda model, folder: quantization.load_quantized_(
        model=model, path=folder / "q"
    ),
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder, model = tmp_path_factory.mktemp("saved"), toys.llama()
    pruning.save_pruned(path=folder / "p", model=model)
    quantization.quantize_(model)
    quantization.save_quantized(path=folder / "q", model=model)
    return folder


@pytest.mark.parametrize("partly", [False, True])
@pytest.mark.parametrize("verb", VERBS)
def test_a_model_on_meta_is_refused_and_left(saved, verb, partly):
    model = toys.llama()
    (model.get_submodule(NAME) if partly else model).to("meta")
    kinds = [type(module) for module in model.modules()]
    with pytest.raises(ValueError, match="on the device meta: a shape without values; load"):
        VERBS[verb](model, saved)
    assert kinds == [type(module) for module in model.modules()]


def test_integers_and_updates_on_meta_are_refused_too():
    model = toys.llama()
    quantization.quantize_(model)
    model.model.layers[1].self_attn.to("meta")
    with pytest.raises(ValueError, match=r"1.self_attn.q_proj.qweight on the device meta"):
        quantization.dequantize_(model)
    model = toys.llama()
    lora.add_lora_(model)
    with pytest.raises(ValueError, match="on the device meta"):
        lora.merge_lora_(model.to("meta"))


def test_a_layer_where_no_integer_kernel_reaches_is_refused_by_name(monkeypatch):
    elsewhere = torch.device("cuda", 1)
    monkeypatch.setattr(torch.Tensor, "device", property(lambda tensor: elsewhere))
    with pytest.raises(ValueError, match="layer 0: its weight lies on the device cuda:1, but"):
        quantization.quantize_(toys.mlp(), activations=8)


@pytest.mark.parametrize("family", toys.ALL)
def test_a_model_on_meta_is_as_large_as_one_with_values(family):
    with torch.device("meta"):
        model = toys.ALL[family]()
    assert next(model.parameters()).is_meta
    assert metrics.size_in_bytes(model) == metrics.size_in_bytes(toys.ALL[family]())
