"""Checks of the exercises of chapter 02."""

import math

import numpy as np

from lightcourse.checks.cases import dice, normal
from lightcourse.checks.comparing import to_array
from lightcourse.checks.grading import Exercise, grade
from lightcourse.training import Recipe


def check_rate(rate) -> bool:
    """Check ``rate(step, steps, peak, warmup)``: a linear climb, then a half cosine to 0."""
    return grade(rate, RATE)


def _rate_cases(seed):
    roll = dice(seed)
    steps, warmup = roll.randint(30, 90), roll.randint(3, 9)
    drawn = [(step, steps, 1.5, warmup) for step in (roll.randint(1, 20), steps - 1)]
    cases = [(step, 50, 0.5, 10) for step in (0, 4, 9, 10, 20, 30, 49)]
    return [*cases, (0, 40, 2.0, 0), (10, 40, 2.0, 0), (0, 20, 0.3, 1), (4, 5, 0.3, 5), *drawn]


def _rate(step, steps, peak, warmup):
    return Recipe(steps=steps, learning_rate=peak, warmup_steps=warmup).rate(step)


def _after_warmup(shape, begin=lambda step, warmup: (step + 1) / warmup):
    """Return a schedule that climbs as ``begin`` says and then falls like ``shape(done)``."""

    def rate(step, steps, peak, warmup):
        if step < warmup:
            return peak * begin(step, warmup)
        return peak * shape((step - warmup) / (steps - warmup))

    return rate


def _half_cosine(done):
    return (1 + math.cos(math.pi * done)) / 2


def _cosine_from_the_start(step, steps, peak, warmup):
    return peak * ((step + 1) / warmup if step < warmup else _half_cosine(step / steps))


RATE_MISTAKES = {
    "starts_at_zero": _after_warmup(_half_cosine, begin=lambda step, warmup: step / warmup),
    "cosine_from_the_start": _cosine_from_the_start,
    "straight_line": _after_warmup(lambda done: 1 - done),
    "stays_at_peak": _after_warmup(lambda done: 1.0),
    "no_warmup": lambda step, steps, peak, warmup: peak * _half_cosine(step / steps),
    "falls_below_zero": _after_warmup(lambda done: math.cos(math.pi * done)),
    "quarter_wave": _after_warmup(lambda done: math.cos(math.pi / 2 * done)),
}


RATE = Exercise("rate", _rate, _rate_cases, RATE_MISTAKES)


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


def check_examples_needed(examples_needed) -> bool:
    """Check ``examples_needed(counts, errors, target)``: a power law, fitted and extended."""
    return grade(examples_needed, EXAMPLES_NEEDED)


def _examples_needed_cases(seed):
    roll, counts = dice(seed), [120, 240, 700, 1500, 4000]
    noisy = [3 * count**-0.4 * roll.uniform(0.9, 1.1) for count in counts]
    return [
        ([100, 200, 400, 800, 1600], [0.31, 0.262, 0.2, 0.171, 0.13], 0.08),
        ([50, 500, 1000], [0.42, 0.3, 0.24], 0.2),
        ([64, 256, 1024, 4096], [0.2, 0.105, 0.048, 0.026], 0.01),
        (counts, noisy, 0.05),
    ]


def _as_many(answer, wanted, counts, errors, target):
    """Tell whether two counts are the same; of examples a whole number will do."""
    answer, wanted = to_array(answer), to_array(wanted)
    if answer is None or answer.dtype == bool or answer.shape != ():
        return False
    return bool(abs(answer - wanted) <= max(1e-4 * abs(wanted), float(answer % 1 == 0)))


def _line(x, y):
    """Return slope and height of the least-squares line."""
    slope, height = np.polyfit(x, y, 1)
    return slope, height


def _examples_needed(counts, errors, target):
    slope, height = _line(np.log(counts), np.log(errors))
    return float(np.exp((np.log(target) - height) / slope))


def _by_straight_line(counts, errors, target):
    slope, height = _line(counts, errors)
    return (target - height) / slope


def _by_half_logs(counts, errors, target):
    slope, height = _line(np.log(counts), errors)
    return float(np.exp((target - height) / slope))


def _by_square_root(counts, errors, target):
    factor = np.exp(np.mean(np.log(errors) + np.log(counts) / 2))
    return float((factor / target) ** 2)


EXAMPLES_NEEDED_MISTAKES = {
    "straight_line": _by_straight_line,
    "logs_of_counts_only": _by_half_logs,
    "exponent_one_half": _by_square_root,
    "two_points_only": (
        lambda counts, errors, target: _examples_needed(
            [counts[0], counts[-1]], [errors[0], errors[-1]], target
        )
    ),
    "log_of_the_count": (
        lambda counts, errors, target: math.log(_examples_needed(counts, errors, target))
    ),
    "error_at_target": (
        lambda counts, errors, target: float(
            np.exp(np.polyval(np.polyfit(np.log(counts), np.log(errors), 1), np.log(target)))
        )
    ),
    "more_not_in_all": (
        lambda counts, errors, target: _examples_needed(counts, errors, target) - counts[-1]
    ),
}


EXAMPLES_NEEDED = Exercise(
    "examples_needed", _examples_needed, _examples_needed_cases, EXAMPLES_NEEDED_MISTAKES, _as_many
)


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
