"""Checks of the exercises of chapter 18."""

import torch

from lightcourse.checks.cases import but, dice, until, whole
from lightcourse.checks.grading import Exercise, grade


def check_on_the_front(on_the_front) -> bool:
    """Check ``on_the_front(points)``: which submissions no other one beats."""
    return grade(on_the_front, ON_THE_FRONT)


def _front_cases(seed):
    roll = dice(seed)

    def drawn(count):
        made = [whole(1, high, count, seed=roll.randrange(2**31)) for high in (6, 5, 6)]
        points = torch.stack(made, dim=1).double()
        points[:, 2] /= 8
        points[-1] = points[_on_the_front(points)[0]]  # a twin of one on the front
        return (points,)

    def tells(case):
        wanted = _on_the_front(*case)
        return all(wrong(*case) != wanted for wrong in FRONT_MISTAKES.values())

    return [until(tells, lambda count=count: drawn(count)) for count in (9, 12, 16)]


def _fronted(points, worse=(1, 1, -1), strict=False, twins=True):
    """Compare each pair, one number after the other."""
    rows = [[sign * x for sign, x in zip(worse, row, strict=True)] for row in points.tolist()]

    def beats(one, other):
        if strict:
            return all(a < b for a, b in zip(one, other, strict=True))
        return one != other and all(a <= b for a, b in zip(one, other, strict=True))

    kept = [i for i, row in enumerate(rows) if not any(beats(other, row) for other in rows)]
    return kept if twins else [i for i in kept if rows[i] not in rows[:i]]


def _on_the_front(points):
    return _fronted(points)


def _sorted_by_bytes(points):
    kept = _fronted(points)
    return sorted(kept, key=lambda place: (points[place, 0].item(), -place))


FRONT_MISTAKES = {
    "time_forgotten": lambda points: _fronted(points, (1, 0, -1)),
    "bytes_forgotten": lambda points: _fronted(points, (0, 1, -1)),
    "accuracy_forgotten": lambda points: _fronted(points, (1, 1, 0)),
    "accuracy_upside_down": lambda points: _fronted(points, (1, 1, 1)),
    "better_in_all": lambda points: _fronted(points, strict=True),
    "one_of_twins": lambda points: _fronted(points, twins=False),
    "the_beaten": lambda points: [i for i in range(len(points)) if i not in _fronted(points)],
    "best_of_each": lambda points: sorted(
        {points[:, 0].argmin().item(), points[:, 1].argmin().item(), points[:, 2].argmax().item()}
    ),
    "sorted_by_bytes": _sorted_by_bytes,
}

ON_THE_FRONT = Exercise("on_the_front", _on_the_front, _front_cases, FRONT_MISTAKES)


def check_kept_promise(kept_promise) -> bool:
    """Check ``kept_promise(teacher, student, points, z)``: a gap, its ends, a verdict."""
    return grade(kept_promise, KEPT_PROMISE)


def _promise_cases(seed):
    roll = dice(seed)

    def case(rows, lost, points, z=1.96):
        teacher = whole(0, 100, rows, seed=roll.randrange(2**31)) < 90
        chance = whole(0, 100, rows, seed=roll.randrange(2**31))
        return teacher, teacher ^ (chance < lost), points, z

    def drawn(verdict, *sizes, above=None):
        def fits(made):
            gap, _, _, found = _kept_promise(*made)
            return found == verdict and above in (None, gap > -made[2])

        return until(fits, lambda: case(*sizes))

    same, none = whole(0, 2, 20, seed=seed) > 0, torch.zeros(12, dtype=torch.bool)
    return [
        drawn(1, 60, 6, 20.0),
        drawn(0, 40, 15, 12.5, above=True),
        drawn(0, 30, 20, 10.5, 2.58, above=False),
        drawn(-1, 50, 60, 10.5),
        (same, same.clone(), 0.0, 1.96),
        (~none, none, 100.0, 1.96),
    ]


def _promised(teacher, student, points, z, spread=None, scale=100.0):
    """Count the answers that were won and lost."""
    won, lost = int((student & ~teacher).sum()), int((teacher & ~student).sum())
    rows, gap = len(teacher), (won - lost) / len(teacher)
    variance = (won + lost) / rows - gap**2
    reach = z * ((variance / rows) ** 0.5 if spread is None else spread(variance, rows))
    low, high = scale * (gap - reach), scale * (gap + reach)
    verdict = 1 if low >= -points else -1 if high < -points else 0
    return scale * gap, low, high, verdict


def _kept_promise(teacher, student, points, z):
    return _promised(teacher, student, points, z)


def _unpaired(teacher, student, points, z):
    shares = [right.double().mean().item() for right in (teacher, student)]
    spread = sum(p * (1 - p) / len(teacher) for p in shares) ** 0.5
    return _promised(teacher, student, points, z, lambda variance, rows: spread)


def _by_gap(verdict):
    return but(_kept_promise, 3, verdict)


PROMISE_MISTAKES = {
    "not_paired": _unpaired,
    "of_one_answer": lambda *case: _promised(*case, lambda variance, rows: variance**0.5),
    "root_forgotten": lambda *case: _promised(*case, lambda variance, rows: variance / rows),
    "shares": lambda *case: _promised(*case, scale=1.0),
    "teacher_minus_student": lambda *case: (
        *(-x for x in (lambda g, low, high, _: (g, high, low))(*_kept_promise(*case))),
        _kept_promise(*case)[3],
    ),
    "ends_swapped": lambda *case: tuple(_kept_promise(*case)[place] for place in (0, 2, 1, 3)),
    "gap_decides": _by_gap(lambda *case: 1 if _kept_promise(*case)[0] >= -case[2] else -1),
    "no_third_answer": _by_gap(lambda *case: 1 if _kept_promise(*case)[1] >= -case[2] else -1),
    "touching_is_met": _by_gap(lambda *case: 1 if _kept_promise(*case)[2] >= -case[2] else -1),
    "verdict_upside_down": _by_gap(lambda *case: -_kept_promise(*case)[3]),
}

KEPT_PROMISE = Exercise("kept_promise", _kept_promise, _promise_cases, PROMISE_MISTAKES)
