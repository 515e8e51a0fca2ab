"""Adapters on disk: what was trained and nothing else, as peft reads and writes it."""

import json

import pytest
import torch

from lightcourse import files, lora, quantization, training
from tests import toys
from tests.lora.adapted import shaken, two_adapters


@pytest.mark.parametrize("family", toys.ALL)
def test_a_saved_adapter_gives_the_same_answers_in_another_copy(tmp_path, family):
    path = tmp_path / "adapter"
    model, answers = two_adapters(family)
    lora.save_lora(model, path, "first")
    other = toys.ALL[family]()
    lora.load_lora_(other, path)
    assert torch.equal(toys.logits(other), answers["first"])
    lora.set_adapter_(other, None)
    assert torch.equal(toys.logits(other), answers[None])
    assert list(lora.adapters(other)) == ["first"]


def test_the_file_holds_what_was_trained_and_its_header_tells_how(tmp_path):
    path = tmp_path / "adapter"
    model = toys.bert()
    report = lora.add_lora_(model.encoder, rank=3, alpha=6.5, targets=["query"])
    model.head.requires_grad_(True)
    shaken(model)
    model.head.weight.data.normal_()
    lora.save_lora(model, path)
    tensors, header = files.load_tensors(path / "adapter_model.safetensors")
    config = json.loads((path / "adapter_config.json").read_text())
    trained = training.trainable_parameters(model).values()
    assert sum(t.numel() for t in tensors.values()) == sum(p.numel() for p in trained)
    assert (config["r"], config["lora_alpha"], header["adapter"]) == (3, 6.5, "default")
    assert config["target_modules"] == [f"encoder.{name}" for name in report.changed]
    assert config["modules_to_save"] == ["head"]
    other = toys.bert()
    lora.load_lora_(other, path, adapter="topics")
    assert torch.equal(toys.logits(other), toys.logits(model))
    assert list(lora.adapters(other)) == ["topics"]
    assert set(training.trainable_parameters(other)) == set(training.trainable_parameters(model))


def test_an_adapter_loads_beside_another_and_over_integers(tmp_path):
    path = tmp_path / "adapter"
    model, answers = two_adapters()
    lora.save_lora(model, path, "first")
    both = toys.bert()
    lora.add_lora_(both, targets=["value"], adapter="other")
    lora.load_lora_(both, path)
    assert torch.equal(toys.logits(both), answers["first"])
    small = toys.bert()
    quantization.quantize_(small, bits=8)
    base = toys.logits(small)
    lora.load_lora_(small, path)
    rounding = (toys.logits(small) - answers["first"]).abs().max()
    assert rounding < 0.1 * (toys.logits(small) - base).abs().max()
    with pytest.raises(ValueError, match="stores integers"):
        lora.unmerge_lora_(small, path)


def test_unmerging_undoes_merging(tmp_path):
    path = tmp_path / "adapter"
    model = toys.gpt2()
    plain = toys.logits(model)
    lora.add_lora_(model, rank=2)
    beside = toys.logits(shaken(model))
    lora.save_lora(model, path)
    lora.merge_lora_(model)
    lora.unmerge_lora_(model, path)
    assert torch.allclose(toys.logits(model), beside, atol=1e-5)
    lora.set_adapter_(model, None)
    assert torch.allclose(toys.logits(model), plain, atol=1e-5)


def test_an_adapter_of_another_model_is_refused_and_nothing_changed(tmp_path):
    path = tmp_path / "adapter"
    model = toys.bert()
    lora.add_lora_(model, rank=2)
    lora.save_lora(model, path)
    wrong = {
        "no linear layer encoder.encoder.layer.0": toys.llama(),
        "head.lora_b is .4, 2. there, .3, 2. is wanted": toys.bert(3),
    }
    lora.save_lora(_adapted(toys.bert(4)), path)
    for message, other in wrong.items():
        before = toys.logits(other)
        with pytest.raises(ValueError, match=f"another model: .*{message}"):
            lora.load_lora_(other, path)
        assert torch.equal(before, toys.logits(other)) and not lora.adapters(other)


def _adapted(model):
    lora.add_lora_(model, rank=2)
    return model


def test_files_without_an_adapter_and_models_without_one(tmp_path):
    file, path = tmp_path / "other.safetensors", tmp_path / "adapter"
    files.save_tensors({"weight": torch.ones(2)}, file)
    for wrong in (file, tmp_path):
        with pytest.raises(ValueError, match=f"{wrong.name} holds no adapter"):
            lora.load_lora_(toys.bert(), wrong)
    for wrong in (file, tmp_path / "new.safetensors"):
        with pytest.raises(ValueError, match="a folder is wanted"):
            lora.save_lora(_adapted(toys.bert()), wrong)
    with pytest.raises(ValueError, match="no LoRA layer"):
        lora.save_lora(toys.bert(), path)
    lora.save_lora(_adapted(toys.bert()), path)
    with pytest.raises(ValueError, match="an adapter 'default' already"):
        lora.load_lora_(_adapted(toys.bert()), path)


def test_a_new_head_of_another_size_does_not_fit(tmp_path):
    path = tmp_path / "adapter"
    model = toys.bert(4)
    lora.add_lora_(model.encoder, rank=2)
    model.head.requires_grad_(True)
    lora.save_lora(model, path)
    with pytest.raises(ValueError, match=r"head.bias is \(4,\) there, \(3,\) is wanted"):
        lora.load_lora_(toys.bert(3), path)


def test_the_one_file_of_earlier_versions_still_loads(tmp_path):
    model, answers = two_adapters()
    plain = lora.shell.plain_names(model)
    header = {"adapter": "first", "rank": "2", "alpha": "8.0"}
    tensors = {}
    for name, layer in lora.shell.updates(model, "first").items():
        header["rank"], header["alpha"] = str(layer.rank), str(layer.alpha)
        for part in ("lora_a", "lora_b"):
            tensors[f"{plain[name]}.{part}"] = getattr(layer, part)
    header["targets"] = json.dumps([name[:-7] for name in tensors if name.endswith(".lora_a")])
    files.save_tensors(tensors, tmp_path / "old.safetensors", header)
    other = toys.bert()
    lora.load_lora_(other, tmp_path / "old.safetensors")
    assert torch.equal(toys.logits(other), answers["first"])


def test_what_trains_inside_an_adapted_layer_has_no_place_in_the_file(tmp_path):
    model = _adapted(toys.bert())
    model.head.base.bias.requires_grad_(True)
    with pytest.raises(ValueError, match="head has an update and trains parameters of its own"):
        lora.save_lora(model, tmp_path / "adapter")
    assert not (tmp_path / "adapter").exists()


# Beside peft


PEFT_TARGETS = {"bert": ["query", "value"], "gpt2": ["c_attn", "c_fc"], "llama": ["q_proj"]}


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
@pytest.mark.parametrize("family", toys.ALL)
def test_peft_computes_and_learns_the_same(family):
    import peft

    ours, theirs = toys.ALL[family](), toys.ALL[family]()
    lora.add_lora_(ours, rank=3, alpha=5.0, targets=PEFT_TARGETS[family])
    config = peft.LoraConfig(
        r=3, lora_alpha=5.0, target_modules=PEFT_TARGETS[family], fan_in_fan_out=family == "gpt2"
    )
    theirs = peft.get_peft_model(theirs, config)
    shaken(ours)
    mine, twins = _updates(ours), _updates(theirs)
    assert len(mine) == len(twins) > 0
    for one, twin in zip(mine, twins, strict=True):
        twin.data.copy_(one)
    assert torch.allclose(toys.logits(ours), toys.logits(theirs), atol=1e-6)
    for model in (ours, theirs):
        ids = torch.arange(1, 17).view(2, 8)
        output = model(input_ids=ids, attention_mask=torch.ones_like(ids))
        output.logits.square().mean().backward()
    for one, twin in zip(mine, twins, strict=True):
        assert torch.allclose(one.grad, twin.grad, rtol=1e-4, atol=1e-7)
    lora.merge_lora_(ours)
    assert torch.allclose(toys.logits(ours), toys.logits(theirs.merge_and_unload()), atol=1e-5)


def _updates(model):
    return [p for name, p in model.named_parameters() if "lora_" in name]


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
@pytest.mark.parametrize("family", toys.ALL)
def test_peft_loads_what_we_save(tmp_path, family):
    import peft

    ours = toys.ALL[family]()
    lora.add_lora_(ours, rank=3, alpha=5.0, targets=PEFT_TARGETS[family])
    shaken(ours)
    if family == "bert":
        ours.head.requires_grad_(True)
        ours.head.weight.data.normal_()
    path = lora.save_lora(ours, tmp_path / "adapter")
    theirs = peft.PeftModel.from_pretrained(toys.ALL[family](), path).eval()
    assert torch.allclose(toys.logits(theirs), toys.logits(ours), atol=1e-6)
    assert not torch.allclose(toys.logits(toys.ALL[family]()), toys.logits(ours), atol=1e-3)


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
@pytest.mark.parametrize("use_rslora", [False, True])
@pytest.mark.parametrize("family", toys.ALL)
def test_we_load_what_peft_saves(tmp_path, family, use_rslora):
    import peft

    head = ["head"] if family == "bert" else None
    config = peft.LoraConfig(
        r=3,
        lora_alpha=5,
        target_modules=PEFT_TARGETS[family],
        modules_to_save=head,
        fan_in_fan_out=family == "gpt2",
        use_rslora=use_rslora,
        init_lora_weights=False,
    )
    theirs = peft.get_peft_model(toys.ALL[family](), config)
    for name, parameter in theirs.named_parameters():
        if "modules_to_save" in name:
            parameter.data.normal_()
    theirs.save_pretrained(tmp_path)
    ours = toys.ALL[family]()
    lora.load_lora_(ours, tmp_path)
    assert torch.allclose(toys.logits(ours), toys.logits(theirs.eval()), atol=1e-6)
    again = toys.ALL[family]()
    lora.load_lora_(again, lora.save_lora(ours, tmp_path / "again"))
    assert torch.equal(toys.logits(again), toys.logits(ours))


@pytest.mark.parametrize(
    "setting",
    [
        {"lora_bias": True},
        {"rank_pattern": {"query": 4}},
        {"alpha_pattern": {"query": 4}},
        {"peft_type": "VERA"},
        {"bias": "lora_only"},
        {"alora_invocation_tokens": [1, 2]},
        {"use_qalora": True},
    ],
)
def test_what_a_lora_linear_cannot_do_is_refused_by_name(tmp_path, setting):
    path = lora.save_lora(_adapted(toys.bert()), tmp_path / "adapter")
    config = json.loads((path / "adapter_config.json").read_text())
    (path / "adapter_config.json").write_text(json.dumps(config | setting))
    model = toys.bert()
    with pytest.raises(ValueError, match=f"wants {next(iter(setting))}="):
        lora.load_lora_(model, path)
    assert not lora.adapters(model)


@pytest.mark.parametrize("start", ["pissa", "olora"])
def test_what_peft_began_on_a_changed_base_is_refused(tmp_path, start):
    import peft

    config = peft.LoraConfig(r=2, target_modules=["query"], init_lora_weights=start)
    peft.get_peft_model(toys.bert(), config).save_pretrained(tmp_path)
    model = toys.bert()
    with pytest.raises(ValueError, match=f"began as init_lora_weights='{start}'"):
        lora.load_lora_(model, tmp_path)
    assert not lora.adapters(model)
