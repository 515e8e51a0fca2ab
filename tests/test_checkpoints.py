"""One form of checkpoint for all kinds: checked before anything changes, read bit by bit."""

import pytest
import torch

from lightcourse import checkpoints, pruning, quantization
from tests import toys


def pruned(model):
    scores = pruning.magnitude_scores(model)
    pruning.prune_(model, pruning.layer_mask(scores, 0.7))
    return model


def quantized(model):
    quantization.quantize_(model, 8)
    return model


KINDS = {
    "pruned": (pruned, pruning.save_pruned, pruning.load_pruned_),
    "quantized": (quantized, quantization.save_quantized, quantization.load_quantized_),
}
kinds = pytest.mark.parametrize("kind", KINDS)


@kinds
def test_a_model_is_loaded_a_tensor_at_a_time(kind, tmp_path, monkeypatch):
    change, save, load_ = KINDS[kind]
    path = save(change(toys.llama()), tmp_path / "model.safetensors")
    model = toys.llama()
    with checkpoints.opened(path, kind) as stored:
        others = {name for name in stored.names() if ".q_proj" not in name}
    others &= model.state_dict().keys()
    read, behind = checkpoints.Checkpoint.read, []

    def watched(self, name):
        tensor = read(self, name)
        if name in others:
            own = model.state_dict()
            assert all(torch.equal(own[old], kept) for old, kept in behind)
            behind.append((name, tensor.clone()))
        return tensor

    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    monkeypatch.setattr(checkpoints.Checkpoint, "read", watched)
    load_(model, path)
    assert behind


@kinds
def test_each_kind_refuses_the_files_of_the_other(kind, tmp_path):
    change, save, _ = KINDS[kind]
    path = save(change(toys.mlp()), tmp_path / "model.safetensors")
    for other, (_, _, load_) in KINDS.items():
        if other != kind:
            with pytest.raises(ValueError, match=f"no {other} checkpoint; a file of save_{other}"):
                load_(toys.mlp(), path)


@kinds
def test_equal_models_get_equal_files(kind, tmp_path):
    change, save, _ = KINDS[kind]
    first, second = (save(change(toys.gpt2()), tmp_path / name) for name in ("a", "b"))
    assert first.read_bytes() == second.read_bytes()


@kinds
def test_a_truncated_file_is_refused_and_changes_nothing(kind, tmp_path):
    change, save, load_ = KINDS[kind]
    path = save(change(toys.mlp()), tmp_path / "model.safetensors")
    path.write_bytes(path.read_bytes()[:-8])
    model = toys.mlp()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(ValueError, match=f"no {kind} checkpoint"):
        load_(model, path)
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in before.items())


@pytest.mark.parametrize("harm", ["no values", "a bit too many"])
def test_a_mask_without_its_values_is_refused_and_changes_nothing(harm, tmp_path):
    from lightcourse import files

    path = pruning.save_pruned(pruned(toys.mlp()), tmp_path / "model.safetensors")
    tensors, metadata = files.load_tensors(path)
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    name = next(name for name in tensors if name.endswith(":mask"))
    if harm == "no values":
        del tensors[name.replace(":mask", ":values")]
    else:
        tensors[name].fill_(255)
    files.save_tensors(tensors, path, metadata)
    model = toys.mlp()
    before = [tensor.clone() for tensor in model.state_dict().values()]
    with pytest.raises(ValueError, match="damaged: its mask and values of .* do not match"):
        pruning.load_pruned_(model, path)
    assert all(map(torch.equal, model.state_dict().values(), before))


def odd():
    """Return a model with a gate that is 0, and a module whose name holds a colon."""
    model = torch.nn.ModuleDict({"a:b": torch.nn.Linear(8, 4), "d:e": torch.nn.LayerNorm(4)})
    model.register_parameter("gate", torch.nn.Parameter(torch.tensor(0.0)))
    model["a:b"].weight.data[:, 1:] = 0
    return model


@kinds
def test_odd_shapes_and_names_come_back(kind, tmp_path):
    _, save, load_ = KINDS[kind]
    model, again = odd(), odd()
    if kind == "quantized":
        quantization.quantize_(model)
    torch.nn.init.constant_(again["d:e"].bias, 3.0)
    again.gate.data.fill_(7.0)
    load_(again, save(model, tmp_path / "model.safetensors"))
    wanted = model.state_dict()
    assert again.state_dict().keys() == wanted.keys()
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in again.state_dict().items())
