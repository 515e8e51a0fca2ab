"""Each row of a batch by its own adapter: what a batch of its own would give."""

import pytest
import torch

from lightcourse import lora, quantization
from tests import families, toys
from tests.lora.test_kinds import SIDES, TARGETS, shaken

NAMES = ["low rank", None, "vector", "directions", "vector"]


def three_kinds(family):
    """Return a toy with an adapter of each kind."""
    model = toys.ALL[family]()
    lora.add_lora_(model, 2, targets=TARGETS[family], adapter="low rank")
    lora.add_ia3_(model, *SIDES[family], adapter="vector")
    lora.add_dora_(model, 2, targets=TARGETS[family], adapter="directions")
    return shaken(model)


def batch_of(rows):
    torch.manual_seed(3)
    ids = torch.randint(1, 50, (rows, 8))
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    return {"input_ids": ids, "attention_mask": mask}


def one_by_one(model, batch):
    """Return the logits of each row, after a switch to its adapter."""
    found = []
    for row, name in enumerate(NAMES):
        lora.set_adapter_(model, name)
        found.append(model(**{key: value[row : row + 1] for key, value in batch.items()}).logits)
    return torch.cat(found)


@pytest.mark.parametrize("family", toys.ALL)
def test_rows_get_what_their_adapter_gives_alone(family):
    model, batch = three_kinds(family), batch_of(len(NAMES))
    with torch.no_grad():
        apart = one_by_one(model, batch)
        lora.set_adapter_(model, "vector")
        same = model(**batch).logits
        with lora.adapter_rows(model, NAMES) as inner:
            together = inner(**batch).logits
        assert torch.allclose(apart, together, atol=1e-5)
        assert not torch.allclose(same, together, atol=1e-3)
        assert torch.equal(same, model(**batch).logits)
        assert lora.adapters(model)["vector"] and not lora.adapters(model)["low rank"]


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
def test_peft_gives_the_same_rows(tmp_path):
    import peft

    model, batch = toys.bert(), batch_of(3)
    for number, name in enumerate(("a", "b")):
        lora.add_lora_(model, 2 + number, targets=["query"], adapter=name)
    shaken(model)
    paths = {name: lora.save_lora(model, tmp_path / name, name) for name in ("a", "b")}
    theirs = peft.PeftModel.from_pretrained(toys.bert(), paths["a"], adapter_name="a")
    theirs.load_adapter(paths["b"], "b")
    with torch.no_grad():
        twin = theirs.eval()(**batch, adapter_names=["b", "__base__", "a"]).logits
        with lora.adapter_rows(model, ["b", None, "a"]):
            assert torch.allclose(model(**batch).logits, twin, atol=1e-6)


@pytest.mark.parametrize("activations", [None, 8])
def test_rows_over_integers(activations):
    model, batch = toys.bert(), batch_of(len(NAMES))
    quantization.quantize_(model, 4, activations=activations)
    lora.add_lora_(model, 2, targets=["query"], adapter="low rank")
    lora.add_ia3_(model, *SIDES["bert"], adapter="vector")
    lora.add_dora_(model, 2, targets=["query"], adapter="directions")
    shaken(model)
    with torch.no_grad():
        apart = one_by_one(model, batch)
        with lora.adapter_rows(model, NAMES):
            assert torch.allclose(apart, model(**batch).logits, atol=1e-3)


def test_adapters_learn_from_their_rows_alone():
    model, batch = toys.bert(), batch_of(3)
    lora.add_lora_(model, 2, targets=["query"], adapter="a")
    lora.add_lora_(model, 2, targets=["query"], adapter="b")
    shaken(model)
    for shell in lora.shell.updates(model).values():
        for parameter in lora.shell.own_parameters(shell).values():
            parameter.requires_grad_()
    with lora.adapter_rows(model, ["a", "b", "a"]):
        model(**batch).logits[1].sum().backward()
    for shell in lora.shell.updates(model).values():
        gradient = shell.lora_b.grad.abs().sum()
        assert (gradient > 0) == (shell.adapter == "b")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a", "c"], "adapter is 'c'; one of"),
        ([], "names is \\[\\]"),
        ("a", "names is 'a'"),
        (["a", "a", None], "names has 3 entries.*was given 2 rows"),
    ],
)
def test_wrong_names_are_told_and_the_model_is_as_before(names, message):
    model = toys.bert()
    lora.add_lora_(model, 2, targets=["query"], adapter="a")
    before = toys.logits(shaken(model))
    with pytest.raises(ValueError, match=message), lora.adapter_rows(model, names):
        toys.logits(model)
    assert torch.equal(before, toys.logits(model))


@pytest.mark.parametrize("family", ["nn.TransformerEncoder", "Mamba"])
def test_layers_that_are_read_and_not_called_are_refused(family):
    model, inputs = families.make(family)
    lora.add_lora_(model, 2, adapter="a")
    before = families.answer(model, inputs)
    with (
        pytest.raises(ValueError, match="reads the weight of a layer instead of calling it"),
        lora.adapter_rows(model, ["a", None]),
    ):
        families.answer(model, inputs)
    assert torch.equal(before, families.answer(model, inputs))


def test_t5_which_asks_for_a_dtype_is_served():
    model, inputs = families.make("T5")
    for adapter in ("a", "b"):
        lora.add_lora_(model, 2, adapter=adapter)
    shaken(model)
    apart = []
    for row, adapter in enumerate("ab"):
        lora.set_adapter_(model, adapter)
        apart.append(families.answer(model, inputs)[row])
    with lora.adapter_rows(model, ["a", "b"]):
        together = families.answer(model, inputs)
    assert torch.allclose(together, torch.stack(apart), atol=1e-5)


def test_experts_that_see_all_tokens_at_once_are_refused():
    model, inputs = families.make("Qwen2-MoE")
    lora.add_lora_(model, 2, adapter="a")
    with pytest.raises(ValueError, match="was given 16 rows"), lora.adapter_rows(model, ["a"] * 2):
        families.answer(model, inputs)


def test_switching_back_and_forth_is_exact():
    model, batch = three_kinds("bert"), batch_of(5)
    with torch.no_grad():
        lora.set_adapter_(model, "directions")
        first = model(**batch).logits
        for name in ("vector", None, "low rank", "directions"):
            lora.set_adapter_(model, name)
        assert torch.equal(first, model(**batch).logits)
