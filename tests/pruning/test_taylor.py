"""Taylor scores are derivatives: of gates, as autograd and as small steps find them."""

import math

import pytest
import torch
from torch import nn
from transformers.modeling_outputs import SequenceClassifierOutput

from lightcourse import layers, pruning, surgery
from tests import toys
from tests.pruning.test_structured import grouped

FAMILIES = {**toys.ALL, "grouped": grouped}
KINDS = {
    "neurons": (pruning.neuron_taylor, surgery.feed_forwards),
    "heads": (pruning.head_taylor, surgery.attentions),
}


def batches(family, count=2):
    """Return batches with labels: of a class for BERT, of each next token for the others."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1, 50, (count, 3, 8), generator=generator)
    mask = torch.ones_like(ids[0])
    labels = [torch.tensor([0, 1, 2])] * count if family == "bert" else ids
    return [
        {"input_ids": i, "attention_mask": mask, "labels": label}
        for i, label in zip(ids, labels, strict=True)
    ]


def loud(family):
    """Return a model whose parts move the loss by more than RMSNorm's float32 rounds off."""
    model = FAMILIES[family]().double()
    for layer in layers.linear_layers(model).values():
        layer.weight.data.mul_(10)
    return model


def precise_loss(model, batch):
    """Return the loss in float64: transformers' own goes through float32."""
    logits, labels = model(**batch).logits, batch["labels"]
    if labels.ndim == 2:
        logits, labels = logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()
    return nn.functional.cross_entropy(logits.double(), labels)


def gated_loss(model, block, gate, batch):
    """Return the loss with a factor on each unit of a block."""
    reader = model.get_submodule(block.reader)

    def multiply(_, inputs):
        return (inputs[0] * gate.repeat_interleave(inputs[0].shape[-1] // len(gate)),)

    handle = reader.register_forward_pre_hook(multiply)
    try:
        return precise_loss(model, batch)
    finally:
        handle.remove()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_unit_scores_the_derivative_by_its_gate(family, kind):
    score, find = KINDS[kind]
    model, asked = FAMILIES[family](), batches(family)
    scores = score(model, asked)
    for name, block in find(model).items():
        gate = torch.ones(block.units, requires_grad=True)
        losses = [gated_loss(model, block, gate, batch) for batch in asked]
        wanted = sum(torch.autograd.grad(loss, gate)[0].abs() for loss in losses)
        torch.testing.assert_close(scores[name], wanted, rtol=1e-3, atol=1e-6)
        assert scores[name].max() > 1e-5 and not scores[name].requires_grad


@pytest.mark.parametrize("family", FAMILIES)
def test_a_gate_moved_by_a_little_moves_the_loss_so(family):
    model, asked = loud(family), batches(family, 1)
    scores = pruning.neuron_taylor(model, asked)
    name, block = list(surgery.feed_forwards(model).items())[-1]
    for unit in scores[name].argsort()[-3:]:
        step = torch.zeros(block.units, dtype=torch.double).index_fill_(0, unit, 1e-2)
        with torch.no_grad():
            up, down = (gated_loss(model, block, 1 + s * step, asked[0]) for s in (1, -1))
        assert scores[name][unit].item() == pytest.approx(abs(up - down).item() / 2e-2, rel=0.02)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_weight_made_larger_by_a_little_moves_the_loss_so(family):
    model, asked = loud(family), batches(family)
    scores = pruning.taylor_scores(model, asked)
    assert list(scores) == list(layers.linear_layers(model))
    for name in [list(scores)[0], list(scores)[-2]]:
        weight = layers.weight_matrix(model.get_submodule(name)).data
        assert scores[name].shape == weight.shape
        place = divmod(int(scores[name].argmax()), weight.shape[1])
        before, wanted = weight[place].item(), 0
        for batch in asked:
            losses = []
            for factor in (1.01, 0.99):
                weight[place] = before * factor
                with torch.no_grad():
                    losses.append(precise_loss(model, batch).item())
            wanted += abs(losses[0] - losses[1]) / 2e-2
        weight[place] = before
        assert scores[name][place].item() == pytest.approx(wanted, rel=0.02)


def state(model):
    parts = [(module.training, len(module._forward_pre_hooks)) for module in model.modules()]
    return parts, [(p.requires_grad, p.grad) for p in model.parameters()]


def test_nothing_is_left_behind_even_where_it_raises():
    model, asked = toys.llama(), batches("llama")
    model.model.layers[0].requires_grad_(False)
    model.train().model.layers[1].eval()
    before, values = state(model), [p.clone() for p in model.parameters()]
    with torch.no_grad():
        free = pruning.taylor_scores(model, asked)
    assert free["model.layers.0.mlp.up_proj"].max() > 0  # frozen, and scored all the same
    with pytest.raises(ValueError, match="labels"):
        pruning.head_taylor(model, [asked[0], {"input_ids": asked[0]["input_ids"]}])
    assert state(model) == before
    assert all(map(torch.equal, values, model.parameters()))


def test_frozen_models_and_those_in_training_score_the_same():
    model, asked = toys.bert(), batches("bert")  # with dropout
    wanted = pruning.neuron_taylor(model, asked)
    found = pruning.neuron_taylor(model.train().requires_grad_(False), asked)
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_half_precision_is_summed_in_single():
    model, asked = toys.llama(), batches("llama")
    wanted = pruning.taylor_scores(model, asked)
    found = pruning.taylor_scores(model.bfloat16(), asked)
    for name, score in found.items():
        assert score.dtype == torch.float32
        assert torch.cosine_similarity(score.flatten(), wanted[name].flatten(), 0) > 0.99


def test_two_batches_are_not_one_of_both():
    model, (first, second) = toys.llama(), batches("llama")
    sums, one, other = (
        pruning.taylor_scores(model, asked)["model.layers.1.mlp.up_proj"]
        for asked in ([first, second], [first], [second])
    )
    torch.testing.assert_close(sums, one + other)
    both = {name: torch.cat([first[name], second[name]]) for name in first}
    assert (pruning.taylor_scores(model, [both])["model.layers.1.mlp.up_proj"] < sums / 2).any()


def test_a_layer_that_does_not_run_scores_nothing():
    model = toys.bert()
    model.idle = nn.Linear(4, 3)
    assert not pruning.taylor_scores(model, batches("bert"))["idle"].any()


class Lossless(nn.Linear):
    def forward(self, labels):
        return SequenceClassifierOutput(logits=labels)


def test_what_gives_no_loss_is_refused():
    model, asked = toys.llama(), batches("llama", 1)
    for message, wrong in {
        "batches is empty": [],
        "batches is a function": batches,
        "batches holds a str": ["labels"],
        r"only \['input_ids'\]; labels are wanted": [{"input_ids": asked[0]["input_ids"]}],
        "the loss of a batch is nan": [asked[0] | {"labels": asked[0]["labels"] * 0 - 100}],
    }.items():
        with pytest.raises(ValueError, match=message):
            pruning.taylor_scores(model, wrong)
    with pytest.raises(ValueError, match="Lossless, which returns no loss"):
        pruning.taylor_scores(Lossless(2, 2), [{"labels": torch.zeros(2)}])
    with pytest.raises(ValueError, match="Dropout without a linear layer"):
        pruning.taylor_scores(nn.Dropout(), asked)
    with pytest.raises(ValueError, match="Lossless without a known feed-forward block"):
        pruning.neuron_taylor(Lossless(2, 2), asked)
    model.model.norm.weight.data[0] = math.inf
    with pytest.raises(ValueError, match="is (nan|inf); a finite one is wanted"):
        pruning.taylor_scores(model, asked)
