"""Checks of the exercises of chapter 01."""

import math
from fractions import Fraction

import torch

from lightcourse import metrics
from lightcourse.checks.cases import dice, whole
from lightcourse.checks.grading import Exercise, grade


def check_bits_per_byte(bits_per_byte) -> bool:
    """Check ``bits_per_byte(loss, tokens, text)``: from nats a token to bits a byte."""
    return grade(bits_per_byte, BITS_PER_BYTE)


def _bits_per_byte_cases(seed):
    roll = dice(seed)
    drawn = "".join(roll.choice("light, schön 轻\n") for _ in range(20)) + "é"
    return [
        (3.2, 6, "Where is the café?"),
        (5.75, 4, "naïve Übung"),
        (0.5, 11, "语言模型, small and light"),
        (2.0, 3, "plain text"),
        (roll.uniform(1, 8), roll.randint(5, 30), drawn),
    ]


def _bits_per_byte(loss, tokens, text):
    """Take log2 of the perplexity, and the bytes of each character from where UTF-8 widens."""
    bits = tokens * math.log2(math.exp(loss))
    return bits / sum(1 + sum(ord(c) >= start for start in (0x80, 0x800, 0x10000)) for c in text)


BITS_PER_BYTE_MISTAKES = {
    "characters_not_bytes": lambda loss, tokens, text: loss * tokens / math.log(2) / len(text),
    "nats_not_bits": lambda loss, tokens, text: loss * tokens / len(text.encode()),
    "multiplies_by_ln_2": (
        lambda loss, tokens, text: loss * tokens * math.log(2) / len(text.encode())
    ),
    "mean_not_total": lambda loss, tokens, text: loss / math.log(2) / len(text.encode()),
    "bits_per_token": lambda loss, tokens, text: loss / math.log(2),
    "upside_down": lambda loss, tokens, text: 1 / _bits_per_byte(loss, tokens, text),
}


BITS_PER_BYTE = Exercise(
    "bits_per_byte", _bits_per_byte, _bits_per_byte_cases, BITS_PER_BYTE_MISTAKES
)


def check_macro_f1(macro_f1) -> bool:
    """Check ``macro_f1(predictions, labels)``: the mean over classes of F1."""
    return grade(macro_f1, MACRO_F1)


def _macro_f1_cases(seed):
    roll = dice(seed)
    labels = torch.tensor(roll.choices([0, 1, 2], [8, 3, 1], k=40))
    swapped = whole(0, 3, 40, seed=roll.randrange(2**31))
    noisy = torch.where(whole(0, 5, 40, seed=roll.randrange(2**31)) < 2, swapped, labels)
    return [
        (noisy, labels),
        (torch.zeros(10, dtype=torch.int64), torch.tensor([0] * 9 + [1])),
        (torch.tensor([4, 4, 2, 7, 2]), torch.tensor([4, 2, 2, 4, 2])),
        (torch.tensor([-100, 9, 3]), torch.tensor([9, 9, 3])),
        (torch.tensor([5]), torch.tensor([5])),
    ]


def _counts(predictions, labels):
    """Yield (hits, times predicted, times true) of each class that occurs."""
    for label in torch.cat([predictions, labels]).unique():
        hits = int(((predictions == label) & (labels == label)).sum())
        yield hits, int((predictions == label).sum()), int((labels == label).sum())


def _mean(values):
    values = list(values)
    return sum(values) / len(values)


def _weighted_f1(predictions, labels):
    counts = _counts(predictions, labels)
    return sum(true * 2 * hits / (named + true) for hits, named, true in counts) / len(labels)


def _f1_of_ratios(predictions, labels):
    scores = []
    for hits, named, true in _counts(predictions, labels):
        precision, recall = (torch.tensor(hits) / count for count in (named, true))
        scores.append(2 * precision * recall / (precision + recall))
    return _mean(scores)


def _f1_of_means(predictions, labels):
    counts = list(_counts(predictions, labels))
    precision = _mean(hits / max(named, 1) for hits, named, _ in counts)
    recall = _mean(hits / max(true, 1) for hits, _, true in counts)
    return 2 * precision * recall / (precision + recall)


def _f1_over_range(predictions, labels):
    """Take F1 of every number up to the largest; those that never occur count as 0."""
    scores = []
    for number in range(int(max(predictions.max(), labels.max())) + 1):
        hits = int(((predictions == number) & (labels == number)).sum())
        named = int((predictions == number).sum() + (labels == number).sum())
        scores.append(2 * hits / named if named else 0.0)
    return _mean(scores)


MACRO_F1_MISTAKES = {
    "accuracy": metrics.accuracy,
    "weighted_by_size": _weighted_f1,
    "mean_recall": lambda p, y: _mean(hits / true for hits, _, true in _counts(p, y) if true),
    "mean_precision": lambda p, y: _mean(hits / max(named, 1) for hits, named, _ in _counts(p, y)),
    "f1_of_means": _f1_of_means,
    "only_true_classes": (
        lambda p, y: _mean(2 * hits / (named + true) for hits, named, true in _counts(p, y) if true)
    ),
    "divides_by_zero": _f1_of_ratios,
    "range_of_classes": _f1_over_range,
    "only_classes_with_hits": (
        lambda p, y: _mean(2 * hits / (named + true) for hits, named, true in _counts(p, y) if hits)
    ),
}


MACRO_F1 = Exercise("macro_f1", metrics.macro_f1, _macro_f1_cases, MACRO_F1_MISTAKES)


def check_tokens_per_second_limit(tokens_per_second_limit) -> bool:
    """Check ``tokens_per_second_limit(parameters, bits, group_size, bandwidth)``."""
    return grade(tokens_per_second_limit, TOKENS_PER_SECOND_LIMIT)


def _limit_cases(seed):
    roll = dice(seed)
    return [
        (7_000_000_000, 4, 32, 50e9),
        (135_000_000, 8, 64, 17e9),
        (1_100_000_000, 3, 128, 10e9),
        (roll.randint(10**6, 10**9), roll.randint(2, 7), 2 ** roll.randint(3, 6), 4e9),
    ]


def _limit(parameters, bits, group_size, bandwidth):
    """Count in exact fractions how many groups are read in a second, and how many a token takes."""
    groups_per_second = Fraction(bandwidth) * 8 / (group_size * bits + 16)
    return float(groups_per_second / Fraction(parameters, group_size))


TOKENS_PER_SECOND_LIMIT_MISTAKES = {
    "no_scales": (
        lambda parameters, bits, group_size, bandwidth: bandwidth / (parameters * bits / 8)
    ),
    "bits_not_bytes": (
        lambda parameters, bits, group_size, bandwidth: (
            _limit(parameters, bits, group_size, bandwidth) / 8
        )
    ),
    "seconds_per_token": (
        lambda parameters, bits, group_size, bandwidth: (
            1 / _limit(parameters, bits, group_size, bandwidth)
        )
    ),
    "scale_per_weight": (
        lambda parameters, bits, group_size, bandwidth: bandwidth / (parameters * (bits + 16) / 8)
    ),
    "multiplies_by_group_size": (
        lambda parameters, bits, group_size, bandwidth: (
            bandwidth / (parameters * (bits + 16 * group_size) / 8)
        )
    ),
    "counts_operations": (
        lambda parameters, bits, group_size, bandwidth: bandwidth / (2 * parameters)
    ),
}


TOKENS_PER_SECOND_LIMIT = Exercise(
    "tokens_per_second_limit", _limit, _limit_cases, TOKENS_PER_SECOND_LIMIT_MISTAKES
)
