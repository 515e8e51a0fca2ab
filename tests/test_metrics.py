"""The measuring tape against formulas written out, scikit-learn, and known answers."""

import math
import threading
import time

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightcourse import lora, metrics, models, pruning, quantization
from tests import families, toys

answers = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=40)


class Parrot(torch.nn.Module):
    """A language model that gives each token the probability it had in a fixed table."""

    def __init__(self, probabilities):
        super().__init__()
        self.logits = torch.tensor(probabilities).log()

    def forward(self, input_ids):
        rows = self.logits.expand(*input_ids.shape, -1)
        return type("Output", (), {"logits": rows})


def test_perplexity_of_a_uniform_model_is_its_vocabulary():
    tokens = torch.arange(37) % 8
    assert metrics.perplexity(Parrot([1 / 8] * 8), tokens, window=5) == pytest.approx(8)


@given(st.integers(2, 40), st.integers(1, 50))
def test_every_token_but_the_first_counts_once_whatever_the_window(length, window):
    tokens = torch.randint(2, (length,), generator=torch.Generator().manual_seed(length))
    share = tokens[1:].float().mean().item()
    want = -(share * math.log(0.25) + (1 - share) * math.log(0.75))
    got = metrics.cross_entropy(Parrot([0.75, 0.25]), tokens, window)
    assert got == pytest.approx(want, rel=1e-5)


def test_a_longer_window_is_the_models_own_loss():
    model, tokens = toys.llama(), torch.arange(1, 20)
    with torch.no_grad():
        want = model(input_ids=tokens[None], labels=tokens[None]).loss.item()
    assert metrics.cross_entropy(model, tokens, window=64) == pytest.approx(want, rel=1e-5)


def test_bits_per_byte_counts_utf8_bytes_and_every_token():
    tokenizer = models.load_tiny_tokenizer()
    uniform = Parrot([1 / 2048] * 2048)
    text = "The State of the Union – über alles good."
    tokens = len(tokenizer(text)["input_ids"])
    want = 11 * tokens / len(text.encode("utf-8"))
    assert metrics.bits_per_byte(uniform, tokenizer, text) == pytest.approx(want, rel=1e-5)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda m: metrics.cross_entropy(m, torch.tensor([1])), "tokens has shape"),
        (lambda m: metrics.cross_entropy(m, torch.ones(2, 3).long()), "tokens has shape"),
        (lambda m: metrics.perplexity(m, torch.tensor([1, 2]), 0), "window is 0"),
        (lambda m: metrics.bits_per_byte(m, None, ""), "text is empty"),
        (lambda m: metrics.predict(m, []), "batches is empty"),
        (lambda m: metrics.predict(m, {"input_ids": None}), "batches holds a str; dicts"),
        (lambda m: metrics.predict(m, lambda epoch, seed: []), "batches is a function"),
        (lambda m: metrics.accuracy([], []), "filled rows"),
        (lambda m: metrics.macro_f1([1], [1, 2]), "filled rows"),
        (lambda m: metrics.flips([1], [1, 2]), "filled rows"),
        (lambda m: metrics.flips([1], [1], [1, 2]), "filled rows"),
        (lambda m: metrics.latency(print, repeats=1), "repeats is 1"),
        (lambda m: metrics.sparsity(torch.nn.ReLU()), "without a weight matrix"),
        (lambda m: metrics.kl_divergence(torch.ones(2), torch.ones(3)), "logits_q has shape"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(toys.llama())


@given(answers)
def test_accuracy_and_macro_f1_agree_with_scikit_learn(pairs):
    from sklearn import metrics as sk

    predictions, labels = zip(*pairs, strict=True)
    assert metrics.accuracy(predictions, labels) == pytest.approx(
        sk.accuracy_score(labels, predictions)
    )
    assert metrics.macro_f1(predictions, labels) == pytest.approx(
        sk.f1_score(labels, predictions, average="macro"), abs=1e-6
    )


@given(answers)
def test_flips_bound_the_change_of_accuracy(pairs):
    before, after = zip(*pairs, strict=True)
    labels = [1] * len(pairs)
    change = abs(metrics.accuracy(before, labels) - metrics.accuracy(after, labels))
    crossing = metrics.flips(before, after, labels)
    assert change - 1e-6 <= crossing <= metrics.flips(before, after) + 1e-6


def test_equal_accuracy_may_hide_flips():
    labels = [0, 0, 1, 1]
    before, after = [0, 1, 1, 1], [1, 0, 1, 1]
    assert metrics.accuracy(before, labels) == metrics.accuracy(after, labels) == 0.75
    assert metrics.flips(before, after, labels) == 0.5


def test_kl_is_zero_for_equals_positive_otherwise_and_not_symmetric():
    p, q = torch.tensor([[3.0, 0.0, 0.0]]), torch.tensor([[0.0, 0.0, 0.5]])
    assert metrics.kl_divergence(p, p + 5) == pytest.approx(0, abs=1e-6)
    assert metrics.kl_divergence(p, q) > 0
    assert metrics.kl_divergence(p, q) != pytest.approx(metrics.kl_divergence(q, p), rel=1e-2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_class_that_p_excludes_costs_nothing_and_one_that_q_excludes_infinity(dtype):
    p, q = torch.tensor([[2.0, -torch.inf, 1.0]]), torch.tensor([[0.0, 5.0, 1.0]])
    few = torch.tensor([2.0, 1.0]).softmax(0)
    want = (few * (few / q.softmax(-1)[0, [0, 2]]).log()).sum().item()
    assert metrics.kl_divergence(p.to(dtype), q.to(dtype)) == pytest.approx(want, rel=1e-5)
    assert metrics.kl_divergence(q.to(dtype), p.to(dtype)) == math.inf
    assert metrics.kl_divergence(p, p) == 0


@pytest.mark.parametrize("lost", [math.nan, math.inf, -math.inf])
def test_kl_without_a_distribution_is_nan(lost):
    p, q = torch.zeros(2, 3), torch.zeros(2, 3)
    p[1] = lost
    assert math.isnan(metrics.kl_divergence(p, q)) and math.isnan(metrics.kl_divergence(q, p))


def test_predict_leaves_the_mode_and_ignores_labels():
    model = toys.bert().train()
    ids = torch.arange(1, 17).view(2, 8)
    batch = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "labels": torch.tensor([0, 1]),
    }
    first, again = (metrics.predict(model, [batch, batch]) for _ in range(2))
    assert model.training and first.shape == (4, 3) and not first.requires_grad
    assert torch.equal(first, again)


def test_size_counts_tied_weights_once_and_updates_too():
    model = toys.llama()
    size = metrics.size_in_bytes(model)
    assert size == 4 * sum(parameter.numel() for parameter in model.parameters())
    added = lora.add_lora_(model, rank=2).total
    assert metrics.size_in_bytes(model) == size + 4 * added


def test_size_of_half_precision_is_half_and_zeros_save_nothing():
    model = toys.bert()
    size = metrics.size_in_bytes(model)
    pruning.prune_(model, pruning.global_mask(pruning.magnitude_scores(model), 0.9))
    assert metrics.size_in_bytes(model) == size
    assert metrics.size_in_bytes(model.half()) == size // 2


def test_size_is_near_the_file_that_is_written(tmp_path):
    from lightcourse import files

    model = toys.mlp()
    quantization.quantize_(model, bits=4)
    path = files.save_tensors(model.state_dict(), tmp_path / "m.safetensors")
    assert 0 <= path.stat().st_size - metrics.size_in_bytes(model) < 1000


def test_sparsity_counts_exact_zeros():
    model = toys.mlp()
    model[0].weight.data.zero_()
    assert metrics.sparsity(model) == pytest.approx(96 / (96 + 48))


@pytest.mark.parametrize("bits, symmetric", [(8, True), (4, True), (4, False), (8, False)])
def test_sparsity_of_integers_counts_those_at_the_zero_point(bits, symmetric):
    model = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.Linear(32, 16))
    pruning.prune_(model, pruning.layer_mask(pruning.magnitude_scores(model), 0.5))
    quantization.quantize_(model, bits, symmetric=symmetric)
    integers = [
        m.integers()
        == m.zero_points().repeat_interleave(m.in_features // m.zero_points().shape[1], 1)
        for m in model
    ]
    counted = sum(int(zeros.sum()) for zeros in integers) / sum(m.numel() for m in integers)
    assert metrics.sparsity(model) == pytest.approx(counted)
    assert 0.5 <= counted < 0.75


def test_sparsity_of_a_mixture_counts_the_experts_that_no_mask_reached():
    model, _ = families.make("Mixtral")
    report = pruning.prune_(model, pruning.layer_mask(pruning.magnitude_scores(model), 0.5))
    assert metrics.sparsity(model) < 0.15
    experts = [name for name in report.skipped if "experts" in name]
    assert len(experts) == 4 and 0.1 < report.share < 0.3
    assert f"{report.share:.0%} of the model's weights" in str(report)


def test_latency_warms_up_counts_and_tells_threads():
    calls = []
    result = metrics.latency(lambda: calls.append(torch.is_inference_mode_enabled()), 5, 2)
    assert calls == [True] * 7
    assert result.repeats == 5 and result.threads == torch.get_num_threads()
    assert result.median > 0 and result.spread >= 0
    assert "median of 5" in str(result)


def test_latencies_take_turns():
    calls = []
    functions = {name: lambda name=name: calls.append(name) for name in "ab"}
    assert list(metrics.latencies(functions, repeats=2, warmup=1)) == ["a", "b"]
    assert calls == ["a", "b"] * 3
    with pytest.raises(ValueError, match="functions is empty"):
        metrics.latencies({})


def test_latencies_tell_slow_from_fast():
    large, small = torch.randn(400, 400), torch.randn(4, 4)
    times = metrics.latencies({"slow": lambda: large @ large, "fast": lambda: small @ small})
    assert times["slow"].median > times["fast"].median


@given(answers, st.randoms())
def test_a_paired_gap_is_the_difference_of_the_accuracies(pairs, random):
    first, labels = zip(*pairs, strict=True)
    second = random.choices(range(5), k=len(labels))
    gap = metrics.paired_gap(first, second, labels)
    ours, theirs = metrics.accuracy(first, labels), metrics.accuracy(second, labels)
    assert gap.gap == pytest.approx(theirs - ours)
    turned = metrics.paired_gap(second, first, labels)
    assert turned.gap == -gap.gap and turned.p_value == gap.p_value


@given(st.integers(0, 60), st.integers(0, 60))
def test_the_sign_test_is_scipys(gained, lost):
    from scipy.stats import binomtest

    gap = metrics.PairedGap(gained, lost, 200)
    want = binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    assert gap.p_value == pytest.approx(want) and gap.decided == (want < 0.05)


def test_many_changed_answers_are_no_trouble():
    assert metrics.PairedGap(9000, 8000, 20000).p_value < 1e-10


def test_a_peak_is_seen_after_it_has_passed():
    with metrics.watch_memory() as memory:
        before = memory.peak
        held = b"1" * 200_000_000
        time.sleep(0.1)
        del held
        with metrics.watch_memory() as afterwards:
            pass
    assert memory.peak > before + 150_000_000
    assert afterwards.peak < memory.peak


def test_memory_is_watched_until_a_block_fails_and_no_longer():
    threads = threading.active_count()
    with pytest.raises(KeyError), metrics.watch_memory() as memory:
        raise KeyError
    assert threading.active_count() == threads and memory.peak > 0
    with pytest.raises(ValueError, match="every is nan"), metrics.watch_memory(float("nan")):
        pass
