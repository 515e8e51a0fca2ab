"""LoRA: nothing changes at first, merging changes nothing at last, and peft agrees."""

import json

import pytest
import torch
import toys

from lightcourse import files, lora, metrics, quantization, training


def shaken(model):
    """Give every update a value, as training would."""
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_b" in name:
            parameter.data.normal_(std=0.1)
    return model


@pytest.mark.parametrize("family", toys.ALL)
def test_adding_changes_no_answer_and_freezes_the_rest(family):
    model = toys.ALL[family]()
    before = toys.logits(model)
    report = lora.add_lora_(model, rank=2)
    assert torch.equal(before, toys.logits(model))
    trainable = training.trainable_parameters(model)
    assert all("lora_" in name for name in trainable)
    assert report.total == sum(p.numel() for p in trainable.values())


@pytest.mark.parametrize("family", toys.ALL)
def test_merging_keeps_the_answers_and_the_old_structure(family):
    model = toys.ALL[family]()
    names, size = list(model.state_dict()), metrics.size_in_bytes(model)
    before = toys.logits(model)
    lora.add_lora_(model, rank=3, alpha=6.0)
    beside = toys.logits(shaken(model))
    lora.merge_lora_(model)
    assert not torch.allclose(before, beside, atol=1e-3)
    assert torch.allclose(beside, toys.logits(model), atol=1e-5)
    assert list(model.state_dict()) == names and metrics.size_in_bytes(model) == size


def test_the_update_is_scaled_by_alpha_over_rank():
    base = torch.nn.Linear(3, 2)
    layer = lora.LoRALinear(base, rank=4, alpha=8.0)
    layer.lora_b.data.normal_()
    x = torch.randn(5, 3)
    want = base(x) + 2.0 * x @ layer.lora_a.T @ layer.lora_b.T
    assert torch.allclose(layer(x), want, atol=1e-6)


def test_adding_twice_merging_nothing_and_rank_0_are_errors():
    model = toys.mlp()
    with pytest.raises(ValueError, match="nothing was merged"):
        lora.merge_lora_(model)
    with pytest.raises(ValueError, match="rank is 0"):
        lora.add_lora_(model, rank=0)
    with pytest.raises(ValueError, match="alpha is nan"):
        lora.add_lora_(model, alpha=float("nan"))
    assert all(parameter.requires_grad for parameter in model.parameters())
    lora.add_lora_(model)
    with pytest.raises(ValueError, match="adapter 'default' already"):
        lora.add_lora_(model)
    with pytest.raises(ValueError, match="nothing was adapted: Linear has no linear layer"):
        lora.add_lora_(torch.nn.Linear(2, 2))


def test_updates_train_over_integers_but_do_not_merge_into_them():
    model = toys.mlp()
    quantization.quantize_(model, bits=4)
    lora.add_lora_(model, rank=2)
    model(torch.randn(3, 8)).sum().backward()
    assert all(p.grad is not None for p in training.trainable_parameters(model).values())
    with pytest.raises(ValueError, match="layer 0 stores integers"):
        lora.merge_lora_(model)


def test_training_moves_the_updates_alone():
    model = toys.bert()
    lora.add_lora_(model, rank=2)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    ids = torch.arange(1, 25).view(3, 8)
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": torch.arange(3)}
    recipe = training.Recipe(steps=3, learning_rate=1e-2)
    training.train(model, lambda epoch, seed: [batch], recipe, progress=False)
    for name, parameter in model.named_parameters():
        assert torch.equal(before[name], parameter) != ("lora_" in name)


# Targets


@pytest.mark.parametrize(
    ("targets", "count"),
    [
        (["query"], 2),
        (["query", "value"], 4),
        (["layer.0.attention.self.query", "output.dense"], 5),
        (r".*\.layer\.1\..*", 6),
        (r".*(query|key|value)", 6),
        (None, 13),
    ],
)
def test_targets_are_ends_of_names_or_one_pattern_for_whole_names(targets, count):
    assert len(lora.add_lora_(toys.bert(), rank=2, targets=targets).changed) == count


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (["q_proj"], r"targets is \['q_proj'\].*'q_proj' fits no layer.*called.*'query'"),
        (["query", "y"], "'y' fits no layer"),
        ("query", "a regular expression for whole names.*'query'"),
        ("(", "targets is '\\(', no regular expression"),
        ([], "targets is empty"),
        (["embeddings.word_embeddings"], "fits no layer"),
    ],
)
def test_targets_that_fit_nothing_change_nothing_and_the_names_are_told(targets, message):
    model = toys.bert()
    with pytest.raises(ValueError, match=message):
        lora.add_lora_(model, targets=targets)
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not lora.adapters(model)


def test_a_tied_layer_is_named_with_its_reason():
    with pytest.raises(ValueError, match="lm_head shares its weight with model.embed_tokens"):
        lora.add_lora_(toys.llama(), targets=["lm_head"])


# Several adapters


def two_adapters(family="bert"):
    """Return a model with the adapters first and second, and the logits it has with each."""
    model = toys.ALL[family]()
    answers = {None: toys.logits(model)}
    ends = {"bert": ["query", "dense"], "gpt2": ["c_attn"], "llama": ["q_proj", "up_proj"]}[family]
    for number, adapter in enumerate(["first", "second"]):
        lora.add_lora_(model, 2 + number, 4.0, ends if number else None, adapter=adapter)
        torch.manual_seed(number)
        for layer in model.modules():
            if getattr(layer, "adapter", None) == adapter:
                layer.lora_b.data.normal_(std=0.2)
        answers[adapter] = toys.logits(model)
    return model, answers


@pytest.mark.parametrize("family", toys.ALL)
def test_one_adapter_answers_at_a_time(family):
    model, answers = two_adapters(family)
    assert lora.adapters(model) == {"first": False, "second": True}
    assert not torch.allclose(answers["first"], answers["second"], atol=1e-3)
    for adapter in ("first", None, "second", "first"):
        report = lora.set_adapter_(model, adapter)
        assert torch.equal(toys.logits(model), answers[adapter])
        trainable = sum(p.numel() for p in training.trainable_parameters(model).values())
        assert report.total == trainable and (trainable > 0) == (adapter is not None)
    assert lora.adapters(model) == {"first": True, "second": False}


def test_training_one_adapter_leaves_the_other_and_the_matrices():
    model, answers = two_adapters()
    lora.set_adapter_(model, "first")
    ids = torch.arange(1, 25).view(3, 8)
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": torch.arange(3)}
    recipe = training.Recipe(steps=3, learning_rate=1e-2)
    training.train(model, lambda epoch, seed: [batch], recipe, progress=False)
    assert not torch.allclose(toys.logits(model), answers["first"], atol=1e-3)
    for adapter in (None, "second"):
        lora.set_adapter_(model, adapter)
        assert torch.equal(toys.logits(model), answers[adapter])


@pytest.mark.parametrize("family", toys.ALL)
@pytest.mark.parametrize("adapter", ["first", "second"])
def test_merging_one_keeps_the_other_beside(family, adapter):
    model, answers = two_adapters(family)
    (other,) = {"first", "second"} - {adapter}
    updates = {n: m for n, m in model.named_modules() if getattr(m, "adapter", "") == other}
    lora.merge_lora_(model, adapter)
    assert list(lora.adapters(model)) == [other]
    kept = [m for m in model.modules() if getattr(m, "adapter", "") == other]
    assert all(one is another for one, another in zip(kept, updates.values(), strict=True))
    lora.set_adapter_(model, None)
    assert torch.allclose(toys.logits(model), answers[adapter], atol=1e-5)
    lora.merge_lora_(model)
    fresh = toys.ALL[family]()
    assert list(model.state_dict()) == list(fresh.state_dict())


def test_adapters_that_are_unknown_ambiguous_or_taken():
    model, _ = two_adapters()
    before = toys.logits(model)
    for call in (lora.set_adapter_, lora.merge_lora_):
        with pytest.raises(ValueError, match=r"adapter is 'third'; one of \["):
            call(model, "third")
    for call in (lora.merge_lora_, lambda m: lora.save_lora(m, "never")):
        with pytest.raises(ValueError, match="name the one that is meant"):
            call(model)
    with pytest.raises(ValueError, match="has an adapter 'first' already"):
        lora.add_lora_(model, adapter="first")
    with pytest.raises(ValueError, match="adapter is empty"):
        lora.add_lora_(model, adapter="")
    with pytest.raises(ValueError, match="nothing was switched"):
        lora.set_adapter_(toys.bert(), None)
    assert torch.equal(before, toys.logits(model))


# Quantized layers and low precision


@pytest.mark.parametrize("activations", [None, 8])
@pytest.mark.parametrize("family", toys.ALL)
def test_updates_over_integers_let_gradients_through_to_the_first_layer(family, activations):
    model = toys.ALL[family]()
    quantization.quantize_(model, bits=4, activations=activations)
    before = toys.logits(model)
    report = lora.add_lora_(model, rank=2)
    assert torch.equal(before, toys.logits(model))
    shaken(model)
    ids = torch.arange(1, 17).view(2, 8)
    model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.square().sum().backward()
    gradients = [p.grad for p in training.trainable_parameters(model).values()]
    assert len(gradients) == 2 * len(report.changed)
    assert all(gradient.abs().sum() > 0 for gradient in gradients)


def test_updates_beside_bfloat16_stay_float32_and_merge_with_one_rounding():
    model = toys.llama().bfloat16()
    lora.add_lora_(model, rank=2)
    shaken(model)
    assert {p.dtype for p in training.trainable_parameters(model).values()} == {torch.float32}
    beside = toys.logits(model)
    layer = model.model.layers[0].mlp.up_proj
    wanted = (layer.base.weight.float() + layer.delta()).bfloat16()
    lora.merge_lora_(model)
    assert torch.equal(model.model.layers[0].mlp.up_proj.weight, wanted)
    assert beside.dtype == torch.bfloat16
    assert torch.allclose(beside.float(), toys.logits(model).float(), atol=0.02)


def test_zeros_of_a_pruned_matrix_are_refilled():
    model = toys.mlp()
    model[0].weight.data[:, ::2] = 0
    lora.add_lora_(model, rank=2)
    lora.merge_lora_(shaken(model))
    assert metrics.sparsity(model) == 0


# Files


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
    plain = lora.layer.plain_names(model)
    header = {"adapter": "first", "rank": "2", "alpha": "8.0"}
    tensors = {}
    for name, layer in lora.layer.updates(model, "first").items():
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
        {"use_dora": True},
        {"rank_pattern": {"query": 4}},
        {"alpha_pattern": {"query": 4}},
        {"peft_type": "IA3"},
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
