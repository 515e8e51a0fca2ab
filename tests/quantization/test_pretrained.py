"""``save_pretrained`` of a changed model: the same model again, or a refusal that tells the way."""

import json
import subprocess
import sys

import pytest
import torch
import transformers

from lightcourse import distillation, files, lora, pruning, quantization
from tests import families, toys


@pytest.fixture(autouse=True)
def quiet():
    transformers.logging.disable_progress_bar()
    yield
    transformers.logging.enable_progress_bar()


def again(model, folder, **settings):
    """Return what ``from_pretrained`` makes of a saved model."""
    model.save_pretrained(folder, **settings)
    return type(model).from_pretrained(folder).eval()


WAYS = {
    "8 bits": {"bits": 8},
    "8 bits, integers": {"bits": 8, "activations": 8},
    "8 bits, zero points": {"bits": 8, "symmetric": False},
    "4 bits, groups": {"bits": 4, "group_size": 32},
    "4 bits, groups, zero points, integers": {
        **{"bits": 4, "group_size": 32, "symmetric": False, "activations": 8}
    },
    "3 bits": {"bits": 3},
    "table too": {"bits": 8, "embeddings": 8},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("family", ["Llama", "Qwen2", "GPT-2", "BART"])
def test_a_quantized_model_comes_back_bit_for_bit(tmp_path, family, way):
    model, inputs = families.make(family)
    quantization.quantize_(model, **WAYS[way])
    loaded = again(model, tmp_path)
    assert torch.equal(families.answer(loaded, inputs), families.answer(model, inputs))
    state, wanted = loaded.state_dict(), model.state_dict()
    assert list(state) == list(wanted)
    assert all(torch.equal(state[name], wanted[name]) for name in wanted)
    again(loaded, tmp_path / "twice")


def test_bits_by_layer_ranges_and_skipped_layers_come_back(tmp_path):
    model, inputs = families.make("Llama")
    names = [name for name in quantization.verbs.layers.linear_layers(model)]
    batches = [{"input_ids": inputs["input_ids"]}]
    ranges = quantization.calibrate(model, batches, names=names[:3])
    bits = dict(zip(names, (8, 4, 3), strict=False))
    quantization.quantize_(model, bits, activations=8, activation_ranges=ranges, skip=names[3:])
    loaded = again(model, tmp_path)
    assert torch.equal(families.answer(loaded, inputs), families.answer(model, inputs))


def test_a_tied_table_is_stored_once_and_shared_again(tmp_path):
    model, _ = families.make("Qwen2")
    quantization.quantize_(model, 8, embeddings=8)
    loaded = again(model, tmp_path)
    assert loaded.lm_head.qweight is loaded.model.embed_tokens.qweight
    plain, _ = families.make("Qwen2")
    plain.save_pretrained(tmp_path / "plain")
    sizes = [(tmp_path / p / "model.safetensors").stat().st_size for p in ("", "plain")]
    assert sizes[0] < 0.5 * sizes[1]


def test_shards_other_dtypes_and_generation(tmp_path):
    model, inputs = families.make("Llama")
    model = model.bfloat16()
    quantization.quantize_(model, 4, group_size=32, activations=8)
    loaded = again(model, tmp_path, max_shard_size="10KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    assert torch.equal(families.answer(loaded, inputs), families.answer(model, inputs))
    settings = {"max_new_tokens": 5, "min_new_tokens": 5, "do_sample": False}
    texts = [m.generate(**inputs, **settings) for m in (model, loaded)]
    assert torch.equal(*texts)


FRESH = """
import sys
import torch
import lightcourse
assert "transformers" not in sys.modules
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained(sys.argv[1])
torch.save(model(torch.arange(3, 11)[None]).logits, sys.argv[2])
"""


@pytest.mark.parametrize("order", ["lightcourse first", "transformers first"])
def test_a_fresh_process_needs_no_more_than_import_lightcourse(tmp_path, order):
    model, _ = families.make("Llama")
    quantization.quantize_(model, 8)
    model.save_pretrained(tmp_path)
    code = FRESH if order == "lightcourse first" else FRESH.replace("import lightcourse\n", "")
    code = code.replace("import AutoModelForCausalLM", "import AutoModelForCausalLM, quantizers")
    if order != "lightcourse first":
        code = code.replace('assert "transformers" not in sys.modules\n', "")
        code = code.replace("\nmodel =", "\nimport lightcourse\nmodel =")
    command = [sys.executable, "-W", "ignore", "-c", code, tmp_path, tmp_path / "logits"]
    subprocess.run(command, check=True, capture_output=True)
    logits = torch.load(tmp_path / "logits")
    assert torch.equal(logits, model(torch.arange(3, 11)[None]).logits)


def test_an_encoder_inside_a_classifier_is_saved_as_itself(tmp_path):
    model = toys.bert()
    quantization.quantize_(model, 8)
    model.encoder.save_pretrained(tmp_path)
    loaded = transformers.BertModel.from_pretrained(tmp_path, add_pooling_layer=False).eval()
    ids = torch.arange(1, 9)[None]
    outputs = [m(ids).last_hidden_state for m in (loaded, model.encoder.eval())]
    assert torch.equal(*outputs)


def test_what_was_dequantized_or_merged_is_saved_as_any_model(tmp_path):
    model, inputs = families.make("Llama")
    quantization.quantize_(model, 8)
    model.save_pretrained(tmp_path / "integers")
    quantization.dequantize_(model)
    lora.add_lora_(model, rank=2)
    lora.merge_lora_(model)
    loaded = again(model, tmp_path / "floats")
    assert torch.equal(families.answer(loaded, inputs), families.answer(model, inputs))
    config = json.loads((tmp_path / "floats" / "config.json").read_text())
    assert "quantization_config" not in config


def test_transformers_own_dequantize_gives_floats(tmp_path):
    model, inputs = families.make("Llama")
    quantization.quantize_(model, 8)
    loaded = again(model, tmp_path).dequantize()
    assert type(loaded.lm_head) is torch.nn.Linear
    assert torch.allclose(families.answer(loaded, inputs), families.answer(model, inputs))


def removed(model, share, every_layer):
    """Remove neurons of all feed-forward blocks, or of the first alone."""
    masks = pruning.layer_mask(pruning.neuron_scores(model, pruning.magnitude_scores(model)), share)
    chosen = masks if every_layer else dict(list(masks.items())[:1])
    pruning.remove_neurons_(model, chosen)


def headless(model):
    """Remove half of the heads of the first attention alone: no configuration can tell that."""
    scores = pruning.head_scores(model, pruning.magnitude_scores(model))
    masks = pruning.layer_mask(scores, 0.5)
    pruning.remove_heads_(model, dict(list(masks.items())[:1]))


SAVED = {
    "zeros": lambda m: pruning.prune_(m, pruning.layer_mask(pruning.magnitude_scores(m), 0.5)),
    "narrower everywhere": lambda m: removed(m, 0.5, every_layer=True),
    "zeros, then integers": lambda m: (SAVED["zeros"](m), quantization.quantize_(m, 8)),
    "narrower, then integers": lambda m: (removed(m, 0.5, True), quantization.quantize_(m, 8)),
}
REFUSED = {
    "narrower in places": (lambda m: removed(m, 0.5, every_layer=False), "save_pruned"),
    "fewer heads": (headless, "save_pruned"),
    "LoRA": (lambda m: lora.add_lora_(m, rank=2), "merge_lora_ it first, or .* save_lora"),
    "LoRA over integers": (
        lambda m: (quantization.quantize_(m, 8), lora.add_lora_(m, rank=2)),
        "merge_lora_ it first, or .* save_lora",
    ),
    "fewer heads, integers": (lambda m: (headless(m), quantization.quantize_(m, 8)), "save_pruned"),
}


@pytest.mark.parametrize("family", ["Llama", "BERT"])
@pytest.mark.parametrize("change", SAVED)
def test_a_pruned_model_comes_back(tmp_path, family, change):
    model, inputs = families.make(family)
    SAVED[change](model)
    loaded = again(model, tmp_path)
    assert torch.equal(families.answer(loaded, inputs), families.answer(model, inputs))


@pytest.mark.parametrize("family", ["Llama", "BERT"])
@pytest.mark.parametrize("change", REFUSED)
def test_what_no_configuration_describes_is_refused_before_anything_is_written(
    tmp_path, family, change
):
    model, _ = families.make(family)
    verb, message = REFUSED[change]
    verb(model)
    with pytest.raises(ValueError, match=message):
        model.save_pretrained(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("family", ["Llama", "BERT", "GPT-2"])
def test_a_student_of_fewer_layers_comes_back(tmp_path, family):
    model, inputs = families.make(family)
    student = distillation.student_from(model, [1])
    loaded = again(student, tmp_path)
    assert torch.equal(families.answer(loaded, inputs), families.answer(student, inputs))
    quantization.quantize_(student, 8)
    loaded = again(student, tmp_path / "integers")
    assert torch.equal(families.answer(loaded, inputs), families.answer(student, inputs))


def test_a_plain_checkpoint_is_not_quantized_by_a_configuration_alone(tmp_path):
    families.make("Llama")[0].save_pretrained(tmp_path)
    config = quantization.pretrained.LightcourseConfig()
    with pytest.raises(ValueError, match="does require the model to be pre-quantized"):
        transformers.LlamaForCausalLM.from_pretrained(tmp_path, quantization_config=config)


def test_without_lightcourse_nobody_gets_random_weights(tmp_path):
    model, _ = families.make("Llama")
    quantization.quantize_(model, 8)
    model.save_pretrained(tmp_path)
    code = FRESH.replace("import lightcourse\n", "")
    command = [sys.executable, "-W", "ignore", "-c", code, tmp_path, tmp_path / "logits"]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode and "ignore_mismatched_sizes" in run.stderr


def test_what_was_loaded_into_a_model_is_saved_as_integers(tmp_path):
    model, inputs = families.make("Llama")
    quantization.quantize_(model, 4, group_size=32)
    path = quantization.save_quantized(model, tmp_path / "integers")
    other, _ = families.make("Llama")
    quantization.load_quantized_(other, path)
    loaded = again(other, tmp_path / "folder")
    assert torch.equal(families.answer(loaded, inputs), families.answer(model, inputs))


def hidden(model, inputs):
    with torch.no_grad():
        return model.base_model(**inputs).last_hidden_state


@pytest.mark.parametrize(
    "to, embeddings",
    [("base", None), ("base", 8), ("head", None), ("other head", None), ("other head", 8)],
)
def test_base_models_and_heads_read_each_others_checkpoints(tmp_path, to, embeddings):
    model, inputs = families.make("Qwen2")
    quantization.quantize_(model, 8, embeddings=embeddings)
    (model.model if to == "head" else model).save_pretrained(tmp_path)
    kinds = {
        "base": transformers.AutoModel,
        "head": transformers.AutoModelForCausalLM,
        "other head": transformers.AutoModelForSequenceClassification,
    }
    loaded = kinds[to].from_pretrained(tmp_path).eval()
    assert torch.equal(hidden(loaded, inputs), hidden(model, inputs))


def test_a_head_in_floats_cannot_share_a_base_models_integers(tmp_path):
    model, _ = families.make("Qwen2")
    quantization.quantize_(model, 8, embeddings=8)
    model.model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="lm_head shares its weight with model.embed_tokens"):
        type(model).from_pretrained(tmp_path)


def lose_a_tensor(folder, buffer):
    tensors, header = files.load_tensors(folder / "model.safetensors")
    del tensors[next(name for name in tensors if name.endswith(buffer))]
    files.save_tensors(tensors, folder / "model.safetensors", header)


@pytest.mark.parametrize("buffer", ["qweight", "scale"])
def test_a_checkpoint_without_some_integers_is_not_filled_at_random(tmp_path, buffer):
    model, _ = families.make("Llama")
    quantization.quantize_(model, 8)
    model.save_pretrained(tmp_path)
    lose_a_tensor(tmp_path, buffer)
    with pytest.raises(ValueError, match=f"holds no .*{buffer}, though its config.json"):
        type(model).from_pretrained(tmp_path)


def test_floats_under_a_quantized_models_configuration_are_refused(tmp_path):
    model, _ = families.make("Llama")
    quantization.quantize_(model, 8)
    model.save_pretrained(tmp_path)
    type(model)(model.config).save_pretrained(tmp_path / "floats")
    with pytest.raises(ValueError, match="made from a quantized one's configuration"):
        type(model).from_pretrained(tmp_path / "floats")


def test_another_dtype_is_what_the_model_would_become_by_itself(tmp_path):
    model, _ = families.make("Qwen2")
    quantization.quantize_(model, 4, group_size=32, embeddings=8)
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path, dtype=torch.bfloat16)
    state, wanted = loaded.state_dict(), model.bfloat16().state_dict()
    assert {name: tensor.dtype for name, tensor in state.items()} == {
        name: tensor.dtype for name, tensor in wanted.items()
    }
    assert all(torch.equal(state[name], wanted[name]) for name in wanted)
    assert loaded.model.embed_tokens.dtype == loaded.lm_head.dtype == torch.bfloat16


def test_a_loaded_model_may_do_what_the_saved_one_might(tmp_path):
    model, inputs = families.make("Llama")
    quantization.quantize_(model, 8)
    loaded = again(model, tmp_path)
    assert torch.equal(
        families.answer(loaded.half(), inputs), families.answer(model.half(), inputs)
    )
