"""A checkpoint compressed a piece at a time: the whole model's bits, in whatever order and life."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from lightcourse import cli, files, layers, pruning, quantization, streaming
from lightcourse.streaming import compressing, plan, shards
from tests import families

ROOT = Path(__file__).resolve().parents[2]
GROUPS = streaming.Compression(4, 32)


@pytest.fixture(autouse=True)
def quiet():
    transformers.logging.disable_progress_bar()
    yield
    transformers.logging.enable_progress_bar()


def saved(folder, family="Llama", shard="20KB", dtype=torch.float32):
    """Save a tiny model in shards; return it as it comes back."""
    model, _ = families.make(family)
    model.to(dtype).save_pretrained(folder, max_shard_size=shard)
    return type(model).from_pretrained(folder).eval()


def tensors(folder):
    return {k: t for path in folder.glob("*.safetensors") for k, t in load_file(path).items()}


def hashes(folder):
    return {path.name: files.sha256(path) for path in folder.iterdir()}


def check_same(folder, model, one_piece):
    """Assert that a folder holds what the model saves in one piece, and loads as the model."""
    model.save_pretrained(one_piece)
    found, wanted = tensors(folder), tensors(one_piece)
    assert found.keys() == wanted.keys()
    assert all(
        torch.equal(found[k], wanted[k]) and found[k].dtype == wanted[k].dtype for k in found
    )
    notes = [json.loads((f / "config.json").read_text()) for f in (folder, one_piece)]
    assert notes[0] == notes[1]
    loaded = type(model).from_pretrained(folder).state_dict()
    assert all(torch.equal(loaded[name], t) for name, t in model.state_dict().items())


@pytest.mark.parametrize(
    "family", ["Llama", "GPT-2", "Qwen2", "BART", "GPT-NeoX", "BERT", "Falcon", "T5", "Mixtral"]
)
def test_the_same_bits_as_in_one_piece(tmp_path, family):
    model = saved(tmp_path / "plain", family)
    report = streaming.compress(tmp_path / "plain", tmp_path / "out", GROUPS, shard_bytes=20_000)
    wanted = quantization.quantize_(model, 4, group_size=32)
    assert report.changed.keys() == wanted.changed.keys()
    assert len(list((tmp_path / "out").glob("*.safetensors"))) > 1
    check_same(tmp_path / "out", model, tmp_path / "one")


@pytest.mark.parametrize(
    "bits, group_size, symmetric",
    [(8, None, True), (8, 32, False), (4, 16, False), (3, None, True)],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_every_grid_and_dtype(tmp_path, bits, group_size, symmetric, dtype):
    model = saved(tmp_path / "plain", shard="1GB", dtype=dtype)
    how = streaming.Compression(bits, group_size, symmetric)
    streaming.compress(tmp_path / "plain", tmp_path / "out", how)
    quantization.quantize_(model, bits, group_size, symmetric=symmetric)
    check_same(tmp_path / "out", model, tmp_path / "one")


@pytest.mark.parametrize("prune", ["2:4", "0.3"])
@pytest.mark.parametrize("family", ["Llama", "GPT-2"])
def test_pruned_as_the_verbs_prune(tmp_path, family, prune):
    model = saved(tmp_path / "plain", family)
    scores = pruning.magnitude_scores(model)
    two = prune == "2:4"
    masks = pruning.n_of_m_mask(scores, 2, 4) if two else pruning.row_mask(scores, 0.3)
    pruning.prune_(model, masks)
    quantization.quantize_(model, 4, 32)
    streaming.compress(
        tmp_path / "plain", tmp_path / "out", streaming.Compression(4, 32, prune=prune)
    )
    check_same(tmp_path / "out", model, tmp_path / "one")


def test_pieces_smaller_than_a_matrix(tmp_path, monkeypatch):
    monkeypatch.setattr("lightcourse.streaming.shards.BAND", 16 * 32)
    monkeypatch.setattr("lightcourse.streaming.shards.BLOCK", 100)
    for family in ("Llama", "GPT-2"):
        model = saved(tmp_path / family, family)
        streaming.compress(tmp_path / family, tmp_path / f"{family} out", GROUPS)
        quantization.quantize_(model, 4, 32)
        check_same(tmp_path / f"{family} out", model, tmp_path / f"{family} one")


def test_names_of_a_base_model_below_a_head(tmp_path):
    """As older checkpoints have them: without the prefix of the class that the config names."""
    model = saved(tmp_path / "plain", "GPT-2", shard="1GB")
    path = tmp_path / "plain" / "model.safetensors"
    old = {name.removeprefix("transformer."): t for name, t in load_file(path).items()}
    save_file(old, path, {"format": "pt"})
    streaming.compress(tmp_path / "plain", tmp_path / "out", GROUPS)
    quantization.quantize_(model, 4, 32)
    loaded = type(model).from_pretrained(tmp_path / "out").state_dict()
    assert all(torch.equal(loaded[name], t) for name, t in model.state_dict().items())


def forked(what, *arguments):
    command = [sys.executable, "-W", "ignore", "-m", "tests.streaming.forked", what, *arguments]
    run = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a system without fork")
@pytest.mark.alone
def test_killed_at_25_points_and_resumed(tmp_path):
    saved(tmp_path / "plain")
    found = forked("killed", tmp_path / "plain", tmp_path, 25)
    assert found["killed"] == 25
    assert found["calls"] > 500
    assert found["wrong"] == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a system without fork")
@pytest.mark.alone
def test_three_processes_write_what_one_writes_also_after_a_kill(tmp_path):
    saved(tmp_path / "plain")
    assert forked("shared", tmp_path / "plain", tmp_path, 3) == {"same": [True] * 3}


def wide(folder, megabytes):
    """Save a GPT-NeoX whose output layer is a matrix of so many megabytes."""
    size, vocabulary = 256, megabytes * 2**20 // 4 // 256
    config = transformers.GPTNeoXConfig(
        vocab_size=vocabulary, hidden_size=size, num_hidden_layers=1, num_attention_heads=4
    )
    transformers.GPTNeoXForCausalLM(config).save_pretrained(folder, max_shard_size="50MB")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells and resets the peak")
@pytest.mark.alone
def test_memory_is_that_of_a_few_rows(tmp_path):
    wide(tmp_path / "plain", megabytes=96)
    # Far below the largest matrix, of 96 MiB: the pieces and what the search copies of them.
    assert forked("memory", tmp_path / "plain", tmp_path, 8)["grown"] < 48 * 2**20


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells and resets the peak")
def test_memory_is_that_of_one_turned_matrix(tmp_path):
    """GPT-2's rows are inputs, so a piece of its outputs lies all over the file."""
    largest = 256 * 2**16 * 4
    config = transformers.GPT2Config(
        vocab_size=64, n_positions=16, n_embd=256, n_layer=1, n_head=4, n_inner=2**16
    )
    transformers.GPT2LMHeadModel(config).save_pretrained(tmp_path / "plain", max_shard_size="70MB")
    grown = forked("memory", tmp_path / "plain", tmp_path, 8)["grown"]
    assert grown < 1.5 * largest + 32 * 2**20
    assert grown > largest / 2  # or it is the wrong thing that was measured


@pytest.mark.alone
def test_under_torchrun_by_the_command(tmp_path):
    model = saved(tmp_path / "plain")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command += ["-m", "lightcourse", "compress", tmp_path / "plain", tmp_path / "out"]
    command += ["--group-size", "32"]
    run = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("compressed 15 layers") == 1
    quantization.quantize_(model, 4, 32)
    check_same(tmp_path / "out", model, tmp_path / "one")


def test_the_command_alone_and_again(tmp_path, capsys):
    saved(tmp_path / "plain")
    arguments = ["compress", str(tmp_path / "plain"), str(tmp_path / "out"), "--group-size", "16"]
    assert cli.main([*arguments, "--bits", "8", "--prune", "2:4"]) == 0
    assert "bytes saved" in capsys.readouterr().out
    assert cli.main([*arguments, "--bits", "8", "--prune", "2:4"]) == 0
    assert cli.main([*arguments, "--bits", "4", "--prune", "2:4"]) == 1
    assert "another job began" in capsys.readouterr().err


def test_the_tokenizer_comes_along_and_no_weights(tmp_path):
    saved(tmp_path / "plain")
    (tmp_path / "plain" / "tokenizer.json").write_text("{}")
    (tmp_path / "plain" / "pytorch_model.bin").write_text("a pickle beside safetensors")
    streaming.compress(tmp_path / "plain", tmp_path / "out", GROUPS)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    wanted = {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json"}
    assert names == wanted | {compressing.JOB}


def test_a_process_that_a_killed_start_has_left_behind_does_no_harm(tmp_path):
    """It writes a shard while the next start begins the same one, or has finished it."""
    saved(tmp_path / "plain")
    out = tmp_path / "out"
    go = lambda *_: streaming.compress(tmp_path / "plain", out, GROUPS)  # noqa: E731
    go()
    whole, path = hashes(out), out / "model.safetensors"
    source = streaming.source.open_source(tmp_path / "plain")
    work, _ = plan.tasks(plan.meta_model(source.folder), source, GROUPS)
    begun = {name: kind for task in work for name, kind in task.outputs().items()}

    def begin(_):
        shards.Shard(shards.part_of(path), begun).file.close()

    for meanwhile in (begin, go):
        path.unlink()
        shards.write_shard(path, work, GROUPS, meanwhile)
        go()
        assert hashes(out) == whole


def test_a_shard_that_was_taken_away_is_no_shard(tmp_path):
    saved(tmp_path / "plain")
    source = streaming.source.open_source(tmp_path / "plain")
    work, _ = plan.tasks(plan.meta_model(source.folder), source, GROUPS)
    path = tmp_path / "model.safetensors"
    with pytest.raises(FileNotFoundError):
        shards.write_shard(path, work, GROUPS, lambda _: [p.unlink() for p in shards.parts(path)])


def test_a_damaged_file_is_found_and_written_again(tmp_path):
    saved(tmp_path / "plain")
    go = lambda: streaming.compress(tmp_path / "plain", tmp_path / "out", GROUPS)  # noqa: E731
    go()
    path = tmp_path / "out" / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(ValueError, match="another hash"):
        streaming.verify(path)
    with pytest.raises(ValueError, match="it was removed"):
        go()
    go()
    assert path.read_bytes() == whole


# --- what is refused, before anything is written -------------------------------------------------


def without_shard(folder):
    next(folder.glob("model-00002*")).unlink()


def cut_short(folder):
    path = next(folder.glob("model-00002*"))
    path.write_bytes(path.read_bytes()[:-5])


def no_safetensors(folder):
    next(folder.glob("model-00002*")).write_bytes(b"\xff" * 50)


def pickled(folder):
    for path in [*folder.glob("*.safetensors"), folder / "model.safetensors.index.json"]:
        path.unlink()
    (folder / "pytorch_model.bin").write_bytes(b"")


def without_weights(folder):
    pickled(folder)
    (folder / "pytorch_model.bin").unlink()


def index_of_another(folder):
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"]["nobody.weight"] = next(iter(index["weight_map"].values()))
    path.write_text(json.dumps(index))


def index_outside(folder):
    path = folder / "model.safetensors.index.json"
    path.write_text(json.dumps({"weight_map": {"a": "../secret.safetensors"}}))


def damaged_index(folder):
    (folder / "model.safetensors.index.json").write_text("[]")


def without_config(folder):
    (folder / "config.json").unlink()


def other_shapes(folder):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"intermediate_size": 48}))


def unknown_model(folder):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"architectures": ["Nobody"]}))


def removed(folder):
    shutil.rmtree(folder)


SPOILT = {
    without_shard: "names the shard model-00002",
    cut_short: "was cut short",
    no_safetensors: "no safetensors file",
    pickled: "as a pickle .pytorch_model.bin., which may run any program",
    without_weights: "holds no model.safetensors",
    index_of_another: "puts nobody.weight into",
    index_outside: "names the shard ../secret",
    damaged_index: "is damaged",
    without_config: "holds no config.json",
    other_shapes: "config.json tells of",
    unknown_model: "names 'Nobody'",
    removed: "where no folder is",
}


@pytest.mark.parametrize("spoil", SPOILT, ids=lambda f: f.__name__)
def test_a_spoilt_checkpoint_is_refused(tmp_path, spoil):
    saved(tmp_path / "plain")
    spoil(tmp_path / "plain")
    with pytest.raises(ValueError, match=SPOILT[spoil]):
        streaming.compress(tmp_path / "plain", tmp_path / "out", GROUPS)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"bits": 9}, "bits is 9"),
        ({"bits": 1}, "bits is 1"),
        ({"group_size": 24}, r"weight: group_size is 24; a divisor of the 32 columns"),
        ({"group_size": -1}, "group_size is -1"),
        ({"group_size": 32, "prune": "3:5"}, "m is 5"),
        ({"prune": "4:2"}, "prune is '4:2'"),
        ({"prune": "1"}, "prune is '1'"),
        ({"prune": "nan"}, "prune is 'nan'"),
        ({"prune": "half"}, "prune is 'half'"),
    ],
)
def test_settings_that_do_not_fit_are_refused(tmp_path, settings, message):
    saved(tmp_path / "plain")
    with pytest.raises(ValueError, match=message):
        try_settings(tmp_path, settings)
    assert not (tmp_path / "out").exists()


def try_settings(folder, settings):
    streaming.compress(folder / "plain", folder / "out", streaming.Compression(**settings))


def test_numbers_that_no_integer_stands_for_are_named(tmp_path):
    model, _ = families.make("Llama")
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[3, 3] = torch.nan
    model.save_pretrained(tmp_path / "plain")
    with pytest.raises(ValueError, match=r"layers\.1\.mlp\.up_proj\.weight, rows 0 to .*NaN"):
        streaming.compress(tmp_path / "plain", tmp_path / "out", GROUPS)
    assert not (tmp_path / "out" / "config.json").exists()


def test_a_model_of_integers_is_refused(tmp_path):
    saved(tmp_path / "plain")
    streaming.compress(tmp_path / "plain", tmp_path / "out", GROUPS)
    with pytest.raises(ValueError, match="tells of integers"):
        streaming.compress(tmp_path / "out", tmp_path / "again", GROUPS)


def test_another_jobs_folder_is_refused(tmp_path):
    saved(tmp_path / "plain")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds other files"):
        streaming.compress(tmp_path / "plain", tmp_path / "out", GROUPS)
    streaming.compress(tmp_path / "plain", tmp_path / "second", GROUPS)
    with pytest.raises(ValueError, match="another job began"):
        streaming.compress(tmp_path / "plain", tmp_path / "second", streaming.Compression(8, 32))
    saved(tmp_path / "plain")  # the same values, written anew: nobody can tell without reading them
    with pytest.raises(ValueError, match="a changed one"):
        streaming.compress(tmp_path / "plain", tmp_path / "second", GROUPS)


def test_too_little_space_is_told_before(tmp_path, monkeypatch):
    saved(tmp_path / "plain")
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(OSError, match="1,000 bytes free"):
        streaming.compress(tmp_path / "plain", tmp_path / "out", GROUPS)


def test_processes_that_never_come_are_told(tmp_path, monkeypatch):
    saved(tmp_path / "plain")
    monkeypatch.setattr(compressing, "PATIENCE", 0.1)
    with pytest.raises(OSError, match="the first process to begin"):
        streaming.compress(tmp_path / "plain", tmp_path / "out", GROUPS, (1, 2))
    with pytest.raises(OSError, match="the other processes' shards"):
        streaming.compress(tmp_path / "plain", tmp_path / "out", GROUPS, (0, 2), 20_000)
    assert not (tmp_path / "out" / "config.json").exists()


@pytest.mark.parametrize("rank, size", [("2", "2"), ("-1", "2"), ("a", "1"), ("0", "")])
def test_a_wrong_place_is_refused(monkeypatch, rank, size):
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", size)
    with pytest.raises(ValueError, match="RANK is"):
        streaming.environment_place()


def test_a_linear_layer_of_its_own_kind_is_tried_on_meta():
    class Plain(torch.nn.Linear):
        def forward(self, x):
            return x @ self.weight.T + self.bias

    class Twice(torch.nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    for kind, plain in ((Plain, True), (Twice, False)):
        layer = kind(7, 4, device="meta")
        assert layers.multiplies_plainly(layer) is plain
        assert layer.weight.is_meta


def test_what_shares_a_weight_is_copied_and_told(tmp_path):
    """Two layers of one matrix: from the checkpoint alone one cannot see it; the model tells."""
    saved(tmp_path / "plain")
    source = streaming.source.open_source(tmp_path / "plain")
    model = plan.meta_model(tmp_path / "plain")
    mlp = model.model.layers[0].mlp
    model.model.layers[1].mlp.up_proj.weight = mlp.up_proj.weight
    work, skipped = plan.tasks(model, source, GROUPS)
    assert "shares" in skipped["model.layers.0.mlp.up_proj"]
    assert not next(t for t in work if t.name == "model.layers.0.mlp.up_proj.weight").buffers
