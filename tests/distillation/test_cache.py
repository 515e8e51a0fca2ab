"""Answers on disk teach what the living teacher would, bit by bit and resumed at will."""

import copy
import gc
import weakref

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightcourse import distillation, files, quantization, training
from lightcourse.distillation import cache
from tests import toys
from tests.distillation.test_teaching import KINDS, classified, spoiled, text, without

KEPT = {"bert": 3, "llama": 50, "gpt2": 50}


def texts(count, seed=0):
    """Yield batches for a toy language model."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        ids = torch.randint(1, 50, (2, 8), generator=generator)
        yield {"input_ids": ids, "labels": ids}


def only(folder):
    """Return the one batch of a folder."""
    (batch,) = distillation.cached_batches(folder)(0, 0)
    return batch


@pytest.mark.parametrize("weight", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("kind", KINDS)
def test_with_all_classes_kept_the_loss_is_that_of_the_living_teacher(tmp_path, kind, weight):
    teacher, batch = toys.ALL[kind](), KINDS[kind]()
    student = spoiled(teacher)
    distillation.cache_logits(teacher, tmp_path, [batch], KEPT[kind], temperature=2.0)
    got = distillation.taught_by_cache(weight)(student, only(tmp_path))
    want = distillation.taught_by(teacher, 2.0, weight)(student, batch)
    assert torch.isclose(got, want, rtol=2e-3)
    gradients = [torch.autograd.grad(x, list(student.parameters())) for x in (got, want)]
    for one, other in zip(*gradients, strict=True):
        assert torch.isfinite(one).all() and torch.allclose(one, other, atol=5e-3)


def kept(logits, k, temperature):
    """Return what a batch of the cache would hold of these logits."""
    model = torch.nn.Module()
    model.forward = lambda **_: type("Output", (), {"logits": logits})
    tensors, classes = cache._answered(model, {}, k, temperature)
    assert classes == logits.shape[-1]
    return tensors | {"teacher_temperature": torch.tensor(temperature)}


@given(st.integers(0, 99), st.integers(2, 12), st.floats(0.5, 5), st.data())
def test_fewer_classes_never_make_the_divergence_larger(seed, classes, temperature, data):
    k = data.draw(st.integers(1, classes))
    generator = torch.Generator().manual_seed(seed)
    student, teacher = torch.randn(2, 4, classes, generator=generator) * 3
    everything = torch.ones(4, dtype=torch.bool)
    got = cache._cached_kl(student, kept(teacher, k, temperature), everything)
    whole = distillation.forward_kl(student, teacher, temperature)
    assert -1e-4 < got < whole * 1.005 + 1e-3
    if k >= classes - 1:  # a bucket for one class is that class
        assert torch.isclose(got, whole, rtol=5e-3, atol=1e-3)


def test_the_bucket_counts():
    """Equal within the k classes, unequal in what is left for all others."""
    teacher, student = torch.tensor([[3.0, 2.0, 0.0, 0.0]]), torch.tensor([[3.0, 2.0, 2.0, 2.0]])
    got = cache._cached_kl(student, kept(teacher, 2, 1.0), torch.tensor([True]))
    p, q = teacher.softmax(-1), student.softmax(-1)
    p, q = (torch.tensor([x[0, 0], x[0, 1], x[0, 2] + x[0, 3]]) for x in (p, q))
    want = (p * (p / q).log()).sum()
    assert want > 0.1 and torch.isclose(got, want, rtol=1e-3)


@pytest.mark.parametrize("sure", [30.0, 1e5])
def test_a_teacher_that_is_sure_makes_no_nan(sure):
    teacher, student = torch.tensor([[sure, 0.0, 0.0]]), torch.zeros(1, 3, requires_grad=True)
    for k in (1, 2, 3):
        loss = cache._cached_kl(student, kept(teacher, k, 1.0), torch.tensor([True]))
        (gradient,) = torch.autograd.grad(loss, student)
        assert torch.isclose(loss, torch.tensor(3.0).log(), rtol=1e-3)
        assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_classes_that_the_teacher_excludes_are_excluded_on_disk(k):
    teacher = torch.tensor([[2.0, -torch.inf, 1.0, -torch.inf]])
    student = torch.tensor([[0.0, 5.0, 1.0, 2.0]], requires_grad=True)
    everything = torch.tensor([True])
    loss = cache._cached_kl(student, kept(teacher, k, 2.0), everything)
    whole = distillation.forward_kl(student, teacher, 2.0)
    assert torch.isclose(loss, whole, rtol=5e-3) or (k == 1 and loss < whole)
    assert torch.isfinite(torch.autograd.grad(loss, student)[0]).all()
    alike = cache._cached_kl(teacher.clone(), kept(teacher, k, 2.0), everything)
    assert alike.abs() < 1e-3


@pytest.mark.parametrize("k", [1, 2])
def test_a_student_that_excludes_what_stands_in_the_bucket_costs_infinity(k):
    teacher, student = torch.tensor([[2.0, 1.0, 0.0]]), torch.tensor([[0.0, 0.0, 0.0]])
    student[0, k:] = -torch.inf
    loss = cache._cached_kl(student, kept(teacher, k, 1.0), torch.tensor([True]))
    assert loss == torch.inf


@pytest.mark.parametrize("lost", [torch.nan, torch.inf, -torch.inf])
def test_a_teacher_without_a_distribution_is_refused_and_nothing_is_written(tmp_path, lost):
    teacher, batch = toys.llama(), text()
    spoil = torch.zeros(3, 8, 50)
    spoil[1, 6] = lost  # padding: does not count
    teacher.forward = lambda **_: type("Output", (), {"logits": spoil})
    distillation.cache_logits(teacher, tmp_path / "padding", [batch], 4)
    student = spoiled(toys.llama())
    assert torch.isfinite(distillation.taught_by_cache()(student, only(tmp_path / "padding")))
    spoil[0, 1] = lost
    with pytest.raises(ValueError, match="teacher_logits hold NaN"):
        distillation.cache_logits(teacher, tmp_path / "text", [batch], 4)
    assert not list((tmp_path / "text").glob("*.safetensors"))


def test_a_shard_holds_the_batch_and_k_classes_in_few_bytes(tmp_path):
    teacher, (batch,) = toys.llama(), list(texts(1))
    assert distillation.cache_logits(teacher, tmp_path / "new", [batch], 4, 2.0) == tmp_path / "new"
    tensors, metadata = files.load_tensors(tmp_path / "new" / "000000.safetensors")
    assert (metadata["k"], metadata["temperature"], metadata["classes"]) == ("4", "2.0", "50")
    assert torch.equal(tensors["input_ids"], batch["input_ids"])
    assert torch.equal(tensors["labels"], batch["labels"])
    log_probs, ids = tensors["teacher_log_probs"], tensors["teacher_ids"]
    assert (log_probs.dtype, log_probs.shape) == (torch.float16, (2, 8, 5))
    assert (ids.dtype, ids.shape) == (torch.int32, (2, 8, 4))
    assert log_probs.nbytes + ids.nbytes == 16 * (6 * 4 + 2)
    with torch.no_grad():
        wanted = (teacher(input_ids=batch["input_ids"]).logits / 2.0).softmax(-1).topk(4)
    assert torch.equal(ids.long(), wanted.indices)
    assert torch.allclose(log_probs[..., :4].float().exp(), wanted.values, rtol=5e-3)
    assert torch.allclose(log_probs.float().exp().sum(-1), torch.tensor(1.0), atol=5e-3)


def counting(teacher):
    """Return a list that grows by the names of the inputs whenever the teacher is asked."""
    asked = []
    teacher.register_forward_pre_hook(
        lambda _, args, inputs: asked.append(sorted(inputs)), with_kwargs=True
    )
    return asked


def test_labels_are_kept_and_not_shown_to_the_teacher(tmp_path):
    teacher = toys.bert()
    asked = counting(teacher)
    distillation.cache_logits(teacher, tmp_path, [classified()], 2)
    assert asked == [["attention_mask", "input_ids"]]
    assert torch.equal(only(tmp_path)["labels"], classified()["labels"])


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def assert_same(folder, other):
    """Compare tensors and metadata; safetensors writes the latter in any order."""
    assert {path.name for path in folder.iterdir()} == {path.name for path in other.iterdir()}
    for path in folder.iterdir():
        (ours, notes), (theirs, wanted) = map(files.load_tensors, (path, other / path.name))
        assert notes == wanted and set(ours) == set(theirs)
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_an_interrupted_run_goes_on_with_what_is_missing(tmp_path):
    teacher = toys.llama()
    asked = counting(teacher)
    whole = distillation.cache_logits(teacher, tmp_path / "whole", texts(4), 5)
    assert len(asked) == 4

    def interrupted():
        yield from texts(2)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        distillation.cache_logits(teacher, tmp_path / "part", interrupted(), 5)
    assert len(contents(tmp_path / "part")) == 2 and len(asked) == 6
    part = distillation.cache_logits(teacher, tmp_path / "part", texts(4), 5)
    assert len(asked) == 8
    assert_same(part, whole)
    distillation.cache_logits(teacher, part, texts(4), 5)
    assert len(asked) == 8


def test_a_damaged_shard_is_written_anew(tmp_path):
    teacher = toys.llama()
    for folder in ("one", "other"):
        distillation.cache_logits(teacher, tmp_path / folder, texts(2), 5)
    shard = tmp_path / "one" / "000001.safetensors"
    shard.write_bytes(shard.read_bytes()[:-9])
    distillation.cache_logits(teacher, tmp_path / "one", texts(2), 5)
    assert_same(tmp_path / "one", tmp_path / "other")


def test_a_failing_write_leaves_no_shard(tmp_path, monkeypatch):
    def fail(path, write):
        raise OSError("no space left")

    monkeypatch.setattr(files, "write_atomically", fail)
    with pytest.raises(OSError, match="no space"):
        distillation.cache_logits(toys.llama(), tmp_path, texts(1), 5)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "change, message",
    [
        ({"k": 6}, "made with k 5, and now it is 6"),
        ({"temperature": 2.0}, "made with temperature 1.0, and now it is 2.0"),
        ({"teacher": spoiled(toys.llama())}, "made with teacher"),
        ({"batches": list(texts(2, seed=1))}, "000000.safetensors holds another batch"),
        ({"batches": [without(b, "labels") for b in texts(2)]}, "holds another batch"),
        ({"batches": list(texts(1))}, "has more than these 1 batches"),
    ],
)
def test_a_folder_made_otherwise_is_refused_and_stays(tmp_path, change, message):
    arguments = {"teacher": toys.llama(), "batches": list(texts(2)), "k": 5}
    distillation.cache_logits(folder=tmp_path, **arguments)
    before = contents(tmp_path)
    with pytest.raises(ValueError, match=message):
        distillation.cache_logits(folder=tmp_path, **{**arguments, **change})
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    "change, message",
    [
        ({"k": 0}, "k is 0"),
        ({"k": 51}, "k is 51; at most 50"),
        ({"temperature": 0.0}, "temperature is 0.0"),
        ({"batches": []}, "batches is empty"),
    ],
)
def test_bad_arguments_are_named(tmp_path, change, message):
    arguments = {"teacher": toys.llama(), "batches": list(texts(1)), "k": 5}
    with pytest.raises(ValueError, match=message):
        distillation.cache_logits(folder=tmp_path, **{**arguments, **change})


def test_batches_are_taken_one_by_one_and_none_is_kept(tmp_path):
    living, most = weakref.WeakSet(), 0

    def watched():
        nonlocal most
        for batch in texts(8):
            living.add(batch["input_ids"])
            del batch["labels"]
            yield batch
            del batch
            gc.collect()
            most = max(most, len(living))

    distillation.cache_logits(toys.llama(), tmp_path, watched(), 5)
    assert len(contents(tmp_path)) == 8 and most <= 2


def test_shards_are_shuffled_reproducibly_and_loaded_when_wanted(tmp_path, monkeypatch):
    batches = list(texts(6))
    distillation.cache_logits(toys.llama(), tmp_path, batches, 5)
    loaded, load = [], files.load_tensors
    monkeypatch.setattr(files, "load_tensors", lambda path: loaded.append(path) or load(path))
    stream = distillation.cached_batches(tmp_path)

    def order(epoch, seed):
        first = [batch["input_ids"] for batch in stream(epoch, seed)]
        return [next(i for i, b in enumerate(batches) if b["input_ids"].equal(x)) for x in first]

    state = torch.get_rng_state()
    assert sorted(order(0, 0)) == list(range(6)) and order(0, 0) == order(0, 0)
    assert len({tuple(order(epoch, seed)) for epoch in range(2) for seed in range(2)}) == 4
    assert torch.equal(state, torch.get_rng_state())
    loaded.clear()
    next(stream(0, 0))
    assert len(loaded) == 1


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no batch"):
        distillation.cached_batches(tmp_path)


def test_other_batches_and_other_students_are_refused(tmp_path):
    with pytest.raises(ValueError, match="soft_weight is 2"):
        distillation.taught_by_cache(2)
    with pytest.raises(ValueError, match="one of cached_batches is wanted"):
        distillation.taught_by_cache()(toys.llama(), text())
    distillation.cache_logits(toys.bert(labels=4), tmp_path, [classified()], 2)
    with pytest.raises(ValueError, match="student has 3 classes and the teacher 4"):
        distillation.taught_by_cache()(toys.bert(labels=3), only(tmp_path))


def test_text_without_labels_teaches_too(tmp_path):
    teacher, batch = toys.llama(), text()
    student = spoiled(teacher)
    for folder, given_ in (("with", batch), ("without", without(batch, "labels"))):
        distillation.cache_logits(teacher, tmp_path / folder, [given_], 5)
    loss = distillation.taught_by_cache()
    assert torch.equal(*(loss(student, only(tmp_path / f)) for f in ("with", "without")))
    with pytest.raises(ValueError, match="batch has no labels"):
        distillation.taught_by_cache(0.5)(student, only(tmp_path / "without"))


def trained(student, batches, loss):
    recipe = training.Recipe(steps=24, learning_rate=3e-3)
    return training.train(student, batches, recipe, loss=loss, progress=False).losses


@pytest.mark.parametrize("k", [10, 50])
def test_training_from_the_cache_goes_as_with_the_living_teacher(tmp_path, k):
    teacher, batches = toys.llama(), list(texts(3))
    for parameter in teacher.parameters():
        parameter.data *= 4  # a teacher that prefers some tokens
    distillation.cache_logits(teacher, tmp_path, batches, k, temperature=2.0)
    stream = distillation.cached_batches(tmp_path)
    live = distillation.taught_by(teacher, 2.0, soft_weight=1.0)

    def nearness(student):
        return sum(live(student, batch).item() for batch in batches)

    start = spoiled(distillation.student_from(teacher, [0, 2]))
    one, other = spoiled(start), spoiled(start)
    before = nearness(one)
    from_cache = trained(one, stream, distillation.taught_by_cache())
    from_life = trained(other, lambda *at: map(asked_alone, stream(*at)), live)
    assert nearness(one) < 0.7 * before and nearness(other) < 0.7 * before
    if k == 50:
        assert torch.allclose(torch.tensor(from_cache), torch.tensor(from_life), rtol=0.02)


def asked_alone(batch):
    return without(batch, *[name for name in batch if name.startswith("teacher_")])


def test_another_setting_of_the_same_teacher_is_another_teacher(tmp_path):
    model = toys.llama()
    batches = [{"input_ids": torch.arange(6)[None]}]
    plain = copy.deepcopy(model)
    quantization.quantize_(plain)
    quantization.quantize_(model, activations=8)
    distillation.cache_logits(plain, tmp_path, batches, k=4)
    with pytest.raises(ValueError, match="teacher"):
        distillation.cache_logits(model, tmp_path, batches, k=4)
