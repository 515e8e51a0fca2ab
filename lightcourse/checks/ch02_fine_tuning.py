"""Checks of the exercises of chapter 02."""

import itertools
import math
from functools import partial

import numpy as np
import torch

from lightcourse import lora
from lightcourse.checks.by_hand import ByHand
from lightcourse.checks.cases import but, dice, normal, whole
from lightcourse.checks.comparing import to_array
from lightcourse.checks.grading import Exercise, grade


def check_split_rows(split_rows) -> bool:
    """Check ``split_rows(texts, labels, order)``: (training rows, test rows), fairly dealt."""
    return grade(split_rows, SPLIT_ROWS)


def _split_rows_cases(seed):
    roll, cases = dice(seed), []
    for counts in ({0: 12, 1: 6}, {7: 6, -2: 11, 4: 5}, {3: 1, 5: 26}):
        labels = [label for label, count in counts.items() for _ in range(count)]
        texts = [f"text {row}" for row in range(len(labels))]
        texts[4], texts[9], texts[-1] = texts[2], f" {texts[1].upper()} ", texts[-3]
        texts[8] = texts[7].replace(" ", "")  # a blank inside makes another text
        texts[10] = texts[0]  # of another label, where the first label is short
        order = list(range(len(texts)))
        roll.shuffle(order)
        order.remove(2)  # the first of two equal texts comes after the second
        cases.append((texts, labels, [*order, 2]))
    return cases


def _key(text):
    return text.strip().lower()


def _dealt(texts, labels, order, key=_key, stratum=lambda label: label):
    """Deal rows: of equal keys the first, of each stratum every fifth for testing."""
    keys = [key(text) for text in texts]
    train, test, seen = [], [], {}
    for row in order:
        if keys.index(keys[row]) == row:
            label = stratum(labels[row])
            seen[label] = seen.get(label, 0) + 1
            (test if seen[label] % 5 == 1 else train).append(row)
    return train, test


def _split_rows(texts, labels, order):
    """Take every fifth of each label's visits; from the back, the first of equal texts stays."""
    first = {_key(texts[row]): row for row in reversed(range(len(texts)))}
    visits = [row for row in order if row in first.values()]
    test = [r for label in set(labels) for r in [v for v in visits if labels[v] == label][::5]]
    return [row for row in visits if row not in test], [row for row in visits if row in test]


def _copied_split(texts, labels, order):
    cut = len(texts) * 4 // 5
    rows = list(range(len(texts)))
    return rows[:cut], rows[cut:]


def _first_visited(texts, labels, order):
    seen, kept = set(), []
    for row in order:
        if _key(texts[row]) not in seen:
            seen.add(_key(texts[row]))
            kept.append(row)
    return _dealt(texts, labels, kept, key=_no_key_of(texts))


def _no_key_of(texts):
    """Return a key by which no two texts are equal."""
    numbers = iter(range(len(texts)))
    return lambda text: next(numbers)


SPLIT_ROWS_MISTAKES = {
    "copied_version": _copied_split,
    "keeps_duplicates": (
        lambda texts, labels, order: _dealt(texts, labels, order, key=_no_key_of(texts))
    ),
    "equal_only_if_identical": lambda texts, labels, order: _dealt(texts, labels, order, key=str),
    "ignores_order": lambda texts, labels, order: _dealt(texts, labels, range(len(texts))),
    "counts_over_labels": (
        lambda texts, labels, order: _dealt(texts, labels, order, stratum=lambda label: 0)
    ),
    "first_in_order_kept": _first_visited,
    "order_swapped": lambda texts, labels, order: _split_rows(texts, labels, order)[::-1],
}


SPLIT_ROWS = Exercise("split_rows", _split_rows, _split_rows_cases, SPLIT_ROWS_MISTAKES)


def check_stopping_point(stopping_point) -> bool:
    """Check ``stopping_point(losses, patience)``: (evaluations made, index of the one kept)."""
    return grade(stopping_point, STOPPING_POINT)


def _stopping_point_cases(seed):
    roll = dice(seed)
    cases = [
        ([0.9, 0.7, 0.8, 0.75, 0.72, 0.6, 0.5], 2),
        ([0.9, 0.7, 0.8, 0.6, 0.65, 0.62, 0.61, 0.3], 3),
        ([0.5, 0.4, 0.4, 0.4, 0.1], 2),
        ([0.8, 0.6, 0.5, 0.3], 1),
        ([0.6, 0.7, 0.5], 1),
        ([3.5, 3.1, 2.9, 3.0, 3.2, 2.0], 2),  # a best that starts at 1.0 is never beaten
        ([2.0, 2.0 - 1e-9, 2.0 - 2e-9, 2.0 - 3e-9, 1.0], 2),  # the least progress is progress
        ([0.5, 0.9, 0.8, 0.7, 0.6, 0.1], 3),  # lower than `patience` places earlier, no new best
        ([-0.2, -0.1, -0.3, -0.25, -0.2], 2),
        ([0.4], 1),
        ([0.5, 0.6], 4),
    ]
    drawn = [[roll.randint(1, 9) / 4 for _ in range(14)] for _ in range(6)]
    return cases + [(losses, patience % 3 + 1) for patience, losses in enumerate(drawn)]


def _stopping_point(losses, patience):
    """List all (evaluations made, first lowest of them), and take the first that is old enough."""
    ends = [(made, losses.index(min(losses[:made]))) for made in range(1, len(losses) + 1)]
    return next((end for end in ends if end[0] - end[1] > patience), ends[-1])


def _against_the_previous(losses, patience):
    worse = 0
    for index in range(1, len(losses)):
        worse = worse + 1 if losses[index] >= losses[index - 1] else 0
        if worse == patience:
            return index + 1, losses.index(min(losses[: index + 1]))
    return len(losses), losses.index(min(losses))


def _counts_all_failures(losses, patience):
    best, failures = 0, 0
    for index, loss in enumerate(losses[1:], 1):
        best, failures = (index, failures) if loss < losses[best] else (best, failures + 1)
        if failures == patience:
            return index + 1, best
    return len(losses), best


def _a_tie_is_progress(losses, patience):
    best = 0
    for index, loss in enumerate(losses):
        best = index if loss <= losses[best] else best
        if index - best == patience:
            return index + 1, best
    return len(losses), best


def _against_places_earlier(losses, patience):
    for index, loss in enumerate(losses):
        if index >= patience and loss >= losses[index - patience]:
            return index + 1, losses.index(min(losses[: index + 1]))
    return len(losses), losses.index(min(losses))


def _best_begins_at_one(losses, patience):
    made, best = _stopping_point([1.0, *losses], patience)
    return max(made - 1, 1), max(best - 1, 0)


def _wants_some_progress(losses, patience):
    return _stopping_point([round(loss, 6) for loss in losses], patience)


STOPPING_POINT_MISTAKES = {
    "keeps_the_last": (
        lambda losses, patience: (
            _stopping_point(losses, patience)[0],
            _stopping_point(losses, patience)[0] - 1,
        )
    ),
    "compares_with_previous": _against_the_previous,
    "sees_the_future": (
        lambda losses, patience: (_stopping_point(losses, patience)[0], losses.index(min(losses)))
    ),
    "never_stops": lambda losses, patience: (len(losses), losses.index(min(losses))),
    "compares_places_earlier": _against_places_earlier,
    "fixed_first_best": _best_begins_at_one,
    "wants_some_progress": _wants_some_progress,
    "waits_too_long": lambda losses, patience: _stopping_point(losses, patience + 1),
    "counts_all_failures": _counts_all_failures,
    "ties_are_progress": _a_tie_is_progress,
    "keeps_the_highest": (
        lambda losses, patience: _stopping_point([-loss for loss in losses], patience)
    ),
    "order_swapped": lambda losses, patience: _stopping_point(losses, patience)[::-1],
}


STOPPING_POINT = Exercise(
    "stopping_point", _stopping_point, _stopping_point_cases, STOPPING_POINT_MISTAKES
)


def check_choose_rate(choose_rate) -> bool:
    """Check ``choose_rate(rates, validation, test)``: (rate, loss to report, flattery)."""
    return grade(choose_rate, CHOOSE_RATE)


def _choose_rate_cases(seed):
    roll = dice(seed)
    fixed = [
        # The lowest validation mean, single seed, sum and test mean are each another rate's.
        (
            [1e-4, 3e-4, 1e-3, 3e-3, 1e-2],
            [[2.0, 2.2, 2.1, 2.3], [2.9, 1.5], [2.3], [3.1, 3.0], [2.5, 2.4]],
            [[2.4, 2.8, 2.5, 2.7], [2.7, 2.9], [2.6], [2.1, 2.2], [2.5, 2.5]],
        ),
        ([1e-3, 1e-2], [[3.0, 3.2], [2.0, 2.6, 2.9]], [[2.0, 2.2], [2.4, 2.9, 3.3]]),
        ([0.1, 0.2, 0.3], [[0.5], [0.4], [0.6]], [[0.7, 0.9], [0.6, 0.7], [0.8]]),
    ]
    rates = [roll.uniform(1e-4, 1e-2) for _ in range(4)]
    drawn = [[[roll.uniform(1, 3) for _ in range(k)] for k in (3, 1, 4, 2)] for _ in range(2)]
    return [*fixed, (rates, *drawn)]


def _choose_rate(rates, validation, test):
    """Sort the runs by what validation says, and look up what the test says of the first."""
    table = [
        (np.mean(v), rate, np.mean(t)) for v, rate, t in zip(validation, rates, test, strict=True)
    ]
    _, rate, reported = sorted(table)[0]
    return rate, float(reported), float(max(reported - row[2] for row in table))


def _chosen_by(score):
    """Return what chooses the rate whose runs have the lowest ``score(validation, test)``."""

    def wrong(rates, validation, test):
        scores = [score(*pair) for pair in zip(validation, test, strict=True)]
        place, means = int(np.argmin(scores)), [float(np.mean(losses)) for losses in test]
        return rates[place], means[place], means[place] - min(means)

    return wrong


def _place_of(rates, validation):
    return int(np.argmin([np.mean(losses) for losses in validation]))


_but_rate = partial(but, _choose_rate)


CHOOSE_RATE_MISTAKES = {
    "chosen_on_the_test": _chosen_by(lambda validation, test: np.mean(test)),
    "chosen_on_both": _chosen_by(lambda validation, test: np.mean(validation) + np.mean(test)),
    "best_single_seed": _chosen_by(lambda validation, test: min(validation)),
    "sums_not_means": _chosen_by(lambda validation, test: sum(validation)),
    "highest_loss": _chosen_by(lambda validation, test: -np.mean(validation)),
    "reports_validation": _but_rate(1, lambda r, v, t: float(np.mean(v[_place_of(r, v)]))),
    "reports_the_best_seed": _but_rate(1, lambda r, v, t: min(t[_place_of(r, v)])),
    "reports_the_lowest": _but_rate(1, lambda r, v, t: float(min(map(np.mean, t)))),
    "flattery_turned": _but_rate(2, lambda r, v, t: -_choose_rate(r, v, t)[2]),
    "flattery_by_a_seed": _but_rate(2, lambda r, v, t: _choose_rate(r, v, t)[1] - min(map(min, t))),
    "place_not_rate": _but_rate(0, lambda r, v, t: _place_of(r, v)),
}


CHOOSE_RATE = Exercise("choose_rate", _choose_rate, _choose_rate_cases, CHOOSE_RATE_MISTAKES)


def check_lora_layer(lora_layer) -> bool:
    """Check ``lora_layer(x, weight, bias, a, b, alpha)``: (output beside, merged matrix)."""
    return grade(lora_layer, LORA_LAYER)


def _lora_layer_cases(seed):
    roll = dice(seed)

    def case(rows, outputs, inputs, rank, alpha):
        shapes = (*rows, inputs), (outputs, inputs), (outputs,), (rank, inputs), (outputs, rank)
        return *(normal(*shape, seed=roll.randrange(2**31)) for shape in shapes), alpha

    return [
        case((3,), 4, 5, 2, 6.0),
        case((2, 3), 3, 6, 1, 0.5),
        case((), 5, 4, 3, 4.0),
        case((4,), 4, 4, 4, roll.uniform(5, 9)),
    ]


@torch.no_grad()
def _lora_layer(x, weight, bias, a, b, alpha):
    """Ask the library's layer, and ask it for each unit vector what it does without a bias."""
    base = torch.nn.Linear(weight.shape[1], weight.shape[0])
    base.weight.copy_(weight)
    base.bias.copy_(bias)
    layer = lora.LoRALinear(base, rank=len(a), alpha=alpha)
    layer.lora_a.copy_(a)
    layer.lora_b.copy_(b)
    return layer(x), (layer(torch.eye(weight.shape[1])) - bias).T


def _lora_as(scaling=lambda alpha, rank: alpha / rank, bias_counts=1, frozen=1, update=1):
    """Return a layer whose parts count so many times."""

    def wrong(x, weight, bias, a, b, alpha):
        delta = scaling(alpha, len(a)) * b @ a
        return x @ (frozen * weight + update * delta).T + bias_counts * bias, weight + delta

    return wrong


_but_layer = partial(but, _lora_layer)


LORA_LAYER_MISTAKES = {
    "no_scaling": _lora_as(lambda alpha, rank: 1),
    "scaling_alpha": _lora_as(lambda alpha, rank: alpha),
    "scaling_upside_down": _lora_as(lambda alpha, rank: rank / alpha),
    "without_bias": _lora_as(bias_counts=0),
    "bias_twice": _lora_as(bias_counts=2),
    "update_alone": _lora_as(frozen=0),
    "without_update": _lora_as(update=0),
    "merged_is_the_update": _but_layer(1, lambda x, w, bias, a, b, alpha: alpha / len(a) * b @ a),
    "merged_is_frozen": _but_layer(1, lambda x, w, bias, a, b, alpha: w),
    "merged_transposed": _but_layer(1, lambda *case: _lora_layer(*case)[1].T),
    "order_swapped": lambda *case: _lora_layer(*case)[::-1],
}


LORA_LAYER = Exercise("lora_layer", _lora_layer, _lora_layer_cases, LORA_LAYER_MISTAKES)


def check_lora_gradients(lora_gradients) -> bool:
    """Check ``lora_gradients(gradient, a, b, alpha)``: the gradients of A and of B."""
    return grade(lora_gradients, LORA_GRADIENTS)


def _lora_gradients_cases(seed):
    roll = dice(seed)

    def case(outputs, inputs, rank, alpha, scale):
        shapes = (outputs, inputs), (rank, inputs), (outputs, rank)
        gradient, a, b = (normal(*shape, seed=roll.randrange(2**31)) for shape in shapes)
        return gradient, a, b * scale, alpha

    return [case(5, 4, 2, 6.0, 1.0), case(3, 7, 1, 0.5, 1.0), case(4, 4, 4, 8.0, 0.0)]


def _lora_gradients(gradient, a, b, alpha):
    """Let autograd differentiate <gradient, alpha / rank · B A>."""
    a, b = a.clone().requires_grad_(), b.clone().requires_grad_()
    (gradient * (alpha / len(a)) * (b @ a)).sum().backward()
    return a.grad, b.grad


def _scaled(scaling):
    return lambda gradient, a, b, alpha: (
        scaling(alpha, len(a)) * b.T @ gradient,
        scaling(alpha, len(a)) * gradient @ a.T,
    )


LORA_GRADIENTS_MISTAKES = {
    "no_scaling": _scaled(lambda alpha, rank: 1),
    "scaling_alpha": _scaled(lambda alpha, rank: alpha),
    "scaling_upside_down": _scaled(lambda alpha, rank: rank / alpha),
    "order_swapped": lambda gradient, a, b, alpha: _lora_gradients(gradient, a, b, alpha)[::-1],
    "transposed": (
        lambda gradient, a, b, alpha: tuple(g.T for g in _lora_gradients(gradient, a, b, alpha))
    ),
    "zero_where_b_is_zero": (
        lambda gradient, a, b, alpha: tuple(
            g * b.any() for g in _lora_gradients(gradient, a, b, alpha)
        )
    ),
    "sign_turned": (
        lambda gradient, a, b, alpha: tuple(-g for g in _lora_gradients(gradient, a, b, alpha))
    ),
}


LORA_GRADIENTS = Exercise(
    "lora_gradients", _lora_gradients, _lora_gradients_cases, LORA_GRADIENTS_MISTAKES
)


def check_rehearse(rehearse) -> bool:
    """Check ``rehearse(new, old, share)``: new windows, and a share of old ones."""
    return grade(rehearse, REHEARSE)


def _rehearse_cases(seed):
    roll = dice(seed)
    sizes = [
        (6, 9, 0.25),
        (5, 4, 0.25),  # 1.7 old windows
        (7, 4, 0.25),  # 2.3 old windows
        (6, 4, 0.6),  # nine, of four: the second round ends in the middle of the third
        (3, 2, 0.7),
        (4, 5, 0.0),
        (roll.randint(5, 9), roll.randint(2, 4), roll.choice([0.3, 0.4, 0.7])),
    ]

    def windows(count):
        return whole(0, 100, count, 3, seed=roll.randrange(2**31))

    return [(windows(new), windows(old), share) for new, old, share in sizes]


def _rehearse(new, old, share):
    """Deal old windows round and round until so many are there as new ones leave room for."""
    total = round(len(new) / (1 - share))
    dealt = itertools.islice(itertools.cycle(old), total - len(new))
    return torch.stack([*new, *dealt])


def _same_windows(answer, wanted, new, old, share):
    """Tell whether two answers hold the same windows, in any order."""
    rows = [to_array(each) for each in (answer, wanted)]
    if any(each is None or each.ndim != 2 or each.dtype == bool for each in rows):
        return False
    return sorted(rows[0].tolist()) == sorted(rows[1].tolist())


def _with_old(count):
    """Return what takes ``count(new, old, share)`` old windows."""

    def wrong(new, old, share):
        return torch.cat([new, old[torch.arange(count(new, old, share)) % len(old)]])

    return wrong


def _right_count(new, old, share):
    return len(_rehearse(new, old, share)) - len(new)


REHEARSE_MISTAKES = {
    "share_of_the_new": _with_old(lambda new, old, share: round(share * len(new))),
    "share_of_the_old": _with_old(lambda new, old, share: round(share * len(old))),
    "share_of_new_in_all": _with_old(
        lambda new, old, share: round(len(new) * (1 - share) / share) if share else 0
    ),
    "all_of_the_old": _with_old(lambda new, old, share: len(old)),
    "each_old_once": _with_old(
        lambda new, old, share: min(len(old), _right_count(new, old, share))
    ),
    "rounds_down": _with_old(
        lambda new, old, share: math.floor(share * len(new) / (1 - share) + 1e-9)
    ),
    "rounds_up": _with_old(
        lambda new, old, share: math.ceil(share * len(new) / (1 - share) - 1e-9)
    ),
    "only_the_first_old": (
        lambda new, old, share: torch.cat([new, old[:1].repeat(_right_count(new, old, share), 1)])
    ),
    "from_the_last_old": (lambda new, old, share: _rehearse(new, old.flip(0), share)),
    "replaces_new": (
        lambda new, old, share: torch.cat(
            [
                new[round(share * len(new)) :],
                old[torch.arange(round(share * len(new))) % len(old)],
            ]
        )
    ),
    "old_alone": lambda new, old, share: _rehearse(new, old, share)[len(new) :],
}


REHEARSE = Exercise("rehearse", _rehearse, _rehearse_cases, REHEARSE_MISTAKES, _same_windows)


# What is worked out by hand, from the numbers of a variant
_SHARES = {"half": 1 / 2, "a third": 1 / 3, "a quarter": 1 / 4, "a fifth": 1 / 5, "a tenth": 1 / 10}


def _old_windows(rehearse, new, share):
    rows = torch.arange(new)[:, None]
    return len(rehearse(rows, rows + new, _SHARES[share])) - new


OLD_WINDOWS = ByHand(REHEARSE, _old_windows)
