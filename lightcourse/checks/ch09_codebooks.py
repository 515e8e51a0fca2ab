"""Checks of the exercises of chapter 09."""

import math
import statistics
from functools import partial

import numpy as np
import torch

from lightcourse import quantization
from lightcourse.checks.by_hand import ByHand
from lightcourse.checks.cases import but, dice, normal, until
from lightcourse.checks.comparing import entries, same
from lightcourse.checks.grading import Exercise, grade


def check_quantile_levels(quantile_levels) -> bool:
    """Check ``quantile_levels(below, above, last)``: levels that a normal uses about evenly."""
    return grade(quantile_levels, QUANTILE_LEVELS)


def _quantile_levels_cases(seed):
    roll = dice(seed)
    sides = [(7, 8), (roll.randint(3, 5), 2), (1, roll.randint(3, 6)), (9, 4)]
    lasts = [roll.uniform(*ends) for ends in ((0.9, 0.95), (0.97, 0.99), (0.7, 0.85), (0.6, 0.7))]
    return [(*side, last) for side, last in zip(sides, lasts, strict=True)]


def _quantile_levels(below, above, last):
    """Ask Python's own normal distribution for one level after the other."""
    most = statistics.NormalDist().inv_cdf(last)
    levels = [
        statistics.NormalDist().inv_cdf(0.5 + place * (last - 0.5) / count) * sign / most
        for count, sign in ((below, -1), (above, 1))
        for place in range(count + 1)
    ]
    return torch.tensor(sorted({level + 0.0 for level in levels}))


def _even(count, last):
    """Return evenly spaced probabilities above one half, the last one counted in."""
    return torch.linspace(0.5, last, count + 1, dtype=torch.float64)[1:]


def _levels(
    probabilities=_even,
    value=torch.special.ndtri,
    middle=(0.0,),
    sign=-1,
    ordered=lambda levels: levels.sort().values,
    divide=lambda levels: levels / levels[levels.isfinite()].abs().max(),
):
    """Return levels of two sides, with one thing about them changed."""

    def answer(below, above, last):
        lower, upper = (value(probabilities(count, last)) for count in (below, above))
        middles = torch.tensor(middle, dtype=torch.float64)
        return divide(ordered(torch.cat([sign * lower, middles, upper])))

    return answer


def _one_line(below, above, last):
    levels = torch.special.ndtri(torch.linspace(1 - last, last, below + above + 1))
    return levels / levels.max()


def _without_the_ends(count, last):
    return torch.linspace(0.5, last, count + 2, dtype=torch.float64)[1:-1]


def _last_is_left_out(count, last):
    return torch.linspace(0.5, last, count + 1, dtype=torch.float64)[:-1]


def _normal_density(p):
    return torch.exp(-p.square() / 2) / math.sqrt(2 * math.pi)


QUANTILE_LEVELS_MISTAKES = {
    "not_divided": _levels(divide=lambda levels: levels),
    "zero_left_out": _levels(middle=()),
    "zero_twice": _levels(middle=(0.0, 0.0)),
    "sides_swapped": lambda below, above, last: _quantile_levels(above, below, last),
    "above_for_both": lambda below, above, last: _quantile_levels(above, above, last),
    "below_for_both": lambda below, above, last: _quantile_levels(below, below, last),
    "above_alone": lambda below, above, last: _quantile_levels(below, above, last)[below:],
    "sign_forgotten": _levels(sign=1),
    "one_line": _one_line,
    "last_is_one": _levels(probabilities=lambda count, last: _even(count, 1.0)),
    "last_of_nf4": _levels(probabilities=lambda count, last: _even(count, 0.9677083)),
    "begins_at_the_middle": _levels(probabilities=_last_is_left_out),
    "end_left_out": _levels(probabilities=_without_the_ends),
    "middles_of_the_steps": _levels(
        probabilities=lambda count, last: _even(count, last) - (last - 0.5) / (2 * count)
    ),
    "evenly_spaced": _levels(value=lambda p: p - 0.5),
    "probabilities": lambda below, above, last: torch.cat(
        [(1 - _even(below, last)).flip(0), torch.tensor([0.5]), _even(above, last)]
    ),
    "distribution_not_quantile": _levels(value=torch.special.ndtr),
    "density_not_quantile": _levels(value=_normal_density),
    "erfinv_of_the_probability": _levels(value=torch.special.erfinv),
    "logistic": _levels(value=torch.logit),
    "descending": lambda *case: _quantile_levels(*case).flip(0),
    "not_sorted": _levels(ordered=lambda levels: levels),
}


QUANTILE_LEVELS = Exercise(
    "quantile_levels", _quantile_levels, _quantile_levels_cases, QUANTILE_LEVELS_MISTAKES
)


def check_kmeans_step(kmeans_step) -> bool:
    """Check ``kmeans_step(values, levels)``: each value to a level, each level to its values."""
    return grade(kmeans_step, KMEANS_STEP)


def _kmeans_step_cases(seed):
    roll = dice(seed)

    def draw(count, used, idle):
        values = 2 * normal(count, seed=roll.randrange(2**31)) + 0.4
        levels = sorted(roll.uniform(-5, 6) for _ in range(used + idle))
        return values, torch.tensor(levels)

    def cases():
        sizes = [(14, 3, 1), (17, 4, 2), (11, 4, 0), (16, 2, 1)]
        return [until(partial(_clear, idle=size[2]), partial(draw, *size)) for size in sizes]

    return until(_told_apart, cases)


def _clear(case, idle):
    """Tell whether no last bit decides, and so many levels are nobody's."""
    values, levels = case
    nearest = (values[:, None] - levels).abs().sort(1).values
    far = nearest[:, 0].sort(descending=True).values[:5]
    apart = (nearest[:, 1] - nearest[:, 0]).min() > 0.01 and levels.diff().min() > 0.2
    return apart and (far.diff() < -0.01).all() and len(_nobodys(case)) == idle


def _nobodys(case):
    values, levels = case
    used = (values[:, None] - levels).abs().argmin(1)
    return sorted(set(range(len(levels))) - set(used.tolist()))


def _told_apart(cases):
    """Tell whether the ways to choose a value for a level that is nobody's give others."""
    picks = []
    for values, levels in (case for case in cases if _nobodys(case)):
        distances = (values[:, None] - levels).abs()
        (own, codes), idle = distances.min(1), distances[:, _nobodys((values, levels))[0]]
        moved = torch.stack([values[codes == code].mean() for code in range(len(levels))])
        after = (values - moved[codes]).abs()
        measures = [own, -own, values, values - levels[codes], after, idle, -idle]
        picks.append([int(measure.argmax()) for measure in measures])
    return len(set(zip(*picks, strict=True))) == len(picks[0])


def _kmeans_step(values, levels):
    """Let the library choose the codes, and NumPy count and add up."""
    codes = quantization.nearest_codes(values, levels).numpy().astype(int)
    x = values.double().numpy()
    counts = np.bincount(codes, minlength=len(levels))
    sums = np.bincount(codes, weights=x, minlength=len(levels))
    off = np.abs(x - levels.double().numpy()[codes])
    moved = sums / np.maximum(counts, 1)
    for code in np.flatnonzero(counts == 0):
        moved[code], off[off.argmax()] = x[off.argmax()], -1
    return torch.from_numpy(codes), torch.from_numpy(moved)


def _codes(choose):
    return but(_kmeans_step, 0, choose)


def _moved(
    of_some=lambda mine, level, values: mine.mean(),
    of_none=None,
    after=lambda moved, values, levels: moved,
):
    """Return a step in which the levels move in another way.

    ``of_some(mine, level, values)`` for a level with values, ``of_none(values, level, own)`` for
    one without, where ``own`` is each value's level.
    """

    def levels_of(values, levels):
        codes, right = _kmeans_step(values, levels)
        moved = right.float()
        for code, level in enumerate(levels):
            mine = values[codes == code]
            if len(mine):
                moved[code] = of_some(mine, level, values)
            elif of_none:
                moved[code] = of_none(values, level, levels[codes])
        return after(moved, values, levels)

    return but(_kmeans_step, 1, levels_of)


def _next_below(values, levels):
    return (torch.searchsorted(levels, values) - 1).clamp(min=0)


def _codes_of_the_moved(values, levels):
    return (values[:, None] - _kmeans_step(values, levels)[1]).abs().argmin(1)


def _idle_dropped(moved, values, levels):
    codes = _kmeans_step(values, levels)[0]
    return moved[codes.unique()]


def _taken_out(values, levels):
    """Move idle levels first, and leave the value that one takes out of its old level's mean."""
    codes, moved = _kmeans_step(values, levels)
    idle = [code for code in range(len(levels)) if code not in codes]
    far = (values - levels[codes]).abs().argsort(descending=True)[: len(idle)]
    codes = codes.index_copy(0, far, torch.tensor(idle, dtype=codes.dtype))
    return torch.stack([values[codes == code].mean() for code in range(len(levels))])


def _far_from_the_moved(values, levels):
    codes, moved = _kmeans_step(values, levels)
    idle = [code for code in range(len(levels)) if code not in codes]
    far = (values - moved[codes]).abs().argsort(descending=True)
    return moved.index_copy(
        0, torch.tensor(idle, dtype=torch.int64), values[far[: len(idle)]].double()
    )


def _twice(values, levels):
    return _kmeans_step(values, _kmeans_step(values, levels)[1].sort().values)


def _most(values, by):
    return values[by.argmax()]


KMEANS_STEP_MISTAKES = {
    "farthest_level": _codes(lambda values, levels: (values[:, None] - levels).abs().argmax(1)),
    "without_abs": _codes(lambda values, levels: (values[:, None] - levels).argmin(1)),
    "next_below": _codes(_next_below),
    "a_value_for_each_level": _codes(
        lambda values, levels: (values[:, None] - levels).abs().argmin(0)
    ),
    "codes_of_the_moved": _codes(_codes_of_the_moved),
    "levels_for_codes": _codes(lambda values, levels: levels[_kmeans_step(values, levels)[0]]),
    "distances_for_codes": _codes(lambda values, levels: (values[:, None] - levels).abs().amin(1)),
    "nothing_moves": but(_kmeans_step, 1, lambda values, levels: levels),
    "mean_of_nothing": _moved(of_none=lambda values, level, own: torch.nan),
    "idle_to_zero": _moved(of_none=lambda values, level, own: 0.0),
    "idle_stays": _moved(of_none=lambda values, level, own: level),
    "idle_dropped": _moved(after=_idle_dropped),
    "idle_to_the_mean": _moved(of_none=lambda values, level, own: values.mean()),
    "idle_to_the_largest": _moved(of_none=lambda values, level, own: values.max()),
    "idle_to_its_nearest": _moved(
        of_none=lambda values, level, own: _most(values, -(values - level).abs())
    ),
    "idle_to_its_farthest": _moved(
        of_none=lambda values, level, own: _most(values, (values - level).abs())
    ),
    "idle_to_the_best_served": _moved(
        of_none=lambda values, level, own: _most(values, -(values - own).abs())
    ),
    "idle_all_to_one": _moved(
        of_none=lambda values, level, own: _most(values, (values - own).abs())
    ),
    "farthest_without_abs": _moved(of_none=lambda values, level, own: _most(values, values - own)),
    "far_from_the_moved": but(_kmeans_step, 1, _far_from_the_moved),
    "taken_out_of_the_mean": but(_kmeans_step, 1, _taken_out),
    "median": _moved(of_some=lambda mine, level, values: mine.median()),
    "middle_of_the_ends": _moved(of_some=lambda mine, level, values: (mine.min() + mine.max()) / 2),
    "sums": _moved(of_some=lambda mine, level, values: mine.sum()),
    "divided_by_all": _moved(of_some=lambda mine, level, values: mine.sum() / len(values)),
    "half_of_the_way": _moved(of_some=lambda mine, level, values: (mine.mean() + level) / 2),
    "counts": _moved(of_some=lambda mine, level, values: float(len(mine))),
    "sorted": _moved(after=lambda moved, values, levels: moved.sort().values),
    "two_steps": but(_kmeans_step, 1, lambda *case: _twice(*case)[1]),
    "order_swapped": lambda *case: _kmeans_step(*case)[::-1],
}


KMEANS_STEP = Exercise("kmeans_step", _kmeans_step, _kmeans_step_cases, KMEANS_STEP_MISTAKES)


def check_best_plan(best_plan) -> bool:
    """Check ``best_plan(losses, sizes, budget)``: the best choices that fit into some bytes."""
    return grade(best_plan, BEST_PLAN)


def _best_plan_cases(seed):
    roll = dice(seed)

    def draw(layers, choices):
        sizes = [sorted(roll.sample(range(20, 160), choices)) for _ in range(layers)]
        losses = torch.tensor([[roll.uniform(0, 1) for _ in range(choices)] for _ in sizes])
        losses = (1000 * losses.sort(1, descending=True).values).round() / 1000
        losses[0, -2:] = losses[0, -2:].flip(0)  # more bytes, and a larger loss
        least, most = (sum(row[end] for row in sizes) for end in (0, -1))
        return losses, sizes, least + int(roll.uniform(0.3, 0.7) * (most - least))

    sizes = [(6, 3), (5, 4), (7, 3)]
    cases = until(
        _all_differ, lambda: [until(_greedy_fails, partial(draw, *size)) for size in sizes]
    )
    more = roll.randint(9, 30)  # the budget is full, and with one byte more the other layer wins
    full = torch.tensor([[1.0, 0.4], [1.0, 0.2]]), [[20, 20 + more], [30, 31 + more]], 50 + more
    none = cases[0][0], cases[0][1], sum(row[0] for row in cases[0][1]) - 1
    return [*cases, full, none]


# Each of these finds a plan that fits.
GREEDY = ("greedy_down", "greedy_up", "greedy_by_loss")
NEARLY = (*GREEDY, "layer_after_layer", "share_for_each", "least_of_the_worst")
NEARLY += ("squares_of_losses", "product_of_losses")


def _sums(case, names):
    return [round(_total(case[0], BEST_PLAN_MISTAKES[known](*case)), 3) for known in names]


def _greedy_fails(case):
    best, found = _total(case[0], _best_plan(*case)), _sums(case, GREEDY)
    return min(found) > best + 0.004


def _all_differ(cases):
    """Tell whether the plans that are nearly right are all another, in some case."""
    best = [tuple(round(_total(case[0], _best_plan(*case)), 3) for case in cases)]
    wrong = zip(*(_sums(case, NEARLY) for case in cases), strict=True)
    return len({*best, *wrong}) == 1 + len(NEARLY)


def _best_plan(losses, sizes, budget):
    """Ask the library, by the places of the choices in place of bits."""
    if sum(map(min, sizes)) > budget:
        return []
    by_name = [
        {str(layer): dict(enumerate(row)) for layer, row in enumerate(rows)}
        for rows in (losses.double().tolist(), sizes)
    ]
    return list(quantization.choose_bits(*by_name, budget).values())


def _total(numbers, plan):
    return sum(float(row[place]) for row, place in zip(numbers, plan, strict=True))


def _as_good(answer, wanted, losses, sizes, budget):
    """Tell whether two plans are the same, or both fit and lose the same."""
    if same(answer, wanted):
        return True
    plans = [[_whole(place) for place in entries(plan) or []] for plan in (answer, wanted)]
    for plan in plans:
        if len(plan) != len(sizes):
            return False
        if not all(place in range(len(row)) for place, row in zip(plan, sizes, strict=True)):
            return False
        if _total(sizes, plan) > budget:
            return False
    return abs(_total(losses, plans[0]) - _total(losses, plans[1])) < 1e-5


def _whole(place):
    """Return a whole number as Python's own, or None where it is none."""
    place = place.item() if getattr(place, "shape", None) == () else place
    if isinstance(place, float) and place.is_integer():
        return int(place)
    return place if isinstance(place, int) else None


def _most_bytes_down(losses, sizes, budget):
    """Begin with the most bytes, and step down where a byte costs least."""
    if sum(map(min, sizes)) > budget:
        return []
    by_name = [
        {str(layer): dict(enumerate(row)) for layer, row in enumerate(rows)}
        for rows in (losses.double().tolist(), sizes)
    ]
    return list(quantization.choose_bits_greedily(*by_name, budget).values())


def _fewest_bytes_up(losses, sizes, budget, per_byte=True):
    """Begin with the fewest bytes, and buy the best step that fits."""
    plan, left = [0] * len(sizes), budget - sum(row[0] for row in sizes)
    if left < 0:
        return []
    while True:
        offers = []
        for layer, (row, lost) in enumerate(zip(sizes, losses.tolist(), strict=True)):
            for place in range(plan[layer] + 1, len(row)):
                cost, gain = row[place] - row[plan[layer]], lost[plan[layer]] - lost[place]
                if cost <= left and gain > 0:
                    offers.append((gain / (cost if per_byte else 1), layer, place, cost))
        if not offers:
            return plan
        _, layer, place, cost = max(offers)
        plan[layer], left = place, left - cost


def _among_all(better=np.sum, fits=np.less_equal):
    """Return the plan whose losses are ``better`` in another sense, or ``fits`` in another one."""

    def answer(losses, sizes, budget):
        plans = np.indices([len(row) for row in sizes]).reshape(len(sizes), -1)
        used, lost = (
            np.stack([np.array(row)[places] for row, places in zip(numbers, plans, strict=True)])
            for numbers in (sizes, losses.double().numpy())
        )
        fitting = plans[:, fits(used.sum(0), budget)]
        told = better(lost[:, fits(used.sum(0), budget)], axis=0)
        return fitting[:, told.argmin()].tolist() if fitting.size else []

    return answer


def _each_for_itself(choose):
    """Return a plan whose layers choose one by one, by ``choose(losses, sizes)`` of a layer."""
    return lambda losses, sizes, budget: [
        min(range(len(row)), key=partial(choose, lost, row))
        for lost, row in zip(losses.tolist(), sizes, strict=True)
    ]


def _share_for_each(losses, sizes, budget):
    """Give each layer as many bytes as any other."""
    found = []
    for lost, row in zip(losses.tolist(), sizes, strict=True):
        fitting = [place for place, size in enumerate(row) if size <= budget / len(sizes)]
        found.append(min(fitting or [0], key=lost.__getitem__))
    return found


def _same_for_all(losses, sizes, budget):
    fitting = [place for place in range(len(sizes[0])) if sum(r[place] for r in sizes) <= budget]
    return [fitting[-1]] * len(sizes) if fitting else []


def _in_order(losses, sizes, budget):
    """Let the first layer have its best, then the second, as long as the others fit."""
    left, found = budget - sum(row[0] for row in sizes), []
    if left < 0:
        return []
    for lost, row in zip(losses.tolist(), sizes, strict=True):
        fitting = [place for place, size in enumerate(row) if size - row[0] <= left]
        found.append(min(fitting, key=lost.__getitem__))
        left -= row[found[-1]] - row[0]
    return found


def _instead(change):
    """Return the right plan, changed where there is one."""
    return lambda *case: change(_best_plan(*case), *case)


BEST_PLAN_MISTAKES = {
    "greedy_down": _most_bytes_down,
    "greedy_up": _fewest_bytes_up,
    "greedy_by_loss": partial(_fewest_bytes_up, per_byte=False),
    "layer_after_layer": _in_order,
    "share_for_each": _share_for_each,
    "same_for_all": _same_for_all,
    "budget_ignored": _each_for_itself(lambda lost, row, place: lost[place]),
    "fewest_bytes": _each_for_itself(lambda lost, row, place: row[place]),
    "most_bytes": _each_for_itself(lambda lost, row, place: -row[place]),
    "loss_times_bytes": _each_for_itself(lambda lost, row, place: lost[place] * row[place]),
    "least_of_the_worst": _among_all(better=np.max),
    "squares_of_losses": _among_all(better=np.linalg.norm),
    "product_of_losses": _among_all(better=np.prod),
    "below_the_budget": _among_all(fits=np.less),
    "never_a_plan": lambda losses, sizes, budget: [],
    "bytes_for_places": _instead(
        lambda plan, losses, sizes, budget: [
            row[place] for row, place in zip(sizes, plan, strict=False)
        ]
    ),
    "losses_for_places": _instead(
        lambda plan, losses, sizes, budget: [
            row[place] for row, place in zip(losses.tolist(), plan, strict=False)
        ]
    ),
    "counted_from_one": _instead(lambda plan, *case: [place + 1 for place in plan]),
    "last_layer_first": _instead(lambda plan, *case: plan[::-1]),
    "loss_alone": _instead(lambda plan, losses, *case: _total(losses[: len(plan)], plan)),
    "fewest_where_none_fits": _instead(
        lambda plan, losses, sizes, budget: plan or [0] * len(sizes)
    ),
}


BEST_PLAN = Exercise("best_plan", _best_plan, _best_plan_cases, BEST_PLAN_MISTAKES, _as_good)


def check_audit(audit) -> bool:
    """Check ``audit(weight, stored)``: what a quantizer really left of a matrix."""
    return grade(audit, AUDIT)


def _audit_cases(seed):
    roll = dice(seed)

    def case(rows, columns, counts):
        """Draw a matrix whose rows hold so many different values."""
        weight = normal(rows, columns, seed=roll.randrange(2**31))
        weight[:, 0] = weight[:, -1]
        stored = torch.empty(rows, columns)
        for row, count in zip(stored, counts, strict=True):
            levels = torch.tensor(roll.sample(range(-40, 40), count - 2 * (count > 2)))
            pair = roll.randint(41, 60)  # of one size, with both signs
            levels = torch.cat([levels, torch.tensor([-pair, pair])]) if count > 2 else levels
            places = [*range(count), *(roll.randrange(count) for _ in range(columns - count))]
            row[:] = levels[roll.sample(places, columns)] / 32
        return weight, stored

    three = torch.tensor([0.5, -0.5, 0.0, -0.5, 0.5, 0.0]).repeat(2, 1)
    zeros = torch.zeros(3, 5).copysign(normal(3, 5, seed=seed))  # of both signs
    return [
        case(4, 11, [3, 5, 4, 2]),
        case(3, 14, [6, 3, 8]),
        case(5, 9, [2, 2, 1, 2, 2]),
        (normal(2, 6, seed=roll.randrange(2**31)), three),
        (normal(3, 5, seed=roll.randrange(2**31)), zeros),
    ]


def _audit(weight, stored):
    """Count in sets, try bits until the codes are enough, and measure by lengths."""
    counts = [len(set(row)) for row in stored.tolist()]
    bits = next(bits for bits in range(64) if 2**bits >= max(counts))
    off = np.subtract(weight.double().numpy(), stored.double().numpy())
    return max(counts), bits, (np.linalg.norm(off) / np.linalg.norm(weight.double())) ** 2


def _counted(count):
    """Return an audit whose count is another, and its bits with it."""

    def answer(weight, stored):
        levels = count(stored)
        return levels, math.ceil(math.log2(max(levels, 1))), _audit(weight, stored)[2]

    return answer


def _in_rows(stored):
    return [len(row.unique()) for row in stored]


def _bits(bits):
    return but(_audit, 1, lambda weight, stored: bits(_audit(weight, stored)[0]))


def _lost(error):
    return but(_audit, 2, lambda weight, stored: error(weight.double(), stored.double()).item())


AUDIT_MISTAKES = {
    "whole_matrix": _counted(lambda stored: len(stored.unique())),
    "first_row": _counted(lambda stored: _in_rows(stored)[0]),
    "fewest_of_the_rows": _counted(lambda stored: min(_in_rows(stored))),
    "all_rows_together": _counted(lambda stored: sum(_in_rows(stored))),
    "columns": _counted(lambda stored: max(_in_rows(stored.T))),
    "sizes": _counted(lambda stored: max(_in_rows(stored.abs()))),
    "zero_not_counted": _counted(lambda stored: max(len(row[row != 0].unique()) for row in stored)),
    "entries": _counted(lambda stored: stored.shape[1]),
    "of_the_weights": lambda weight, stored: _counted(lambda _: max(_in_rows(weight)))(
        weight, stored
    ),
    "bits_not_rounded": _bits(math.log2),
    "bits_rounded_down": _bits(lambda levels: int(math.log2(levels))),
    "bits_of_the_count": _bits(lambda levels: levels.bit_length()),
    "one_code_less": _bits(lambda levels: max(levels - 2, 0).bit_length()),
    "a_bit_for_each_level": _bits(lambda levels: levels),
    "one_bit_at_least": _bits(lambda levels: max((levels - 1).bit_length(), 1)),
    "bits_of_the_floats": _bits(lambda levels: 32),
    "error_not_a_share": _lost(lambda w, s: (s - w).square().sum()),
    "mean_error": _lost(lambda w, s: (s - w).square().mean()),
    "share_of_the_stored": _lost(
        lambda w, s: (s - w).square().sum() / s.square().sum().clamp(min=1e-9)
    ),
    "root_of_the_share": _lost(lambda w, s: (s - w).norm() / w.norm()),
    "sizes_not_squares": _lost(lambda w, s: (s - w).abs().sum() / w.abs().sum()),
    "entry_by_entry": _lost(lambda w, s: ((s - w) / w).square().mean()),
    "row_by_row": _lost(lambda w, s: ((s - w).square().sum(1) / w.square().sum(1)).mean()),
    "difference_of_squares": _lost(lambda w, s: 1 - s.square().sum() / w.square().sum()),
    "share_kept": _lost(lambda w, s: 1 - (s - w).square().sum() / w.square().sum()),
    "entries_that_changed": _lost(lambda w, s: (s != w).double().mean()),
}


AUDIT = Exercise("audit", _audit, _audit_cases, AUDIT_MISTAKES)


def check_binary_rows(binary_rows) -> bool:
    """Check ``binary_rows(weight)``: two levels a row, the sign times the best scale."""
    return grade(binary_rows, BINARY_ROWS)


def _binary_rows_cases(seed):
    roll = dice(seed)

    def case(size):
        # Square, so that columns taken for rows raise no error and can be named.
        weight = (normal(size, size, seed=roll.randrange(2**31)) + 0.3) * roll.uniform(0.2, 0.6)
        weight[:, 0], weight[:, 1] = -2.3, 1.7  # both sides, and parts above 1
        weight[1, 2] = weight[roll.randrange(size), 3] = 0
        weight[2] *= 3
        return weight

    flat = torch.tensor([[0.0, 0.0, 0.0], [-0.2, 0.1, 0.0], [0.4, 0.2, 0.9]])
    return [(case(5),), (case(6),), (case(4),), (flat,)]


def _binary_rows(weight):
    """Ask for the scale by which the signs, taken as inputs, predict each row best."""
    signs = torch.ones_like(weight).masked_fill(weight < 0, -1)
    return torch.stack(
        [
            sign * torch.linalg.lstsq(sign[:, None], row[:, None]).solution[0]
            for sign, row in zip(signs, weight, strict=True)
        ]
    )


def _signed(scale, zero=1.0):
    """Return the signs times a scale, where a weight of 0 has the sign ``zero``."""

    def answer(weight):
        signs = weight.sign().masked_fill(weight == 0, zero)
        return (signs * scale(weight)).nan_to_num(posinf=1e9)

    return answer


def _sizes(weight):
    return weight.abs().mean(1, keepdim=True)


def _rounded_in_steps(weight):
    scale = _sizes(weight)
    return (weight / scale).round().clamp(-1, 1).nan_to_num() * scale


def _fixed_point(weight):
    """Cut to whole numbers, as one bit of a fixed point does."""
    return weight.sign() * weight.abs().floor()


def _two_means(weight):
    rows = []
    for row in weight:
        low = row < 0
        sides = [row[side].mean().nan_to_num() for side in (low, ~low)]
        rows.append(torch.where(low, *sides))
    return torch.stack(rows)


def _without_zeros(weight):
    return weight.abs().sum(1, keepdim=True) / (weight != 0).sum(1, keepdim=True).clamp(min=1)


BINARY_ROWS_MISTAKES = {
    "no_scale": _signed(lambda weight: 1.0),
    "fixed_point": _fixed_point,
    "zero_stays": _signed(_sizes, zero=0.0),
    "zero_below": _signed(_sizes, zero=-1.0),
    "zeros_not_in_the_mean": _signed(_without_zeros),
    "one_scale": _signed(lambda weight: weight.abs().mean()),
    "scale_of_columns": _signed(lambda weight: weight.abs().mean(0)),
    "scales_on_columns": _signed(lambda weight: weight.abs().mean(1)),
    "largest_size": _signed(lambda weight: weight.abs().amax(1, keepdim=True)),
    "half_of_the_largest": _signed(lambda weight: weight.abs().amax(1, keepdim=True) / 2),
    "root_mean_square": _signed(lambda weight: weight.square().mean(1, keepdim=True).sqrt()),
    "standard_deviation": _signed(lambda weight: weight.std(1, keepdim=True)),
    "median_size": _signed(lambda weight: weight.abs().median(1, keepdim=True).values),
    "without_abs": _signed(lambda weight: weight.mean(1, keepdim=True)),
    "abs_of_the_mean": _signed(lambda weight: weight.mean(1, keepdim=True).abs()),
    "sums": _signed(lambda weight: weight.abs().sum(1, keepdim=True)),
    "mean_square": _signed(lambda weight: weight.square().mean(1, keepdim=True)),
    "three_levels": _rounded_in_steps,
    "two_means": _two_means,
    "zero_and_one": lambda weight: (weight >= 0) * _sizes(weight),
    "around_the_mean": lambda weight: torch.where(
        weight < weight.mean(1, keepdim=True), -_sizes(weight), _sizes(weight)
    ),
    "signs_turned": lambda weight: -_binary_rows(weight),
    "signs_lost": lambda weight: _binary_rows(weight).abs(),
    "signs_alone_as_a_mask": lambda weight: weight >= 0,
    "scales_alone": _sizes,
}


BINARY_ROWS = Exercise("binary_rows", _binary_rows, _binary_rows_cases, BINARY_ROWS_MISTAKES)


def check_codebook_bytes(codebook_bytes) -> bool:
    """Check ``codebook_bytes(counts, block)``: all bytes, in words of one length and Huffman's."""
    return grade(codebook_bytes, CODEBOOK_BYTES)


def _codebook_bytes_cases(seed):
    roll = dice(seed)

    def draw(levels, remainder, most=900):
        counts = [int(most ** roll.random()) + 1 for _ in range(levels)]
        counts[roll.randrange(levels)] = 0
        counts[roll.randrange(levels)] = most + roll.randrange(40)
        return counts, roll.choice([16, 24, 32])

    def fits(case, remainder):
        """Tell whether the parts of bytes and blocks matter, and the ways of joining differ."""
        counts, block = case
        used = sorted(count for count in counts if count)
        huffman = _huffman_bits(counts)
        return (
            huffman % 8 == remainder
            and sum(counts) % block
            and sum(counts) * (len(counts) - 1).bit_length() % 8
            and len({huffman // 8, _chain(used) // 8, _own_information(counts) // 8}) == 3
        )

    plans = [(16, 1), (15, 0), (9, 4), (16, 5)]
    cases = [until(partial(fits, remainder=plan[1]), partial(draw, *plan)) for plan in plans]
    single = 8 * roll.randint(9, 15)
    return [
        *cases,
        ([0, single, 0, 0], 12),
        ([0, 0, single + 1, 0], 12),
        ([0, roll.randint(700, 900), roll.randint(300, 500), 0], 32),
    ]


def _huffman_bits(counts):
    """Let the library find how long each code's word is."""
    counts = torch.tensor(counts)
    return int((quantization.huffman_lengths(counts).long() * counts).sum())


def _chain(ordered):
    """Return the bits where one group takes in the counts one after the other."""
    total, bits = ordered[0], 0
    for count in ordered[1:]:
        total += count
        bits += total
    return bits if len(ordered) > 1 else total


def _own_information(counts):
    total = sum(counts)
    return sum(c * max(math.ceil(math.log2(total / c)), 1) for c in counts if c)


def _entropy(counts):
    total = sum(counts)
    return sum(c * math.log2(total / c) for c in counts if c)


def _codebook_bytes(counts, block):
    """Let whole arrays be made of all parts, and ask them for their bytes."""
    number, levels = sum(counts), len(counts)
    beside = np.zeros(levels, np.float32).nbytes + len(range(0, number, block)) * 2
    width = next(width for width in range(9) if 2**width >= levels)
    packed, words = (
        np.packbits(np.zeros(bits, np.uint8)).nbytes
        for bits in (number * width, _huffman_bits(counts))
    )
    return packed + beside, words + np.zeros(levels, np.uint8).nbytes + beside


def _held(
    codebook=lambda levels: 4 * levels,
    scales=lambda number, block: 2 * math.ceil(number / block),
    width=lambda levels: (levels - 1).bit_length(),
    words=_huffman_bits,
    table=lambda levels: levels,
    whole=lambda bits: math.ceil(bits / 8),
):
    """Return both sums of bytes, with one thing about them changed."""

    def answer(counts, block):
        number, levels = sum(counts), len(counts)
        beside = codebook(levels) + scales(number, block)
        packed = whole(number * width(levels)) + beside
        return packed, whole(words(counts)) + table(levels) + beside

    return answer


def _joined(order, keep_zeros=False):
    """Return the bits where groups are joined in another order."""

    def bits(counts):
        groups, total = [count for count in counts if count or keep_zeros], 0
        if len(groups) == 1:
            return groups[0]
        while len(groups) > 1:
            groups = order(groups)
            total += groups[0] + groups[1]
            groups = [*groups[2:], groups[0] + groups[1]]
        return total

    return bits


def _used(counts):
    """Return the counts of the codes that occur, rarest first."""
    return sorted(count for count in counts if count)


CODEBOOK_BYTES_MISTAKES = {
    "codes_alone": _held(
        codebook=lambda levels: 0, scales=lambda number, block: 0, table=lambda levels: 0
    ),
    "levels_forgotten": _held(codebook=lambda levels: 0),
    "levels_in_16_bits": _held(codebook=lambda levels: 2 * levels),
    "scales_forgotten": _held(scales=lambda number, block: 0),
    "scales_in_32_bits": _held(scales=lambda number, block: 4 * math.ceil(number / block)),
    "scales_in_8_bits": _held(scales=lambda number, block: math.ceil(number / block)),
    "last_block_forgotten": _held(scales=lambda number, block: 2 * (number // block)),
    "part_of_a_block": _held(scales=lambda number, block: 2 * number / block),
    "scale_for_each_weight": _held(scales=lambda number, block: 2 * number),
    "one_scale": _held(scales=lambda number, block: 2),
    "table_forgotten": _held(table=lambda levels: 0),
    "table_of_floats": _held(table=lambda levels: 4 * levels),
    "byte_for_each_code": _held(width=lambda levels: 8),
    "bit_for_each_level": _held(width=lambda levels: levels),
    "bits_not_rounded": _held(width=math.log2),
    "bits_of_the_used": lambda counts, block: _held(
        width=lambda _: (len(_used(counts)) - 1).bit_length()
    )(counts, block),
    "part_of_a_byte": _held(whole=lambda bits: bits / 8),
    "bytes_rounded_down": _held(whole=lambda bits: bits // 8),
    "one_byte_more": _held(whole=lambda bits: bits // 8 + 1),
    "bits_not_bytes": _held(whole=lambda bits: bits),
    "entropy": _held(words=_entropy),
    "own_information": _held(words=_own_information),
    "rarest_never_put_back": _held(words=lambda counts: _chain(_used(counts))),
    "sorted_once": _held(words=lambda counts: _joined(lambda groups: groups)(_used(counts))),
    "not_sorted": _held(words=_joined(lambda groups: groups)),
    "most_frequent_joined": _held(words=_joined(partial(sorted, reverse=True))),
    "zeros_joined": _held(words=_joined(sorted, keep_zeros=True)),
    "word_of_no_bit": _held(
        words=lambda counts: _huffman_bits(counts) if len(_used(counts)) > 1 else 0
    ),
    "lengths_alone": _held(
        words=lambda counts: int(quantization.huffman_lengths(torch.tensor(counts)).sum())
    ),
    "order_swapped": lambda *case: _codebook_bytes(*case)[::-1],
}


CODEBOOK_BYTES = Exercise(
    "codebook_bytes", _codebook_bytes, _codebook_bytes_cases, CODEBOOK_BYTES_MISTAKES
)


# What is worked out by hand, from the numbers of a variant
MOVED_LEVELS = ByHand(
    KMEANS_STEP,
    lambda kmeans_step, second, third, far, level: kmeans_step(
        torch.tensor([0.0, second, third, far]), torch.tensor([1.0, level])
    )[1],
)
