"""One encoder with several heads: each task gets its own answers, and no other's rows."""

import copy

import pytest
import torch

from lightcourse import lora, metrics, models, quantization, sharing
from lightcourse.training import Recipe, train
from tests import toys

IDS = torch.arange(1, 33).view(4, 8)
INPUTS = {"input_ids": IDS, "attention_mask": torch.ones_like(IDS)}
TASKS = {"topics": 5, "sentiment": 2}


@pytest.fixture
def model():
    return sharing.MultiTaskClassifier(toys.bert().encoder, TASKS).eval()


def test_each_head_is_a_classifier_of_its_own(model):
    for task, labels in TASKS.items():
        alone = models.EncoderClassifier(model.encoder, labels).eval()
        alone.head = model.heads[task]
        given = INPUTS | {"labels": torch.tensor([0, 1, 1, 0])}
        ours, want = model(task=task, **given), alone(**given)
        assert torch.equal(ours.logits, want.logits) and torch.equal(ours.loss, want.loss)
        assert torch.equal(model.for_task(task)(**given).loss, want.loss)
        assert torch.equal(model.all_logits(**INPUTS)[task], want.logits)
        assert torch.equal(model.embed(**INPUTS), alone.embed(**INPUTS))
        assert torch.equal(model.for_task(task).embed(**INPUTS), alone.embed(**INPUTS))


def test_one_pass_of_the_encoder_serves_all_heads(model):
    passes = []
    model.encoder.register_forward_hook(lambda *_: passes.append(1))
    assert {t: tuple(logits.shape) for t, logits in model.all_logits(**INPUTS).items()} == {
        task: (4, labels) for task, labels in TASKS.items()
    }
    assert len(passes) == 1


def test_rows_of_one_task_never_reach_the_head_of_another(model):
    labels = torch.tensor([0, 1, 1, 0])
    model(task="sentiment", labels=labels, **INPUTS).loss.backward()
    assert model.heads["topics"].weight.grad is None
    assert model.heads["sentiment"].weight.grad.any()
    assert model.encoder.encoder.layer[0].output.dense.weight.grad.any()


def test_a_task_by_itself_shares_all_weights(model):
    one = model.for_task("topics")
    ours = {id(p) for p in model.parameters()}
    assert {id(p) for p in one.parameters()} < ours
    heads = sum(p.numel() for p in model.heads["sentiment"].parameters())
    assert metrics.size_in_bytes(model) - metrics.size_in_bytes(one) == 4 * heads


def test_it_learns_from_mixed_batches_and_goes_on_from_a_checkpoint(model, tmp_path):
    rows = {t: INPUTS | {"labels": torch.arange(4) % n} for t, n in TASKS.items()}

    def batches(task):
        return lambda epoch, seed: iter([rows[task]])

    mixed = sharing.mixed_batches({t: batches(t) for t in TASKS}, {"topics": 0.4, "sentiment": 0.6})
    whole, broken = copy.deepcopy(model), copy.deepcopy(model)
    recipe = Recipe(6, 1e-2, evaluate_every=3)
    history = train(whole, mixed, recipe, progress=False)
    assert history.losses[-1] < history.losses[0]

    def stop(model, step):
        if step == 4:
            raise KeyboardInterrupt

    file = tmp_path / "run.safetensors"
    with pytest.raises(KeyboardInterrupt):
        train(broken, mixed, recipe, checkpoint=file, progress=False, after_step=stop)
    resumed = copy.deepcopy(model)
    train(resumed, mixed, recipe, checkpoint=file, progress=False)
    for ours, want in zip(resumed.parameters(), whole.parameters(), strict=True):
        assert torch.equal(ours, want)


def test_predictions_of_batches_that_name_their_task(model):
    batch = INPUTS | {"task": "topics", "labels": torch.zeros(4, dtype=torch.int64)}
    assert metrics.predict(model, [batch]).shape == (4, 5)


def test_other_verbs_find_the_encoder(model):
    before = metrics.size_in_bytes(model)
    report = quantization.quantize_(model.encoder, 8)
    assert metrics.size_in_bytes(model) < before and not any("heads" in n for n in report.changed)
    lora.add_lora_(model.encoder, rank=2)
    assert model(task="topics", **INPUTS).logits.shape == (4, 5)


@pytest.mark.parametrize(
    "tasks, sentence",
    [
        ({}, "num_labels is empty"),
        ({"": 2}, "a name without dots"),
        ({"a.b": 2}, "a name without dots"),
        ({"items": 2}, "a task 'items', which nn.ModuleDict uses itself"),
        ({"type": 2}, "a task 'type', which nn.ModuleDict"),
        ({"keys": 2}, "a task 'keys', which nn.ModuleDict"),
        ({"training": 2}, "a task 'training', which nn.ModuleDict"),
        ({"topics": 1}, r"num_labels\['topics'\] is 1; a whole number of classes, at least 2"),
        ({"topics": 2.5}, r"num_labels\['topics'\] is 2\.5; a whole number"),
        ({"topics": "3"}, r"num_labels\['topics'\] is '3'; a whole number"),
    ],
)
def test_bad_tasks(tasks, sentence):
    with pytest.raises(ValueError, match=sentence):
        sharing.MultiTaskClassifier(toys.bert().encoder, tasks)


def test_unknown_tasks_and_labels_of_another_task(model):
    for call in (model.for_task, lambda task: model(task=task, **INPUTS)):
        with pytest.raises(ValueError, match="task is 'topic'; one of"):
            call("topic")
    with pytest.raises(ValueError, match=r"task 'sentiment': labels holds 4; 0\.\.1"):
        model(task="sentiment", labels=torch.tensor([0, 1, 4, 0]), **INPUTS)
