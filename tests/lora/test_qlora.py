"""Updates beside 4-bit bases: peft over the same numbers learns the same, and bytes are saved."""

import copy
from functools import partial

import pytest
import torch

from lightcourse import lora, metrics, models, quantization, training

BASES = {
    "NF4": lambda model: quantization.codebook_(model, partial(quantization.nf4, block=64)),
    "int4": lambda model: quantization.quantize_(model, 4, group_size=64),
}
TARGETS = ["q_proj", "v_proj", "up_proj"]
BATCH = {"input_ids": torch.arange(64).view(2, 32), "labels": torch.arange(64).view(2, 32)}


def learned(model):
    """Train the adapter for five steps; return the logits."""
    recipe = training.Recipe(5, learning_rate=1e-2)
    training.train(model, lambda epoch, seed: [BATCH], recipe, progress=False)
    with torch.no_grad():
        return model(input_ids=BATCH["input_ids"]).logits


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("kind", ["LoRA", "DoRA"])
def test_training_equals_pefts_over_the_same_numbers_in_floats(tmp_path, base, kind):
    import peft

    small = models.load_tiny_lm("student")
    BASES[base](small)
    floats = copy.deepcopy(small)
    quantization.dequantize_(floats)
    before = small(input_ids=BATCH["input_ids"]).logits
    add = lora.add_dora_ if kind == "DoRA" else lora.add_lora_
    add(small, 4, 8.0, TARGETS)
    config = peft.LoraConfig(
        r=4, lora_alpha=8.0, target_modules=TARGETS, use_dora=kind == "DoRA", bias="none"
    )
    theirs = peft.get_peft_model(floats, config)
    ours = training.trainable_parameters(small).values()
    twins = training.trainable_parameters(theirs).values()
    for one, twin in zip(ours, twins, strict=True):
        twin.data.copy_(one)
    mine, twin = learned(small), learned(theirs)
    assert (mine - before).abs().max() > 1
    assert torch.allclose(mine, twin, atol=2e-3)
    plain = models.load_tiny_lm("student")
    BASES[base](plain)
    quantization.dequantize_(plain)
    path = lora.save_lora(small, tmp_path / "adapter")
    loaded = peft.PeftModel.from_pretrained(plain, path).eval()
    with torch.no_grad():
        assert torch.allclose(loaded(input_ids=BATCH["input_ids"]).logits, mine, atol=1e-3)


@pytest.mark.parametrize("base", BASES)
def test_what_training_holds_is_a_fraction_of_full_trainings(base):
    model = models.load_tiny_lm("student")
    full = metrics.training_bytes(model)
    lora.add_lora_(beside := copy.deepcopy(model), 4)
    BASES[base](model)
    lora.add_lora_(model, 4)
    small, floats = metrics.training_bytes(model), metrics.training_bytes(beside)
    assert (small.gradients, small.optimizer) == (floats.gradients, floats.optimizer)
    assert small.optimizer < full.optimizer / 20
    matrices = lora.counts(beside).run - lora.counts(beside).added - 2048 * 128  # the table's
    saved = floats.weights - small.weights
    assert 4 * matrices * 0.85 < saved < 4 * matrices * 0.875  # 32 bits became 4, and scales
    assert metrics.kept_bytes(model, BATCH) == metrics.kept_bytes(beside, BATCH)
