"""A submission loads to the same logits, whatever its layers are; a bad one is refused by name."""

import itertools
import json
import os
import pickle
import shutil
from functools import partial

import pytest
import torch

from lightcourse import capstone, files, pruning, quantization, sharing
from lightcourse.capstone import header
from tests.capstone import small


def cut(model):
    scores = pruning.magnitude_scores(model)
    heads = pruning.head_scores(model, scores)
    pruning.remove_heads_(model, {list(heads)[0]: torch.tensor([True, False, True, True])})
    neurons = pruning.neuron_scores(model, scores)
    pruning.remove_neurons_(model, {list(neurons)[0]: torch.arange(64) < 40})


def zeros(model):
    pruning.prune_(model, pruning.layer_mask(pruning.magnitude_scores(model), 0.7))


CHANGES = {
    "cut": cut,
    "zeros": zeros,
    "factors": lambda m: sharing.factor_(m, 14_000, targets=["intermediate.dense", "query", "key"]),
    "int8": lambda m: quantization.quantize_(m, 8, activations=8, skip=["head"]),
    "int4": lambda m: quantization.quantize_(m, 4, group_size=8, skip=["head"]),
    "codes": lambda m: quantization.codebook_(m, partial(quantization.nf4, block=8), ["head"]),
    "narrow": lambda m: pruning.remove_width_(m, torch.arange(32) < 24),
    "half": lambda m: m.bfloat16(),
}
MIXES = [
    *((name,) for name in CHANGES),
    *itertools.product(["cut", "zeros", "narrow"], ["int8", "int4", "codes"]),
    ("factors", "int8"),
    ("cut", "zeros", "half"),
    ("zeros", "factors", "int8"),
]


@pytest.mark.parametrize("mix", MIXES, ids="+".join)
def test_it_loads_to_the_same_logits(mix, tmp_path):
    model, tokenizer = small.model(), small.tokenizer()
    for name in mix:
        CHANGES[name](model)
    before = capstone.Submission(model, tokenizer, capstone.section_names(), 32)
    size = capstone.save_submission(model, tokenizer, tmp_path, max_length=32)
    again = capstone.load_submission(tmp_path)
    assert size == sum(path.stat().st_size for path in tmp_path.iterdir())
    assert torch.equal(before.logits(small.TEXTS[:7]), again.logits(small.TEXTS[:7]))


def test_shared_layers_stay_one(tmp_path):
    model = small.model()
    apart = capstone.save_submission(model, small.tokenizer(), tmp_path, max_length=32)
    sharing.share_layers_(model)
    assert capstone.save_submission(model, small.tokenizer(), tmp_path, max_length=32) < apart
    layers = capstone.load_submission(tmp_path).model.encoder.encoder.layer
    assert layers[0].output.dense.weight is layers[1].output.dense.weight


def edit(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def with_nan(folder):
    tensors, metadata = files.load_tensors(folder / "model.safetensors")
    tensors["head.bias"] = torch.full_like(tensors["head.bias"], float("nan"))
    files.save_tensors(tensors, folder / "model.safetensors", metadata)


def other_header(folder):
    path = folder / "model.safetensors"
    data = path.read_bytes()
    path.write_bytes((2**62).to_bytes(8, "little") + data[8:])


def longer(folder):
    with (folder / "model.safetensors").open("ab") as file:
        file.write(b"more")


def bomb(folder):
    tensors, metadata = files.load_tensors(folder / "model.safetensors")
    notes = json.loads(metadata["submission"])
    notes["shapes"]["head.bias"] = [2**20, 2**15]
    tensors.pop("head.bias")
    tensors["head.bias:mask"], tensors["head.bias:values"] = torch.zeros(3).byte(), torch.ones(1)
    files.save_tensors(tensors, folder / "model.safetensors", {"submission": json.dumps(notes)})


def wide(folder):
    model = small.model()
    quantization.quantize_(model, 4, skip=["head"])
    capstone.save_submission(model, small.tokenizer(), folder, max_length=32)
    tensors, metadata = files.load_tensors(folder / "model.safetensors")
    notes = json.loads(metadata["submission"])
    next(iter(notes["layers"].values())).update(out_features=2**20, in_features=2**20)
    files.save_tensors(tensors, folder / "model.safetensors", {"submission": json.dumps(notes)})


def linked(folder):
    shutil.move(folder / "config.json", folder.parent / "elsewhere.json")
    os.symlink(folder.parent / "elsewhere.json", folder / "config.json")


def teacher_itself(folder):
    capstone.save_submission(small.model(), small.tokenizer(), folder, max_length=32)


def teacher_in(dtype, folder):
    capstone.save_submission(small.model().to(dtype), small.tokenizer(), folder, max_length=32)


def teacher_reordered(folder):
    model = small.model()
    layer, order = model.encoder.encoder.layer[0], torch.randperm(64)
    layer.intermediate.dense.weight.data = layer.intermediate.dense.weight.data[order]
    layer.intermediate.dense.bias.data = layer.intermediate.dense.bias.data[order]
    layer.output.dense.weight.data = layer.output.dense.weight.data[:, order]
    capstone.save_submission(model, small.tokenizer(), folder, max_length=32)


def foreign(folder):
    path = folder / "tokenizer.json"
    told = json.loads(path.read_text())
    told["model"]["vocab"]["volcano"] = 16
    path.write_text(json.dumps(told))


def test_a_tokenizer_does_not_say_how_far_to_pad(tmp_path):
    before, path = capstone.load_submission(small.saved(tmp_path)), tmp_path / "tokenizer.json"
    padding = {"strategy": {"Fixed": 10**9}, "direction": "Right", "pad_to_multiple_of": None}
    padding |= {"pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]"}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"padding": padding}))
    again = capstone.load_submission(tmp_path)
    assert torch.equal(before.logits(small.TEXTS[:7]), again.logits(small.TEXTS[:7]))


def renamed_pickle(folder):
    (folder / "model.safetensors").write_bytes(pickle.dumps({"weight": [1.0]}))


BAD = {
    "lies about its size": (lambda f: small.card(f, bytes=1000), "README.md claims 1,000 bytes"),
    "a pickle": (lambda f: (f / "x.bin").write_bytes(pickle.dumps([1])), "x.bin is a pickle"),
    "a renamed pickle": (renamed_pickle, "model.safetensors is a pickle"),
    "torch.save": (lambda f: torch.save({"a": torch.ones(2)}, f / "m.pt"), "m.pt is a pickle"),
    "code": (lambda f: (f / "model.py").write_text("1"), "model.py is code"),
    "code by name": (lambda f: edit(f, auto_map={"AutoModel": "m.M"}), "names code to run"),
    "the teacher": (teacher_itself, "it is the teacher itself"),
    "the teacher in float16": (partial(teacher_in, torch.float16), "it is the teacher itself"),
    "the teacher in bfloat16": (partial(teacher_in, torch.bfloat16), "it is the teacher itself"),
    "the teacher reordered": (teacher_reordered, "it is the teacher itself"),
    "a link": (linked, "config.json is a symbolic link"),
    "a header's length": (other_header, "its header would have 4,611,686,018,427,387,904 bytes"),
    "more bytes than told": (longer, "its header tells of"),
    "a bomb": (bomb, "would have 34,359,738,368 numbers"),
    "a layer wider than its file": (wide, "has too few integers for"),
    "NaN": (with_nan, "NaN or infinity in head.bias"),
    "a foreign tokenizer": (foreign, "tokenizer.json has 17 tokens"),
    "labels swapped": (
        lambda f: edit(f, labels=list(capstone.section_names())[::-1]),
        "in this order is wanted",
    ),
    "too many tokens": (lambda f: edit(f, vocab_size=10**9), "vocab_size 1000000000"),
    "other shapes": (lambda f: edit(f, vocab_size=20), "16"),
    "too large": (
        lambda f: (f / "README.md").write_bytes(bytes(2**20 + 1)),
        "README.md has 1,048,",
    ),
    "a missing file": (lambda f: (f / "tokenizer.json").unlink(), "tokenizer.json is missing"),
    "an archive": (lambda f: (f / "all.zip").write_bytes(b"PK"), "all.zip is an archive"),
    "a folder": (lambda f: (f / "more").mkdir(), "more is no plain file"),
}


@pytest.mark.parametrize("bad", BAD)
def test_a_bad_one_is_refused_with_the_reason(bad, tmp_path):
    folder = small.saved(tmp_path / "own")
    spoil, said = BAD[bad]
    spoil(folder)
    rows = {"text": small.TEXTS, "label": small.LABELS}
    report = capstone.measure(folder, rows=rows, teacher=small.teacher(), rounds=2)
    assert said in report.refused
    assert report.score == 0


def test_an_honest_one_is_measured(tmp_path):
    folder = small.saved(tmp_path / "own")
    rows, teacher = {"text": small.TEXTS, "label": small.LABELS}, small.teacher()
    first = capstone.measure(folder, rows=rows, teacher=teacher, rounds=2)
    assert not first.refused
    assert not first.points["card"]
    assert "there is no README.md" in str(first)
    capstone.claim(folder, first, "A small one.", "Nothing was looked at.")
    again = capstone.measure(folder, rows=rows, teacher=teacher, rounds=2)
    assert again.claims["bytes"] == again.bytes == first.bytes
    assert again.accuracy == first.accuracy
    assert again.points["bytes"]
    assert set(again.points) == set(capstone.POINTS)


@pytest.mark.parametrize(
    ("claims", "said"),
    [({"accuracy": 0.999}, "claims an accuracy"), ({"share_of_time": 1e-6}, "of the teacher's")],
)
def test_a_card_that_claims_too_much_gets_no_point(claims, said, tmp_path):
    folder = small.saved(tmp_path / "own")
    small.card(folder, **claims)
    rows = {"text": small.TEXTS, "label": small.LABELS}
    report = capstone.measure(folder, rows=rows, teacher=small.teacher(), rounds=2)
    assert not report.points["card"]
    assert said in " ".join(report.remarks)


@pytest.mark.parametrize(
    "text", ["", "# no head", "---\nclaims:\n  bytes: 1\n---", "---\na: 1\n---"]
)
def test_a_card_without_claims_says_how(text):
    with pytest.raises(ValueError, match="claims"):
        capstone.read_claims(text)


@pytest.mark.parametrize("bits", range(2, 9))
def test_a_whole_minilm_of_integers_is_not_too_much_to_unpack(bits):
    numbers, layers = 22_713_216, {"encoder.a": {"bits": bits}}
    packed = {"dtype": "U8", "shape": [numbers // (2 if bits <= 4 else 1)]}
    notes = {"layers": layers, "shapes": {}}
    header._check_numbers(header.Header({"encoder.a.qweight": packed}, notes))
    with pytest.raises(ValueError, match="at most 60,000,000"):
        header._check_numbers(header.Header({"encoder.b.qweight": packed}, notes))
