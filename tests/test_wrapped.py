"""Models within wrappers, and arguments in the wrong places: plain names, clear errors."""

import pytest
import torch
from torch import nn

from lightcourse import (
    calibration,
    distillation,
    files,
    layers,
    lora,
    metrics,
    pruning,
    quantization,
    training,
)
from tests import toys

SAVES = [pruning.save_pruned, quantization.save_quantized, lora.save_lora]
LOADS = [pruning.load_pruned_, quantization.load_quantized_, lora.load_lora_, lora.unmerge_lora_]


@pytest.fixture(scope="module")
def group(tmp_path_factory):
    """A group of one process, which DistributedDataParallel wants."""
    store = tmp_path_factory.mktemp("group") / "store"
    torch.distributed.init_process_group("gloo", f"file://{store}", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


WRAPPERS = {
    "compiled": lambda model: torch.compile(model, backend="eager"),
    "data parallel": nn.DataParallel,
    "distributed": nn.parallel.DistributedDataParallel,
    "both": lambda model: torch.compile(nn.DataParallel(model), backend="eager"),
}
VERBS = {
    "prune": lambda m: pruning.prune_(m, pruning.layer_mask(pruning.magnitude_scores(m), 0.5)),
    "quantize": lambda m: quantization.quantize_(m, 8),
    "adapt": lambda m: lora.add_lora_(m, rank=2),
    "neurons": lambda m: pruning.remove_neurons_(
        m, pruning.layer_mask(pruning.neuron_scores(m, pruning.magnitude_scores(m)), 0.5)
    ),
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_and_its_report_see_the_model_inside(group, wrapper, verb):
    plain, inside = toys.bert(), toys.bert()
    wanted, got = VERBS[verb](plain), VERBS[verb](WRAPPERS[wrapper](inside))
    assert got.changed == wanted.changed and got.skipped == wanted.skipped
    assert list(inside.state_dict()) == list(plain.state_dict())


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_files_of_a_wrapped_model_are_those_of_the_model_inside(group, tmp_path, wrapper):
    wrap = WRAPPERS[wrapper]
    for verb, save, load in [
        ("prune", pruning.save_pruned, pruning.load_pruned_),
        ("quantize", quantization.save_quantized, quantization.load_quantized_),
    ]:
        model = toys.bert()
        VERBS[verb](model)
        plain, wrapped = save(model, tmp_path / "plain"), save(wrap(model), tmp_path / "wrapped")
        assert files.sha256(plain) == files.sha256(wrapped)
        other = toys.bert()
        load(wrap(other), wrapped)
        assert torch.equal(toys.logits(other), toys.logits(model))


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_adapters_of_a_wrapped_model_fit_the_plain_one(group, tmp_path, wrapper):
    model = toys.bert()
    wrapped = WRAPPERS[wrapper](model)
    lora.add_lora_(wrapped, rank=2)
    for layer in lora.shell.updates(model).values():
        nn.init.normal_(layer.lora_b)
    path = lora.save_lora(wrapped, tmp_path / "adapter")
    other = toys.bert()
    lora.load_lora_(other, path)
    assert torch.equal(toys.logits(other), toys.logits(model))
    assert lora.adapters(wrapped) == {"default": True}


def test_measures_and_students_see_the_model_inside(group):
    model = toys.bert()
    wrapped = torch.compile(model, backend="eager")
    VERBS["prune"](wrapped)
    assert metrics.sparsity(wrapped) == metrics.sparsity(model) > 0.4
    student = distillation.student_from(wrapped, [0])
    assert not any("_orig_mod" in name for name in student.state_dict())


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("measure", ["input_norms", "hessians", "calibrate"])
def test_calibration_names_the_layers_of_the_model_inside(group, wrapper, measure):
    batches = [{"input_ids": torch.arange(1, 17).view(2, 8)}]
    batches[0]["attention_mask"] = torch.ones_like(batches[0]["input_ids"])
    measured = getattr(calibration, measure)(WRAPPERS[wrapper](toys.bert()), batches)
    assert list(measured) == list(layers.linear_layers(toys.bert()))


def test_a_verb_on_a_compiled_model_changes_its_answers():
    model = toys.bert()
    compiled = torch.compile(model, backend="eager")
    before = toys.logits(compiled)
    quantization.quantize_(compiled, 4)
    assert not torch.equal(toys.logits(compiled), before)
    assert torch.equal(toys.logits(compiled), toys.logits(model))


@pytest.mark.parametrize("function", [*SAVES, *LOADS])
def test_arguments_in_the_wrong_places_are_named(tmp_path, function):
    model, path = toys.bert(), tmp_path / "file"
    for given in (path, str(path)):
        with pytest.raises(ValueError, match="model is a .*the path is the second argument"):
            function(given, model)
    with pytest.raises(ValueError, match="model is a dict; a torch module is wanted"):
        function({}, path)
    lora.add_lora_(model, rank=2)
    for given in (None, model, 3):
        with pytest.raises(ValueError, match="path is a .*; the path of a"):
            function(model, given)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("function", [*SAVES[:2], *LOADS[:2]])
def test_a_folder_is_no_file(tmp_path, function):
    model = toys.bert()
    quantization.quantize_(model, 8)
    with pytest.raises(ValueError, match="path is the folder"):
        function(model, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("function", [*SAVES, *LOADS])
def test_an_empty_path_is_none(tmp_path, function):
    model = toys.bert()
    lora.add_lora_(model, rank=2)
    with pytest.raises(ValueError, match="path is empty"):
        function(model, "")


@pytest.mark.parametrize(
    "function", [*SAVES, pruning.load_pruned_, quantization.load_quantized_, lora.load_lora_]
)
def test_a_part_that_is_wrapped_by_itself_is_named(tmp_path, function):
    model = toys.bert()
    model.head = torch.compile(model.head, backend="eager")
    with pytest.raises(ValueError, match="a wrapper around its part 'head'"):
        function(model, tmp_path / "file")
    assert not list(tmp_path.iterdir())


def test_a_teachers_answers_are_the_same_within_a_wrapper(tmp_path):
    model, batches = toys.llama(), [{"input_ids": torch.arange(1, 17).view(2, 8)}]
    folder = distillation.cache_logits(model, tmp_path / "answers", batches, 4)
    before = files.sha256(folder / "000000.safetensors")
    wrapped = torch.compile(model, backend="eager")
    distillation.cache_logits(wrapped, folder, batches, 4)
    assert files.sha256(folder / "000000.safetensors") == before


def test_arguments_of_cache_logits_in_the_wrong_places_are_named(tmp_path):
    with pytest.raises(ValueError, match="model is a .*the path is the second argument"):
        distillation.cache_logits(tmp_path, toys.llama(), [], 4)
    with pytest.raises(ValueError, match="folder is a NoneType; the path of a folder"):
        distillation.cache_logits(toys.llama(), None, [], 4)
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="folder is the file"):
        distillation.cache_logits(toys.llama(), tmp_path / "file", [], 4)


def test_a_checkpoint_of_training_fits_within_and_without_a_wrapper(tmp_path):
    batch = {"input_ids": torch.arange(1, 17).view(2, 8)}
    batch["labels"] = batch["input_ids"]
    recipe = training.Recipe(steps=2, learning_rate=1e-3)
    arguments = {"batches": lambda *_: [batch], "recipe": recipe, "checkpoint": tmp_path / "c"}
    model, plain = toys.llama(), toys.llama()
    training.train(torch.compile(model, backend="eager"), **arguments)
    training.train(plain, **arguments)
    assert torch.equal(toys.logits(plain), toys.logits(model))


def test_a_sharded_model_is_refused_a_checkpoint_before_the_first_step(group, tmp_path):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    model = fully_shard(toys.bert(), mesh=init_device_mesh("cpu", (1,)))
    recipe = training.Recipe(steps=1, learning_rate=1e-3)
    with pytest.raises(ValueError, match="sharded over several processes.*checkpoint=None"):
        training.train(model, None, recipe, checkpoint=tmp_path / "run.safetensors")
