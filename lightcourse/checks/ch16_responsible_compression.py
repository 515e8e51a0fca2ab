"""Checks of the exercises of chapter 16."""

from statistics import NormalDist

import numpy as np
import torch

from lightcourse import metrics
from lightcourse.checks.by_hand import ByHand
from lightcourse.checks.cases import but, dice, until, whole
from lightcourse.checks.grading import Exercise, grade


def check_group_gap(group_gap) -> bool:
    """Check ``group_gap(before, after, inside, z)``: a share, a gap, and whether it is shown."""
    return grade(group_gap, GROUP_GAP)


def _group_gap_cases(seed):
    roll = dice(seed)

    def case(rows, few, lost, z):
        order = torch.tensor(roll.sample(range(rows), rows))
        before = whole(0, 5, rows, seed=roll.randrange(2**31)) > 0
        chance = whole(0, 100, rows, seed=roll.randrange(2**31))
        inside = order < few
        return before, before ^ (chance < torch.where(inside, lost, 12)), inside, z

    def side(case):
        return (case[3] > 0) - (case[4] < 0)

    def drawn(wanted, *sizes):
        def draw():
            before, after, inside, z = case(*sizes)
            return (after, before, inside, z) if wanted > 0 else (before, after, inside, z)

        return until(lambda made: side(_group_gap(*made)) == wanted, draw)

    return [
        drawn(-1, 60, 13, 70, 1.96),
        drawn(-1, 200, 50, 70, 1.96),
        drawn(0, 90, 20, 12, 2.58),
        drawn(1, 80, 30, 70, 1.96),
    ]


def _group_gap(before, after, inside, z):
    """Ask the library, whose intervals want a level."""
    level = 2 * NormalDist().cdf(z) - 1
    low, high = metrics.wilson_interval(int(after[inside].sum()), int(inside.sum()), level)
    ones = torch.ones(len(before), dtype=torch.int64)
    gap = metrics.accuracy_gap(before.long(), after.long(), ones, inside.tolist(), True, level)
    return low, high, gap.gap, gap.low, gap.high, gap.shown


def _ends(before, after, inside, z, extra=2, joined=lambda a, b: (a + b) ** 0.5, minus=1.0):
    """Return the ends with one thing about them changed."""
    middles, variances = [], []
    for side in (inside, ~inside):
        change = after[side].double() - before[side].double()
        count = len(change) + extra
        mean = change.sum() / count
        middles.append(mean)
        variances.append(
            ((change.abs().sum() + extra / 2) / count - minus * mean**2).item() / count
        )
    middle, reach = (middles[0] - middles[1]).item(), z * joined(*variances)
    return middle - reach, middle + reach


def _gapped(**changed):
    def answer(*case):
        low, high = _ends(*case, **changed)
        return (*_group_gap(*case)[:3], low, high, low > 0 or high < 0)

    return answer


def _wald(before, after, inside, z):
    share, count = after[inside].double().mean().item(), int(inside.sum())
    reach = z * (share * (1 - share) / count) ** 0.5
    return (share - reach, share + reach, *_group_gap(before, after, inside, z)[2:])


def _unpaired(before, after, inside, z):
    low, high, gap = _group_gap(before, after, inside, z)[:3]
    shares = [
        (x[s].double().mean().item(), int(s.sum()))
        for x in (before, after)
        for s in (inside, ~inside)
    ]
    reach = z * sum(p * (1 - p) / n for p, n in shares) ** 0.5
    return low, high, gap, gap - reach, gap + reach, abs(gap) > reach


GROUP_GAP_MISTAKES = {
    "two_deviations": _wald,
    "share_before": lambda before, after, inside, z: (
        *_group_gap(before, before, inside, z)[:2],
        *_group_gap(before, after, inside, z)[2:],
    ),
    "share_of_all": lambda before, after, inside, z: (
        *metrics.wilson_interval(int(after.sum()), len(after), 2 * NormalDist().cdf(z) - 1),
        *_group_gap(before, after, inside, z)[2:],
    ),
    "against_all_rows": but(
        _group_gap,
        2,
        lambda before, after, inside, z: (
            (after[inside].double().mean() - before[inside].double().mean())
            - (after.double().mean() - before.double().mean())
        ).item(),
    ),
    "change_of_the_group": but(
        _group_gap,
        2,
        lambda before, after, inside, z: (
            after[inside].double().mean() - before[inside].double().mean()
        ).item(),
    ),
    "difference_after": but(
        _group_gap,
        2,
        lambda before, after, inside, z: (
            after[inside].double().mean() - after[~inside].double().mean()
        ).item(),
    ),
    "not_paired": _unpaired,
    "no_half_rows": _gapped(extra=0),
    "deviations_added": _gapped(joined=lambda a, b: a**0.5 + b**0.5),
    "group_alone": _gapped(joined=lambda a, b: a**0.5),
    "root_forgotten": _gapped(joined=lambda a, b: a + b),
    "mean_kept": _gapped(minus=0.0),
    "always_shown": but(_group_gap, 5, lambda *case: not _group_gap(*case)[5]),
}


GROUP_GAP = Exercise("group_gap", _group_gap, _group_gap_cases, GROUP_GAP_MISTAKES)


def check_threshold_attack(threshold_attack) -> bool:
    """Check ``threshold_attack(members, others, alarms)``: AUC, and members caught."""
    return grade(threshold_attack, THRESHOLD_ATTACK)


def _threshold_attack_cases(seed):
    roll = dice(seed)

    def case(rows, others, most, alarms):
        seeds = [roll.randrange(2**31) for _ in range(2)]
        members = whole(0, most, rows, seed=seeds[0]).double() / 4
        return members, whole(2, most + 3, others, seed=seeds[1]).double() / 4, alarms

    few = torch.tensor([1.0, 1.0, 2.0, 0.0, 3.0]), torch.tensor([1.0, 2.0, 2.0, 4.0])
    return [
        case(13, 16, 12, 0.25),
        case(20, 8, 9, 0.125),
        case(9, 32, 30, 0.0625),
        (few[0].double(), few[1].double(), 0.25),
        (few[0].double() + 5, few[1].double(), 0.0),
    ]


def _threshold_attack(members, others, alarms):
    """Take the area below the curve by trapezoids, and the threshold from the sorted others."""
    places = torch.cat([members, others]).unique()
    rates = [[0.0, 0.0]] + [
        [(x <= t).double().mean().item() for x in (others, members)] for t in places
    ]
    area = np.trapezoid(*reversed(list(zip(*rates, strict=True))))
    free = int(alarms * len(others))
    last = others.sort().values[free] if free < len(others) else torch.inf
    return float(area), (members < last).double().mean().item()


def _area(compare):
    return but(
        _threshold_attack,
        0,
        lambda members, others, alarms: (
            compare(members[:, None], others[None]).double().mean().item()
        ),
    )


def _caught(function):
    return but(_threshold_attack, 1, function)


def _of_members(members, others, alarms):
    last = members.sort().values[int(alarms * len(members))]
    return (members < last).double().mean().item()


THRESHOLD_ATTACK_MISTAKES = {
    "ties_lost": _area(lambda a, b: a < b),
    "ties_won": _area(lambda a, b: a <= b),
    "upside_down": _area(lambda a, b: (a > b) + 0.5 * (a == b)),
    "alarms_among_members": _caught(_of_members),
    "alarm_below": _caught(
        lambda members, others, alarms: (
            (members <= others.sort().values[int(alarms * len(others))]).double().mean().item()
        )
    ),
    "counted": _caught(
        lambda members, others, alarms: _threshold_attack(members, others, alarms)[1] * len(members)
    ),
    "order_swapped": lambda *case: _threshold_attack(*case)[::-1],
}


THRESHOLD_ATTACK = Exercise(
    "threshold_attack", _threshold_attack, _threshold_attack_cases, THRESHOLD_ATTACK_MISTAKES
)


def check_fair_joules(fair_joules) -> bool:
    """Check ``fair_joules(rounds, idle)``: joules per answer of two models, and their ratio."""
    return grade(fair_joules, FAIR_JOULES)


def _fair_joules_cases(seed):
    roll = dice(seed)

    def run(name, place):
        seconds, answers = roll.uniform(2, 5), roll.randint(20, 60)
        return name, seconds * roll.uniform(20, 30) + 15 * place, seconds, answers

    def case(orders, idle):
        return [[run(name, place) for place, name in enumerate(order)] for order in orders], idle

    one, two = ("small", "large"), ("large", "small")
    return [case([one, one, two, one, one], 6.0), case([two, one, two, two], 9.5)]


def _fair_joules(rounds, idle):
    """Fit, for each model, a level and half a step for its place in the round."""
    found = []
    for name in ("small", "large"):
        rows = [
            (place, *run[1:])
            for pair in rounds[1:]
            for place, run in enumerate(pair)
            if run[0] == name
        ]
        place, joules, seconds, answers = np.array(rows, dtype=float).T
        weight = np.sqrt(answers)
        design = np.stack([np.ones_like(place), place - 0.5], 1) * weight[:, None]
        net = (joules - idle * seconds) / answers
        found.append(float(np.linalg.lstsq(design, net * weight, rcond=None)[0][0]))
    return found[0], found[1], found[0] / found[1]


def _measured(first=1, of=lambda j, s, n, idle: (j - idle * s, n), turned=True, upside=False):
    def answer(rounds, idle):
        found = []
        for name in ("small", "large"):
            sums = []
            for places in ([0], [1]) if turned else ([0, 1],):
                runs = [
                    of(*pair[p][1:], idle)
                    for pair in rounds[first:]
                    for p in places
                    if pair[p][0] == name
                ]
                sums.append(sum(a for a, _ in runs) / max(1e-9, sum(b for _, b in runs)))
            found.append(sum(sums) / len(sums))
        small, large = found
        return small, large, large / small if upside else small / large

    return answer


FAIR_JOULES_MISTAKES = {
    "warm_up_counted": _measured(first=0),
    "idle_counted": _measured(of=lambda j, s, n, idle: (j, n)),
    "idle_once": _measured(of=lambda j, s, n, idle: (j - idle, n)),
    "watts": _measured(of=lambda j, s, n, idle: (j - idle * s, s)),
    "joules_per_run": _measured(of=lambda j, s, n, idle: (j - idle * s, 1)),
    "mean_of_rates": _measured(of=lambda j, s, n, idle: ((j - idle * s) / n, 1)),
    "seconds_per_answer": _measured(of=lambda j, s, n, idle: (s, n)),
    "order_not_balanced": _measured(turned=False),
    "ratio_upside_down": _measured(upside=True),
}


FAIR_JOULES = Exercise("fair_joules", _fair_joules, _fair_joules_cases, FAIR_JOULES_MISTAKES)


# --- worked out by hand, from the numbers of a variant ---


def _saved_joules(fair_joules, first, second, rest):
    """Call the second model small, which needs a third of the time."""
    small, large = ("small", second * 1.0, 1.0, 1), ("large", first * 3.0, 3.0, 1)
    rounds = [[small, large], [small, large], [large, small]]
    return [fair_joules(rounds, idle)[2] for idle in (0.0, float(rest))]


SAVED_JOULES = ByHand(FAIR_JOULES, _saved_joules)
