"""The loop: it learns, repeats, stops, resumes as if never interrupted, and says what is wrong."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightcourse import files, training
from tests import toys


def batches(epoch, seed):
    """Six batches of a rule that is easy to learn: is the first token large?"""
    generator = torch.Generator().manual_seed(seed * 1000 + epoch)
    for _ in range(6):
        ids = torch.randint(1, 50, (8, 6), generator=generator)
        yield {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "labels": (ids[:, 0] > 25).long(),
        }


def validation(model):
    held_out = next(iter(batches(0, 99)))
    return model(**held_out).loss.item()


def train(model, steps=20, **settings):
    where = settings.pop("checkpoint", None)
    recipe = training.Recipe(steps=steps, learning_rate=5e-3, evaluate_every=5, **settings)
    return training.train(
        model, batches, recipe, evaluate=validation, checkpoint=where, progress=False
    )


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_it_learns():
    model = toys.bert(2)
    before = validation(model)
    history = train(model, 60)
    assert history.best < 0.7 * before
    assert len(history.losses) == 60 and not model.training


def test_the_same_seed_gives_the_same_weights_and_another_does_not():
    models = [toys.bert(2) for _ in range(3)]
    for model, seed in zip(models, (1, 1, 2), strict=True):
        train(model, seed=seed)
    assert torch.equal(weights(models[0]), weights(models[1]))
    assert not torch.equal(weights(models[0]), weights(models[2]))


def test_a_bar_shows_unless_it_is_turned_off(capsys, monkeypatch):
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    recipe = training.Recipe(steps=1)
    training.train(toys.bert(2), batches, recipe, progress=False)
    assert capsys.readouterr().err == ""
    training.train(toys.bert(2), batches, recipe)
    assert "1/1" in capsys.readouterr().err
    monkeypatch.setenv("TQDM_DISABLE", "1")
    training.train(toys.bert(2), batches, recipe)
    assert capsys.readouterr().err == ""


class Killed(Exception):
    pass


def dying(function, calls):
    """Return the function, but dead from its ``calls``-th call on."""
    left = iter(range(calls))

    def fragile(*arguments):
        if next(left, None) is None:
            raise Killed
        return function(*arguments)

    return fragile


def keeping(model, masks):
    """Return what to do after a step: where a mask is False, a parameter stays as it is now."""
    kept = {name: model.get_parameter(name).detach().clone() for name in masks}

    @torch.no_grad()
    def after_step(model, step):
        for name, mask in masks.items():
            parameter = model.get_parameter(name)
            parameter.copy_(torch.where(mask, parameter, kept[name]))

    return after_step


def rise_and_fall(model):
    """Return a score that is best in the middle of the run below."""
    return abs(validation(model) - 0.8)


def everything(path, loss=training.model_loss, evaluate=rise_and_fall):
    """Train with all that a run may have, and return the model and its history."""
    model = toys.bert(2)
    recipe = training.Recipe(
        steps=40,
        learning_rate=8e-3,
        warmup_steps=4,
        weight_decay=0.1,
        evaluate_every=3,
        patience=2,
        seed=5,
        final=0.5,
        groups=[training.Group("head", learning_rate=2e-2, weight_decay=0.0)],
    )
    after_step = keeping(model, {"head.weight": torch.tensor([[True], [False]])})
    history = training.train(
        model, unruly_batches, recipe, loss, evaluate, path, False, after_step=after_step
    )
    return model, history


def unruly_batches(epoch, seed):
    """The batches, by a loader that also draws from the global generator."""
    torch.rand(1)
    for batch in batches(epoch, seed):
        torch.rand(1)
        yield batch


@pytest.mark.parametrize("killed_at", [0, 3, 4, 7, 10, 11])
def test_a_killed_run_resumes_to_the_very_same_end(tmp_path, killed_at):
    wanted, straight = everything(tmp_path / "straight.safetensors")
    assert straight.stopped_early and len(straight.losses) == 12
    assert min(straight.evaluations, key=lambda pair: pair[1])[0] == 6
    path = tmp_path / "broken.safetensors"
    with pytest.raises(Killed):
        everything(path, loss=dying(training.model_loss, killed_at))
    torch.manual_seed(999)
    model, history = everything(path)
    assert history == straight
    assert torch.equal(weights(model), weights(wanted))


def test_a_run_killed_again_and_again_resumes_to_the_very_same_end(tmp_path):
    wanted, straight = everything(None)
    path, deaths = tmp_path / "broken.safetensors", 0
    while True:
        try:
            model, history = everything(path, evaluate=dying(rise_and_fall, 1))
            break
        except Killed:
            deaths += 1
    assert deaths == len(straight.evaluations) - 1
    assert history == straight
    assert torch.equal(weights(model), weights(wanted))


def test_a_finished_run_is_not_trained_again(tmp_path):
    path = tmp_path / "run.safetensors"
    first, second = toys.bert(2), toys.bert(2)
    train(first, checkpoint=path)
    changed = path.stat().st_mtime_ns
    train(second, checkpoint=path)
    assert torch.equal(weights(first), weights(second))
    assert path.stat().st_mtime_ns == changed


def test_a_checkpoint_of_another_recipe_is_refused(tmp_path):
    path = tmp_path / "run.safetensors"
    train(toys.bert(2), steps=5, checkpoint=path)
    with pytest.raises(ValueError, match="made with another recipe"):
        train(toys.bert(2), steps=6, checkpoint=path)


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    path = tmp_path / "run.safetensors"
    train(toys.bert(2), steps=5, checkpoint=path)
    with pytest.raises(ValueError, match="belongs to another model"):
        train(toys.bert(3), steps=5, checkpoint=path)


def test_a_checkpoint_is_plain_safetensors(tmp_path):
    path = tmp_path / "run.safetensors"
    train(toys.bert(2), steps=5, checkpoint=path)
    tensors, metadata = files.load_tensors(path)
    assert "rng" in tensors and "run" in metadata
    assert list(tmp_path.iterdir()) == [path]


def test_the_best_weights_are_kept_and_patience_ends_the_run():
    model = toys.bert(2)
    scores = iter([3.0, 1.0, 2.0, 2.0, 0.0])
    kept = []

    def evaluate(model):
        kept.append(weights(model))
        return next(scores)

    recipe = training.Recipe(steps=50, learning_rate=5e-3, evaluate_every=5, patience=2)
    history = training.train(model, batches, recipe, evaluate=evaluate, progress=False)
    assert history.stopped_early and [step for step, _ in history.evaluations] == [5, 10, 15, 20]
    assert torch.equal(weights(model), kept[1])


def test_frozen_parameters_stay():
    model = toys.bert(2)
    model.encoder.requires_grad_(False)
    before = weights(model.encoder)
    train(model)
    assert torch.equal(before, weights(model.encoder))


# Rates, groups, masks, class weights


def test_the_rate_climbs_then_falls_to_zero():
    recipe = training.Recipe(steps=100, learning_rate=1.0, warmup_steps=10)
    rates = [recipe.rate(step) for step in range(100)]
    assert rates[0] == 0.1 and rates[9] == 1.0
    assert rates[:10] == sorted(rates[:10]) and rates[10:] == sorted(rates[10:], reverse=True)
    assert 0 < rates[-1] < 0.001


@given(st.integers(1, 50), st.integers(0, 50), st.floats(0, 1), st.floats(1e-6, 10))
def test_the_rate_stays_between_final_and_peak_and_scales_with_the_peak(steps, warmup, end, peak):
    recipe = training.Recipe(steps, warmup_steps=min(warmup, steps), final=end)
    rates = [recipe.rate(step, peak) for step in range(steps)]
    after = rates[recipe.warmup_steps :]
    assert all(end * peak <= rate * (1 + 1e-9) for rate in after)
    assert max(rates) == pytest.approx(peak)
    assert recipe.rate(0) == pytest.approx(rates[0] / peak * recipe.learning_rate)
    if end == 1:
        assert after == pytest.approx([peak] * len(after))


def one_step(model, **settings):
    """Take one step at the peak rate and return how far each parameter moved, at most."""
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    recipe = training.Recipe(1, **{"learning_rate": 1e-3} | settings)
    training.train(model, batches, recipe, progress=False)
    return {n: (p - before[n]).abs().max().item() for n, p in model.named_parameters()}


def test_a_group_has_its_own_rate():
    # Adam's first step moves each entry with a gradient by the rate, whatever the gradient.
    groups = [training.Group("head.bias", 5e-2), training.Group("head", 1e-2)]
    moved = one_step(toys.bert(2), groups=groups)
    assert moved["head.bias"] == pytest.approx(5e-2, rel=1e-2)
    assert moved["head.weight"] == pytest.approx(1e-2, rel=1e-2)
    query = moved["encoder.encoder.layer.0.attention.self.query.weight"]
    assert query == pytest.approx(1e-3, rel=1e-2)


def test_decay_spares_biases_and_norms_unless_a_group_asks_for_it():
    def shrunk(recipe):
        """Return which parameters a step without any gradient makes smaller."""
        model = toys.bert(2)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.fill_(1.0)
        nothing = lambda model, batch: sum(p.sum() for p in model.parameters()) * 0.0  # noqa: E731
        training.train(model, batches, recipe, nothing, progress=False)
        return {name for name, p in model.named_parameters() if (p < 1).all()}

    names = {name: p.ndim for name, p in toys.bert(2).named_parameters()}
    matrices = {name for name, ndim in names.items() if ndim == 2}
    assert shrunk(training.Recipe(1, 0.1)) == set()
    assert shrunk(training.Recipe(1, 0.1, weight_decay=0.1)) == matrices
    spared = [training.Group("head", weight_decay=0.0)]
    left = matrices - {"head.weight"}
    assert shrunk(training.Recipe(1, 0.1, weight_decay=0.1, groups=spared)) == left
    asked = [training.Group("head", weight_decay=0.1)]
    assert shrunk(training.Recipe(1, 0.1, groups=asked)) == {"head.weight", "head.bias"}


def test_groups_of_the_same_rate_change_nothing():
    plain, grouped = toys.bert(2), toys.bert(2)
    train(plain, weight_decay=0.1)
    train(grouped, weight_decay=0.1, groups=[training.Group("query"), training.Group("LayerNorm")])
    assert torch.equal(weights(plain), weights(grouped))


def test_a_group_without_a_parameter_is_refused():
    with pytest.raises(ValueError, match="group 'adapter' takes no trainable.*head.bias"):
        one_step(toys.bert(2), groups=[training.Group("adapter")])
    with pytest.raises(ValueError, match="group 'head.bias' takes no trainable"):
        one_step(toys.bert(2), groups=[training.Group("head"), training.Group("head.bias")])
    frozen = toys.bert(2)
    frozen.head.requires_grad_(False)
    with pytest.raises(ValueError, match="group 'head' takes no trainable"):
        one_step(frozen, groups=[training.Group("head")])


def test_what_is_put_back_after_each_step_stays_while_the_rest_learns():
    model = toys.bert(2)
    name = "encoder.encoder.layer.0.intermediate.dense.weight"
    before = model.get_parameter(name).detach().clone()
    mask = torch.rand(before.shape, generator=torch.Generator().manual_seed(0)) > 0.5
    rows = torch.tensor([[True], [False]])
    head = model.head.weight.detach().clone()
    recipe = training.Recipe(steps=20, learning_rate=5e-3, weight_decay=0.5)
    after_step = keeping(model, {name: mask, "head.weight": rows})
    training.train(model, batches, recipe, progress=False, after_step=after_step)
    after = model.get_parameter(name)
    assert torch.equal(after[~mask], before[~mask]) and not (after == before)[mask].any()
    assert torch.equal(model.head.weight[1], head[1])
    assert not (model.head.weight[0] == head[0]).any()


def test_after_step_is_told_the_model_and_the_steps_done():
    model, calls = toys.bert(2), []
    recipe = training.Recipe(3)

    def after_step(found, step):
        calls.append((found is model, step))

    training.train(model, batches, recipe, progress=False, after_step=after_step)
    assert calls == [(True, 1), (True, 2), (True, 3)]


@given(st.lists(st.integers(1, 10**6), min_size=2, max_size=20))
def test_balanced_weights_give_every_class_the_same_sum(counts):
    found = training.balanced_weights(counts) * torch.tensor(counts)
    assert torch.allclose(found, torch.full((len(counts),), sum(counts) / len(counts)))


@pytest.mark.parametrize("counts", [[], [3], [3, 0], [3, -1]])
def test_balanced_weights_of_missing_classes_are_refused(counts):
    with pytest.raises(ValueError, match="counts is "):
        training.balanced_weights(counts)


def test_the_weighted_loss_is_the_formula():
    model, batch = toys.bert(3), next(iter(batches(0, 0)))
    batch["labels"] = torch.arange(8) % 3
    weights = [0.5, 1.0, 4.0]
    logits = model(batch["input_ids"], batch["attention_mask"]).logits
    each = -logits.log_softmax(-1)[range(8), batch["labels"]]
    of_each = torch.tensor(weights)[batch["labels"]]
    want = (each * of_each).sum() / of_each.sum()
    assert torch.isclose(training.weighted_loss(weights)(model, batch), want)
    equal = training.weighted_loss([2.0, 2.0, 2.0])(model, batch)
    assert torch.isclose(equal, training.model_loss(model, batch))


def test_class_weights_help_the_rare_class():
    def rare_batches(epoch, seed):
        """The rule is noise; one label in eight is a 1."""
        for batch in batches(epoch, seed):
            yield batch | {"labels": (torch.arange(8) == 0).long()}

    def chance_of_rare(loss):
        model = toys.bert(2)
        recipe = training.Recipe(steps=60, learning_rate=5e-3)
        training.train(model, rare_batches, recipe, loss, progress=False)
        batch = next(iter(batches(0, 99)))
        return model(**batch).logits.softmax(-1)[:, 1].mean().item()

    assert chance_of_rare(training.model_loss) == pytest.approx(1 / 8, abs=0.05)
    balanced = training.weighted_loss(training.balanced_weights([7, 1]))
    assert chance_of_rare(balanced) == pytest.approx(1 / 2, abs=0.1)


@pytest.mark.parametrize(
    "class_weights", [[1.0], [1.0, 0.0], [1.0, -1.0], [1.0, float("nan")], [[1.0, 1.0]]]
)
def test_impossible_class_weights_are_refused(class_weights):
    with pytest.raises(ValueError, match="class_weights is "):
        training.weighted_loss(class_weights)


@pytest.mark.parametrize("loss", [training.model_loss, training.weighted_loss([1.0, 2.0])])
@pytest.mark.parametrize("label", [2, -1])
def test_labels_out_of_range_are_refused(loss, label):
    batch = next(iter(batches(0, 0)))
    batch["labels"][3] = label
    with pytest.raises(ValueError, match=f"labels holds {label}; 0..1 is wanted"):
        loss(toys.bert(2), batch)


def test_class_weights_of_another_number_of_classes_are_refused():
    with pytest.raises(ValueError, match="class_weights has 3 entries; 2, as many as"):
        training.weighted_loss([1.0, 1.0, 1.0])(toys.bert(2), next(iter(batches(0, 0))))


# What cannot be


def test_what_cannot_be_trained_is_said():
    frozen = toys.bert(2).requires_grad_(False)
    with pytest.raises(ValueError, match="no trainable parameter"):
        train(frozen)
    recipe = training.Recipe(steps=3)
    with pytest.raises(ValueError, match="batches gave no batch"):
        training.train(toys.bert(2), lambda epoch, seed: [], recipe, progress=False)
    with pytest.raises(ValueError, match="loss became nan at step 0"):
        training.train(
            toys.bert(2),
            batches,
            recipe,
            loss=lambda m, b: m(**b).loss * float("nan"),
            progress=False,
        )

    with pytest.raises(ValueError, match="evaluate gave NaN at step 1"):
        training.train(
            toys.bert(2),
            batches,
            training.Recipe(1),
            evaluate=lambda model: float("nan"),
            progress=False,
        )
    patient = training.Recipe(3, evaluate_every=1, patience=1)
    with pytest.raises(ValueError, match="patience is 1; evaluate is wanted"):
        training.train(toys.bert(2), batches, patient, progress=False)


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0},
        {"learning_rate": 0.0},
        {"learning_rate": float("inf")},
        {"warmup_steps": -1},
        {"warmup_steps": 11},
        {"final": 1.5},
        {"weight_decay": -0.1},
        {"max_grad_norm": 0.0},
        {"evaluate_every": -1},
        {"patience": 3},
        {"patience": -1},
    ],
)
def test_impossible_recipes_are_refused(wrong):
    (name,) = wrong
    with pytest.raises(ValueError, match=f"{name} is {wrong[name]}.*wanted"):
        training.Recipe(**{"steps": 10} | wrong)


@pytest.mark.parametrize(
    "wrong", [{"pattern": "("}, {"learning_rate": -1.0}, {"weight_decay": float("nan")}]
)
def test_impossible_groups_are_refused(wrong):
    (name,) = wrong
    with pytest.raises(ValueError, match=f"{name} is "):
        training.Group(**{"pattern": "head"} | wrong)
