"""DoRA, IA3 and rsLoRA: nothing changes at first, merging changes nothing, peft agrees."""

import json
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightcourse import lora, quantization, training
from tests import toys

TARGETS = {"bert": ["query", "value"], "gpt2": ["c_attn", "c_fc"], "llama": ["q_proj", "v_proj"]}
# IA3's: whose outputs are multiplied, whose inputs.
SIDES = {
    "bert": (["key", "value"], ["output.dense"]),
    "gpt2": (["c_attn"], ["mlp.c_proj"]),
    "llama": (["k_proj", "v_proj"], ["down_proj"]),
}
DEPRECATED = "ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"


def add_dora(model, family, adapter="default"):
    """Put in a DoRA of the family's usual targets."""
    return lora.add_dora_(model, 3, 5.0, TARGETS[family], adapter)


def add_ia3(model, family, adapter="default"):
    """Put in an IA3 as its paper does."""
    return lora.add_ia3_(model, *SIDES[family], adapter)


def add_rslora(model, family, adapter="default"):
    """Put in a LoRA with rsLoRA's alpha."""
    alpha = lora.rank_stabilized_alpha(5.0, rank=3)
    return lora.add_lora_(model, 3, alpha, TARGETS[family], adapter)


KINDS = {"dora": add_dora, "ia3": add_ia3, "rslora": add_rslora}


def own(model):
    """Return what the adapters of a model, ours or peft's, train: in one order and shape."""
    named = [(n, p) for n, p in model.named_parameters() if "lora_" in n or "ia3_" in n]
    return [parameter for _, parameter in named]


def shaken(model, seed=1):
    """Give every part of the adapters another value, as training would."""
    torch.manual_seed(seed)
    for parameter in own(model):
        parameter.data += torch.randn_like(parameter) * 0.1
    return model


def peft_twin(kind, family):
    """Return a toy of peft's with the same adapter."""
    import peft

    turned = family == "gpt2"
    if kind == "ia3":
        outputs, inputs = SIDES[family]
        config = peft.IA3Config(
            target_modules=[*outputs, *inputs], feedforward_modules=inputs, fan_in_fan_out=turned
        )
    else:
        how = {"dora": {"use_dora": True}, "rslora": {"use_rslora": True}}[kind]
        config = peft.LoraConfig(
            r=3, lora_alpha=5.0, target_modules=TARGETS[family], fan_in_fan_out=turned, **how
        )
    return peft.get_peft_model(toys.ALL[family](), config).eval()


def step_of(model):
    """Return the gradients of one backward pass."""
    ids = torch.arange(1, 17).view(2, 8)
    output = model(input_ids=ids, attention_mask=torch.ones_like(ids))
    output.logits.square().mean().backward()
    return [parameter.grad.flatten() for parameter in own(model)]


@pytest.mark.parametrize("family", toys.ALL)
@pytest.mark.parametrize("kind", KINDS)
def test_adding_changes_no_answer_and_trains_what_it_reports(kind, family):
    model = toys.ALL[family]()
    before = toys.logits(model)
    report = KINDS[kind](model, family)
    assert torch.allclose(before, toys.logits(model), atol=1e-6)
    trainable = training.trainable_parameters(model).values()
    assert report.total == sum(p.numel() for p in trainable) > 0
    assert {id(p) for p in trainable} == {id(p) for p in own(model)}


@pytest.mark.parametrize("family", toys.ALL)
@pytest.mark.parametrize("kind", KINDS)
def test_merging_keeps_the_answers_and_the_old_structure(kind, family):
    model = toys.ALL[family]()
    names, before = list(model.state_dict()), toys.logits(model)
    KINDS[kind](model, family)
    beside = toys.logits(shaken(model))
    assert not torch.allclose(before, beside, atol=1e-3)
    lora.merge_lora_(model)
    assert torch.allclose(beside, toys.logits(model), atol=1e-5)
    assert list(model.state_dict()) == names


@pytest.mark.filterwarnings(DEPRECATED)
@pytest.mark.parametrize("family", toys.ALL)
@pytest.mark.parametrize("kind", KINDS)
def test_peft_computes_and_learns_the_same(kind, family):
    ours, theirs = toys.ALL[family](), peft_twin(kind, family)
    KINDS[kind](ours, family)
    shaken(ours)
    assert len(own(ours)) == len(own(theirs)) > 0
    for one, twin in zip(own(ours), own(theirs), strict=True):
        twin.data.copy_(one.view(twin.shape))
    assert torch.allclose(toys.logits(ours), toys.logits(theirs), atol=1e-6)
    for one, twin in zip(step_of(ours), step_of(theirs), strict=True):
        assert torch.allclose(one, twin, rtol=1e-4, atol=1e-7)
    merged = toys.logits(theirs.merge_and_unload())
    lora.merge_lora_(ours)
    assert torch.allclose(toys.logits(ours), merged, atol=1e-5)


@pytest.mark.filterwarnings(DEPRECATED)
@pytest.mark.parametrize("family", toys.ALL)
@pytest.mark.parametrize("kind", KINDS)
def test_files_go_to_peft_and_back(tmp_path, kind, family):
    import peft

    ours = toys.ALL[family]()
    KINDS[kind](ours, family)
    wanted = toys.logits(shaken(ours))
    there = peft.PeftModel.from_pretrained(
        toys.ALL[family](), lora.save_lora(ours, tmp_path / "ours")
    )
    assert torch.allclose(toys.logits(there.eval()), wanted, atol=1e-6)
    assert not torch.allclose(toys.logits(toys.ALL[family]()), wanted, atol=1e-3)
    theirs = shaken(peft_twin(kind, family), seed=2)
    theirs.save_pretrained(tmp_path / "theirs")
    back = toys.ALL[family]()
    lora.load_lora_(back, tmp_path / "theirs")
    assert torch.allclose(toys.logits(back), toys.logits(theirs), atol=1e-6)
    again = toys.ALL[family]()
    lora.load_lora_(again, lora.save_lora(back, tmp_path / "again"))
    assert torch.equal(toys.logits(again), toys.logits(back))


@pytest.mark.parametrize("kind", KINDS)
def test_all_kinds_train_over_integers_and_are_not_merged_into_them(kind):
    nf4 = partial(quantization.nf4, block=16)
    for change in (
        lambda m: quantization.quantize_(m, 4),
        lambda m: quantization.codebook_(m, nf4),
    ):
        model = toys.bert()
        change(model)
        before = toys.logits(model)
        KINDS[kind](model, "bert")
        assert torch.allclose(before, toys.logits(model), atol=1e-6)
        shaken(model)
        assert all(gradient.abs().sum() > 0 for gradient in step_of(model))
        with pytest.raises(ValueError, match="stores integers"):
            lora.merge_lora_(model)


def test_dora_gives_rows_the_lengths_that_it_has_learned():
    model = shaken_dora()
    shell = model[0]
    lengths = shell.weight.norm(dim=1)
    assert torch.allclose(lengths, shell.lora_magnitude.abs(), rtol=1e-5)
    x = torch.randn(5, 8)
    assert torch.allclose(shell(x), x @ shell.weight.T + shell.bias, atol=1e-5)


def shaken_dora():
    model = toys.mlp()
    lora.add_dora_(model, rank=2)
    return shaken(model)


def test_a_row_of_zeros_stays_one_and_gives_no_nan():
    model = toys.mlp()
    model[0].weight.data[3] = 0
    before = model(torch.ones(2, 8))
    lora.add_dora_(model, rank=2)
    assert torch.allclose(before, model(torch.ones(2, 8)), atol=1e-6)
    model(torch.ones(2, 8)).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in own(model))
    shaken(model[0].base)
    lora.merge_lora_(model)
    assert torch.isfinite(model[0].weight).all()


def test_ia3_multiplies_outputs_with_their_bias_and_inputs():
    base = torch.nn.Linear(3, 2)
    x = torch.randn(5, 3)
    outputs, inputs = lora.IA3Linear(base), lora.IA3Linear(base, "inputs")
    outputs.ia3_l.data.copy_(torch.tensor([2.0, -1.0]))
    inputs.ia3_l.data.copy_(torch.tensor([2.0, 0.0, 1.0]))
    assert torch.allclose(outputs(x), base(x) * torch.tensor([2.0, -1.0]))
    assert torch.allclose(inputs(x), base(x * torch.tensor([2.0, 0.0, 1.0])))
    assert torch.allclose(outputs(x), x @ outputs.weight.T + outputs.bias, atol=1e-6)
    with pytest.raises(ValueError, match="side is 'both'"):
        lora.IA3Linear(base, "both")


def test_the_stabilized_alpha_divides_by_the_root_of_the_rank():
    for rank in (1, 4, 64):
        layer = lora.LoRALinear(
            torch.nn.Linear(64, 64), rank, lora.rank_stabilized_alpha(16.0, rank)
        )
        assert layer.scaling == pytest.approx(16 / rank**0.5)
    with pytest.raises(ValueError, match="rank is 0"):
        lora.rank_stabilized_alpha(16.0, 0)


# Bad input


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: lora.add_dora_(m, rank=0), "rank is 0"),
        (lambda m: lora.add_dora_(m, rank=17, targets=["query"]), "at most 16 is wanted"),
        (lambda m: lora.add_lora_(m, rank=17, targets=["query"]), "at most 16 is wanted"),
        (lambda m: lora.add_lora_(m, rank=99), "nothing was adapted.*rank is 99"),
        (lambda m: lora.add_dora_(m, targets=["q_proj"]), "'q_proj' fits no layer"),
        (lambda m: lora.add_ia3_(m), "nothing was adapted"),
        (lambda m: lora.add_ia3_(m, ["k_proj"]), "outputs is .*'k_proj' fits no layer"),
        (lambda m: lora.add_ia3_(m, ["key"], ["c_fc"]), "inputs is .*'c_fc' fits no layer"),
        (lambda m: lora.add_ia3_(m, ["key"], r".*\.key"), "key is in outputs and in inputs"),
        (lambda m: lora.add_ia3_(m, ["key"], adapter=""), "adapter is empty"),
    ],
)
def test_what_cannot_be_added_changes_nothing(call, message):
    model = toys.bert()
    before = toys.logits(model)
    with pytest.raises(ValueError, match=message):
        call(model)
    assert not lora.adapters(model) and torch.equal(before, toys.logits(model))
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_layers_thinner_than_the_rank_are_left_and_named():
    model = toys.bert()
    report = lora.add_lora_(model, rank=8)
    assert "head" not in report.changed
    assert report.skipped["head"] == "rank is 8, but head has no more than rank 3 itself"


def test_two_kinds_cannot_have_one_name_and_a_nan_is_told():
    model = toys.bert()
    lora.add_ia3_(model, ["key"])
    with pytest.raises(ValueError, match="an adapter 'default' already"):
        lora.add_dora_(model, rank=2)
    broken = toys.bert()
    broken.head.weight.data[0, 0] = float("nan")
    with pytest.raises(ValueError, match="NaN or infinity"):
        lora.add_dora_(broken, rank=2)
    assert not lora.adapters(broken) and all(p.requires_grad for p in broken.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_nan_is_neither_saved_nor_loaded_nor_merged(tmp_path, kind):
    from lightcourse import files

    model = toys.bert()
    KINDS[kind](model, "bert")
    path = lora.save_lora(model, tmp_path / "good")
    weights, before = path / "adapter_model.safetensors", toys.logits(model)
    own(model)[-1].data.flatten()[0] = float("nan")
    for call in (lora.merge_lora_, lambda m: lora.save_lora(m, tmp_path / "bad")):
        with pytest.raises(ValueError, match="holds NaN"):
            call(model)
    assert lora.adapters(model) and not (tmp_path / "bad").exists()
    tensors, header = files.load_tensors(weights)
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    next(iter(tensors.values())).view(-1)[0] = float("inf")
    files.save_tensors(tensors, weights, header)
    other = toys.bert()
    with pytest.raises(ValueError, match="holds NaN or infinity in"):
        lora.load_lora_(other, path)
    assert not lora.adapters(other) and torch.allclose(before, toys.logits(other), atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_files_of_another_model_are_refused(tmp_path, kind):
    model = toys.gpt2()
    KINDS[kind](model, "gpt2")
    other = toys.bert()
    with pytest.raises(ValueError, match="another model: this one has no linear layer"):
        lora.load_lora_(other, lora.save_lora(model, tmp_path / "adapter"))
    assert not lora.adapters(other)


@pytest.mark.parametrize("kind", ["dora", "ia3"])
def test_what_cannot_be_taken_out_again_is_refused(tmp_path, kind):
    model = toys.bert()
    KINDS[kind](model, "bert")
    path = lora.save_lora(model, tmp_path / "adapter")
    lora.merge_lora_(model)
    with pytest.raises(ValueError, match="cannot be taken out again"):
        lora.unmerge_lora_(model, path)


def test_an_ia3_without_its_vectors_is_no_adapter_of_this_model(tmp_path):
    model = toys.bert()
    add_ia3(model, "bert")
    path = lora.save_lora(model, tmp_path / "adapter")
    config = json.loads((path / "adapter_config.json").read_text())
    assert config["feedforward_modules"] == [n for n in config["target_modules"] if "dense" in n]


@pytest.mark.filterwarnings(DEPRECATED)
@pytest.mark.parametrize("kind", KINDS)
def test_a_head_goes_with_the_adapter_to_peft_and_back(tmp_path, kind):
    import peft

    ours = toys.bert()
    KINDS[kind](ours, "bert")
    ours.head.requires_grad_(True)
    ours.head.weight.data.normal_()
    wanted = toys.logits(shaken(ours))
    path = lora.save_lora(ours, tmp_path / "ours")
    theirs = peft.PeftModel.from_pretrained(toys.bert(), path).eval()
    assert torch.allclose(toys.logits(theirs), wanted, atol=1e-6)
    theirs.save_pretrained(tmp_path / "theirs")
    back = toys.bert()
    lora.load_lora_(back, tmp_path / "theirs")
    assert torch.allclose(toys.logits(back), wanted, atol=1e-6)
    assert back.head.weight.requires_grad


# Any shape


@settings(max_examples=30, deadline=None)
@given(
    sides=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    batch=st.lists(st.integers(0, 3), max_size=2),
    bias=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
    seed=st.integers(0, 99),
)
def test_a_shell_computes_what_its_weight_and_bias_do(sides, batch, bias, dtype, seed):
    torch.manual_seed(seed)
    base = torch.nn.Linear(*sides, bias=bias, dtype=dtype)
    x = torch.randn(*batch, 2 * sides[0], dtype=dtype)[..., ::2]  # a view with gaps
    for shell in (
        lora.LoRALinear(base, 1),
        lora.DoRALinear(base, 1),
        lora.IA3Linear(base),
        lora.IA3Linear(base, "inputs"),
    ):
        shaken(shell)
        wanted = torch.nn.functional.linear(x, shell.weight, shell.bias)
        got = shell(x)
        assert got.dtype == dtype and got.shape == wanted.shape
        room = 0.1 if dtype == torch.bfloat16 else 1e-5
        assert torch.allclose(got, wanted.to(dtype), atol=room, rtol=room)
