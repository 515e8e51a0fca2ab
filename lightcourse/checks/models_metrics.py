"""Checks of the exercises of chapter 01."""

import math

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
    return loss * tokens / math.log(2) / len(text.encode())


BITS_PER_BYTE_MISTAKES = {
    "it divides by characters: é takes two bytes of UTF-8, a Chinese character three": (
        lambda loss, tokens, text: loss * tokens / math.log(2) / len(text)
    ),
    "that is nats for each byte: one nat is 1 / ln 2 = 1.44 bits": (
        lambda loss, tokens, text: loss * tokens / len(text.encode())
    ),
    "a nat is more than a bit: divide by ln 2, don't multiply": (
        lambda loss, tokens, text: loss * tokens * math.log(2) / len(text.encode())
    ),
    "the loss is a mean over tokens: multiply it by their number to get the whole text's": (
        lambda loss, tokens, text: loss / math.log(2) / len(text.encode())
    ),
    "those are bits for each token, which another tokenizer changes: divide by bytes": (
        lambda loss, tokens, text: loss / math.log(2)
    ),
    "it is upside down: that is bytes for each bit": (
        lambda loss, tokens, text: 1 / _bits_per_byte(loss, tokens, text)
    ),
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
    "that is accuracy (micro-F1 is the same number): each class must count the same": (
        metrics.accuracy
    ),
    "that weighs each class by its size, so the rare ones vanish again: take a plain mean": (
        _weighted_f1
    ),
    "that is the mean recall: a class that is named too often must pay for it": (
        lambda p, y: _mean(hits / true for hits, _, true in _counts(p, y) if true)
    ),
    "that is the mean precision: a class that is missed must cost something": (
        lambda p, y: _mean(hits / max(named, 1) for hits, named, _ in _counts(p, y))
    ),
    "it takes F1 of the mean precision and mean recall: first F1 of each class, then the mean": (
        _f1_of_means
    ),
    "a class that is only predicted, never true, counts too: its F1 is 0": (
        lambda p, y: _mean(2 * hits / (named + true) for hits, named, true in _counts(p, y) if true)
    ),
    "a class without a hit makes 0 / 0 = NaN here: 2·TP / (2·TP + FP + FN) never divides by 0": (
        _f1_of_ratios
    ),
    "class numbers may have gaps (2, 4, 7): loop over those that occur, not over a range": (
        _f1_over_range
    ),
    "it leaves out classes with no hit: their F1 is 0, and 0 belongs into the mean": (
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
    return bandwidth / (parameters * (bits + 16 / group_size) / 8)


TOKENS_PER_SECOND_LIMIT_MISTAKES = {
    "the scales are missing: each group adds 16 bits, which must be read as well": (
        lambda parameters, bits, group_size, bandwidth: bandwidth / (parameters * bits / 8)
    ),
    "bandwidth is in bytes: divide the bits by 8": (
        lambda parameters, bits, group_size, bandwidth: (
            _limit(parameters, bits, group_size, bandwidth) / 8
        )
    ),
    "that is seconds for a token: tokens for a second are wanted": (
        lambda parameters, bits, group_size, bandwidth: (
            1 / _limit(parameters, bits, group_size, bandwidth)
        )
    ),
    "a scale belongs to a whole group: each weight pays 16 / group_size bits of it, not 16": (
        lambda parameters, bits, group_size, bandwidth: bandwidth / (parameters * (bits + 16) / 8)
    ),
    "a group shares one scale: 16 bits *divided by* group_size for each weight, not times": (
        lambda parameters, bits, group_size, bandwidth: (
            bandwidth / (parameters * (bits + 16 * group_size) / 8)
        )
    ),
    "that counts operations, 2 for each weight: the limit here is the bytes that are read": (
        lambda parameters, bits, group_size, bandwidth: bandwidth / (2 * parameters)
    ),
}


TOKENS_PER_SECOND_LIMIT = Exercise(
    "tokens_per_second_limit", _limit, _limit_cases, TOKENS_PER_SECOND_LIMIT_MISTAKES
)
