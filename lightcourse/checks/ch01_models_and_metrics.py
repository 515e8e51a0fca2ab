"""Checks of the exercises of chapter 01."""

import math
from fractions import Fraction

import numpy as np
import torch

from lightcourse import metrics
from lightcourse.checks.by_hand import ByHand
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
    """Check ``tokens_per_second_limit(parameters, bits, group_size, bandwidth, peak)``."""
    return grade(tokens_per_second_limit, TOKENS_PER_SECOND_LIMIT)


def _limit_cases(seed):
    roll = dice(seed)
    return [
        (7_000_000_000, 4, 32, 50e9, 200e9),  # the memory is the limit
        (135_000_000, 8, 64, 17e9, 154e9),
        (1_100_000_000, 3, 128, 10e9, 90e9),
        (3_000_000_000, 3, 32, 51e9, 200e9),  # the arithmetic is
        (1_000_000_000, 2, 16, 100e9, 40e9),
        (roll.randint(10**6, 10**9), roll.randint(2, 7), 2 ** roll.randint(3, 6), 4e9, 90e9),
        (roll.randint(10**6, 10**9), roll.randint(2, 7), 2 ** roll.randint(3, 6), 90e9, 20e9),
    ]


def _limit(parameters, bits, group_size, bandwidth, peak):
    """Take, in exact fractions, the longer of the seconds for reading and for computing."""
    read = Fraction(parameters, group_size) * (group_size * bits + 16) / (8 * Fraction(bandwidth))
    return float(1 / max(read, Fraction(2 * parameters) / Fraction(peak)))


def _reads_as_if(bits_read):
    """Return a limit for which a weight takes ``bits_read(bits, group_size)`` bits."""
    return lambda parameters, bits, group_size, bandwidth, peak: min(
        bandwidth / (parameters * bits_read(bits, group_size) / 8), peak / (2 * parameters)
    )


def _read_only(parameters, bits, group_size, bandwidth, peak):
    return bandwidth / (parameters * (bits + 16 / group_size) / 8)


TOKENS_PER_SECOND_LIMIT_MISTAKES = {
    "ignores_computing": _read_only,
    "ignores_reading": (
        lambda parameters, bits, group_size, bandwidth, peak: peak / (2 * parameters)
    ),
    "faster_of_both": lambda *case: max(_read_only(*case), case[4] / (2 * case[0])),
    "one_after_the_other": lambda *case: 1 / (1 / _read_only(*case) + 2 * case[0] / case[4]),
    "one_operation": lambda *case: min(_read_only(*case), case[4] / case[0]),
    "no_scales": _reads_as_if(lambda bits, group_size: bits),
    "bits_not_bytes": _reads_as_if(lambda bits, group_size: 8 * (bits + 16 / group_size)),
    "seconds_per_token": lambda *case: 1 / _limit(*case),
    "scale_per_weight": _reads_as_if(lambda bits, group_size: bits + 16),
    "multiplies_by_group_size": _reads_as_if(lambda bits, group_size: bits + 16 * group_size),
}


TOKENS_PER_SECOND_LIMIT = Exercise(
    "tokens_per_second_limit", _limit, _limit_cases, TOKENS_PER_SECOND_LIMIT_MISTAKES
)


def check_compare_answers(compare_answers) -> bool:
    """Check ``compare_answers(first, second, labels)``: a sign test on what was gained and lost."""
    return grade(compare_answers, COMPARE_ANSWERS)


def _compare_answers_cases(seed):
    roll = dice(seed)
    # How many answers are gained, lost, changed from wrong to wrong, right twice, wrong twice.
    counts = [
        (12, 15, 3, 40, 20),
        (9, 2, 5, 30, 9),  # one side alone would be unlikely enough
        (0, 6, 4, 150, 60),  # less than the margin of one accuracy
        (6, 0, 0, 100, 40),
        (5, 0, 2, 20, 20),
        (0, 0, 6, 10, 4),
        (4, 4, 1, 9, 2),
        (22, 45, 9, 60, 50),
        (roll.randint(1, 9), roll.randint(10, 40), roll.randint(1, 9), 30, 20),
    ]
    return [_answers(roll, *each) for each in counts]


def _answers(roll, *counts):
    """Return two models' answers and the right ones, of five classes, with so many of each kind."""
    rows = []
    for kind, count in enumerate(counts):
        for _ in range(count):
            label, one, other = roll.sample(range(5), 3)
            pairs = [(one, label), (label, one), (one, other), (label, label), (one, one)]
            rows.append((*pairs[kind], label))
    roll.shuffle(rows)
    return tuple(torch.tensor(column) for column in zip(*rows, strict=True))


def _compared(first, second, labels):
    """Toss the coins one after the other, and add up all outcomes as uneven as this one."""
    steps = (second == labels).int() - (first == labels).int()
    gained, lost = int((steps > 0).sum()), int((steps < 0).sum())
    chances = np.ones(1)
    for _ in range(gained + lost):
        chances = np.convolve(chances, [0.5, 0.5])
    uneven = abs(2 * np.arange(len(chances)) - gained - lost) >= abs(gained - lost)
    return _told(gained, lost, float(chances[uneven].sum()))


def _told(gained, lost, p_value):
    better = "second" if gained > lost else "first"
    return gained, lost, p_value, better if p_value < 0.05 else "inconclusive"


def _changed_p(change):
    """Return what makes another p-value of (gained, lost, changed answers, right p-value)."""

    def wrong(first, second, labels):
        gained, lost, p_value, _ = _compared(first, second, labels)
        return _told(gained, lost, change(gained, lost, int((first != second).sum()), p_value))

    return wrong


def _tail(count, smaller):
    return sum(math.comb(count, k) for k in range(smaller + 1)) / 2**count


def _by_one_margin(first, second, labels):
    gained, lost, p_value, _ = _compared(first, second, labels)
    share = metrics.accuracy(first, labels)
    margin = 2 * (share * (1 - share) / len(labels)) ** 0.5
    decided = abs(gained - lost) / len(labels) > margin
    return gained, lost, p_value, _told(gained, lost, 0.0)[3] if decided else "inconclusive"


COMPARE_ANSWERS_MISTAKES = {
    "order_swapped": lambda first, second, labels: _compared(second, first, labels),
    "verdict_swapped": (
        lambda *case: (*_compared(*case)[:3], _compared(case[1], case[0], case[2])[3])
    ),
    "one_side_only": _changed_p(
        lambda gained, lost, changed, p: _tail(gained + lost, min(gained, lost))
    ),
    "more_than_1": _changed_p(
        lambda gained, lost, changed, p: 2 * _tail(gained + lost, min(gained, lost))
    ),
    "just_this_outcome": _changed_p(
        lambda gained, lost, changed, p: min(
            1.0, 2 * math.comb(gained + lost, lost) / 2 ** (gained + lost)
        )
    ),
    "all_changed_answers": _changed_p(
        lambda gained, lost, changed, p: min(1.0, 2 * _tail(changed, min(gained, lost)))
    ),
    "normal_curve": _changed_p(
        lambda gained, lost, changed, p: math.erfc(
            abs(gained - lost) / math.sqrt(2 * (gained + lost) or 1)
        )
    ),
    "never_inconclusive": (
        lambda *case: (*_compared(*case)[:3], _told(*_compared(*case)[:2], 0.0)[3])
    ),
    "margin_of_one_accuracy": _by_one_margin,
}


COMPARE_ANSWERS = Exercise(
    "compare_answers", _compared, _compare_answers_cases, COMPARE_ANSWERS_MISTAKES
)


# --- worked out by hand, from the numbers of a variant ---


def _all_zero(macro_f1, zeros, ones):
    labels = torch.tensor([0] * zeros + [1] * ones)
    return macro_f1(torch.zeros_like(labels), labels)


def _how_many_times(limit, bandwidth, peak, parameters, group):
    eight, four, three = (
        limit(parameters * 10**9, bits, group, bandwidth * 1e9, peak * 1e9) for bits in (8, 4, 3)
    )
    return four / eight, three / four


def _sign_test(compare_answers, gained, lost):
    first = torch.tensor([0] * gained + [1] * (1000 - gained))
    second = torch.tensor([1] * (1000 - lost) + [0] * lost)
    return compare_answers(first, second, torch.ones(1000, dtype=torch.int64))[2]


ALL_ZERO = ByHand(MACRO_F1, _all_zero)
HOW_MANY_TIMES = ByHand(TOKENS_PER_SECOND_LIMIT, _how_many_times)
SIGN_TEST = ByHand(COMPARE_ANSWERS, _sign_test)
