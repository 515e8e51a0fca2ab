"""The loop: it learns, repeats, stops, resumes as if never interrupted, and says what is wrong."""

import pytest
import torch
import toys

from lightcourse import files, training


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


@pytest.mark.parametrize("killed_at", [5, 7, 13])
def test_a_killed_run_resumes_to_the_very_same_end(tmp_path, killed_at):
    straight, broken = toys.bert(2), toys.bert(2)
    wanted = train(straight, checkpoint=tmp_path / "straight.safetensors")
    recipe = training.Recipe(steps=20, learning_rate=5e-3, evaluate_every=5)
    steps = []

    def fragile(model, batch):
        steps.append(1)
        if len(steps) > killed_at:
            raise Killed
        return training.model_loss(model, batch)

    path = tmp_path / "broken.safetensors"
    with pytest.raises(Killed):
        training.train(
            broken, batches, recipe, fragile, evaluate=validation, checkpoint=path, progress=False
        )
    history = train(restarted := toys.bert(2), checkpoint=path)
    assert history == wanted
    assert torch.equal(weights(straight), weights(restarted))


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


def test_the_rate_climbs_then_falls_to_zero():
    recipe = training.Recipe(steps=100, learning_rate=1.0, warmup=10)
    rates = [recipe.rate(step) for step in range(100)]
    assert rates[0] == 0.1 and rates[9] == 1.0
    assert rates[:10] == sorted(rates[:10]) and rates[10:] == sorted(rates[10:], reverse=True)
    assert 0 < rates[-1] < 0.001


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


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"steps": 1, "learning_rate": 0.0}])
def test_impossible_recipes_are_refused(wrong):
    with pytest.raises(ValueError, match="is wanted"):
        training.Recipe(**wrong)
