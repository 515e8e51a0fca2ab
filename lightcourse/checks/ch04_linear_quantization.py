"""Checks of the exercises of chapter 04."""

import math
from functools import partial

import torch

from lightcourse import quantization
from lightcourse.checks.by_hand import ByHand
from lightcourse.checks.cases import but, dice, normal, until
from lightcourse.checks.comparing import entries, same, to_array
from lightcourse.checks.grading import Exercise, grade


def check_affine_qparams(affine_qparams) -> bool:
    """Check ``affine_qparams(x, bits)``: scale and zero point of the grid that just fits x."""
    return grade(affine_qparams, AFFINE_QPARAMS)


def _affine_qparams_cases(seed):
    roll = dice(seed)
    cases = [
        (normal(7, seed=0) + 0.3, 4),
        (torch.tensor([20.0, 22.5, 30.0]), 3),
        (torch.tensor([-5.0, -1.0, -2.0]), 8),
        (torch.full((4,), 0.7), 3),
        (torch.full((3,), -2.0), 4),
        (torch.tensor(-0.4), 2),
        (torch.zeros(5), 4),
        (torch.tensor([-1.0, 3.7]), 3),  # low is -1.49 steps
        (torch.tensor([[-1.3, 2.0], [0.4, 3.2]]), 3),  # -2.02 steps
        (torch.tensor([1e-7, -3e-7]), 4),  # small, but not nothing but zeros
    ]
    for low, high in ((0.1, 0.45), (0.55, 0.9)):
        draw = lambda: (1.5 * normal(2, 3, 2, seed=roll.randrange(2**31)), roll.randint(2, 8))  # noqa: E731
        cases.append(until(lambda case, ends=(low, high): _lies(case, *ends), draw))
    return cases


def _lies(case, low, high):
    """Tell whether low lies that far above a whole number of steps, so on no last bit."""
    steps = (case[0].min() / _qparams(*case)[0]).item()
    return low < steps - math.floor(steps) < high


def _affine_qparams(x, bits):
    scale, zero_point = quantization.choose_qparams_affine(x, bits)
    return scale.item(), zero_point.item()


def _qparams(x, bits, steps=None, widen=True, start=None, rounded=torch.round):
    """Return scale and zero point of a grid with one thing about it changed."""
    low, high = x.min(), x.max()
    if widen:
        low, high = low.clamp(max=0), high.clamp(min=0)
    scale = (high - low) / (steps or 2**bits - 1)
    if widen and scale == 0:
        scale = torch.tensor(1.0)
    start = -(2 ** (bits - 1)) if start is None else start
    return scale.item(), (start - rounded(low / scale)).item()


AFFINE_QPARAMS_MISTAKES = {
    "one_step_too_many": lambda x, bits: _qparams(x, bits, steps=2**bits),
    "bits_not_levels": lambda x, bits: _qparams(x, bits, steps=bits),
    "zero_outside_range": partial(_qparams, widen=False),
    "starts_at_zero": partial(_qparams, start=0),
    "zero_point_not_rounded": partial(_qparams, rounded=lambda steps: steps),
    "floors": partial(_qparams, rounded=torch.floor),
    "ceils": partial(_qparams, rounded=torch.ceil),
    "sign_turned": partial(_qparams, rounded=lambda steps: -steps.round()),
    "symmetric": lambda x, bits: ((x.abs().max() / (2 ** (bits - 1) - 1)).item() or 1.0, 0),
    "divides_by_nothing": lambda x, bits: _qparams(x, bits) if x.any() else (0.0, math.nan),
}


AFFINE_QPARAMS = Exercise(
    "affine_qparams", _affine_qparams, _affine_qparams_cases, AFFINE_QPARAMS_MISTAKES
)


def check_round_trip(round_trip) -> bool:
    """Check ``round_trip(x, bits)``: what is read back from the integers, 0 exact."""
    return grade(round_trip, ROUND_TRIP)


def _round_trip_cases(seed):
    roll = dice(seed)
    return [
        (normal(3, 5, seed=roll.randrange(2**31)) + 0.4, 4),
        (torch.tensor([-3.5, -1.2, 0.0, 2.2, 3.5]), 3),
        (torch.tensor([-1.0, 0.0, 0.3, 1.1]), 3),
        (torch.full((4,), 0.7), 2),
        (torch.zeros(3), 4),
        (normal(40, seed=roll.randrange(2**31)).abs(), 8),  # q - zero_point reaches 255
        (torch.tensor([-1e-7, 3e-7]), 4),
    ]


def _as_near(answer, wanted, x, bits):
    """Tell whether two round trips are the same, or both right: halves may go either way."""
    return same(answer, wanted) or (_nearest(answer, x, bits) and _nearest(wanted, x, bits))


def _nearest(answer, x, bits):
    """Tell whether each value is the nearest of a grid's, which holds 0 and no level too many."""
    array = to_array(answer)
    if array is None or array.dtype.kind != "f" or array.shape != tuple(x.shape):
        return False
    scale, low = _qparams(x, bits)[0], min(x.min().item(), 0)
    steps, back = x.double() / scale, torch.as_tensor(array).double() / scale
    near = (back - back.round()).abs().max() < 1e-3 and (back - steps).abs().max() < 0.5 + 1e-3
    starts = {math.floor(low / scale + 0.5 - 1e-6), math.ceil(low / scale - 0.5 + 1e-6)}
    return bool(near) and any(
        start - 0.1 < back.min() and back.max() < start + 2**bits - 0.9 for start in starts
    )


def _round_trip(x, bits):
    scale, zero_point = quantization.choose_qparams_affine(x, bits)
    return quantization.fake_quantize(x, scale, zero_point, bits)


def _broken(x, bits):
    """Do what the function of the exercise does."""
    return ((x - x.min()) / (x.max() - x.min()) * bits).round() / bits


def _from_smallest(x, steps):
    step = (x.max() - x.min()) / steps
    return x.min() + ((x - x.min()) / step).round() * step


def _integers(x, bits):
    scale, zero_point = quantization.choose_qparams_affine(x, bits)
    return quantization.quantize_affine(x, scale, zero_point, bits), scale, zero_point


def _without_clamp(x, bits):
    scale, _ = quantization.choose_qparams_affine(x, bits)
    return (x / scale).round() * scale


def _floored(x, bits):
    scale, zero_point = quantization.choose_qparams_affine(x, bits)
    q = ((x / scale).floor() + zero_point).clamp(*quantization.quant_range(bits))
    return (q - zero_point) * scale


def _too_many_steps(x, bits):
    low, high = x.min().clamp(max=0), x.max().clamp(min=0)
    scale = (high - low) / 2**bits or torch.tensor(1.0)
    low_end = (low / scale).round()
    return (x / scale).round().clamp(low_end, low_end + 2**bits - 1) * scale


ROUND_TRIP_MISTAKES = {
    "broken_version": _broken,
    "still_between_0_and_1": lambda x, bits: _broken(x, 2**bits - 1),
    "steps_of_bits": _from_smallest,
    "zero_not_exact": lambda x, bits: _from_smallest(x, 2**bits - 1),
    "integers_returned": lambda x, bits: _integers(x, bits)[0].float(),
    "zero_point_not_subtracted": lambda x, bits: _integers(x, bits)[0] * _integers(x, bits)[1],
    "not_clamped": _without_clamp,
    "floors": _floored,
    "one_step_too_many": _too_many_steps,
}


ROUND_TRIP = Exercise("round_trip", _round_trip, _round_trip_cases, ROUND_TRIP_MISTAKES, _as_near)


def check_quantize_groups(quantize_groups) -> bool:
    """Check ``quantize_groups(weight, bits, group_size)``: integers, and the groups' scales."""
    return grade(quantize_groups, QUANTIZE_GROUPS)


def _quantize_groups_cases(seed):
    roll = dice(seed)

    def draw(rows, columns, bits, group_size):
        weight = normal(rows, columns, seed=roll.randrange(2**31)) * torch.arange(1.0, columns + 1)
        return weight, bits, group_size

    sizes = [(2, 12, 4, 4), (3, 8, 3, 8), (4, 6, 8, 2), (2, 9, 2, 3)]
    cases = [until(_far_from_halves, lambda size=size: draw(*size)) for size in sizes]
    silent = torch.tensor([[0.0, 0.0, 0.3, -1.0], [2.0, -0.9, 0.0, 0.0]])
    return [*cases, (silent, 4, 2), draw(3, 10, 4, 4), draw(2, 3, 3, 4)]


def _far_from_halves(case):
    """Tell whether no integer is decided by a last bit."""
    steps = _in_groups(*case, store=lambda q, steps: steps)[0]
    return bool(((steps - steps.floor() - 0.5).abs() > 1e-3).all())


def _quantize_groups(weight, bits, group_size):
    """Ask the library about each group as if it were a matrix of its own."""
    if weight.shape[1] % group_size:
        return ()
    q, scales = torch.empty(weight.shape, dtype=torch.int8), []
    for row in range(len(weight)):
        for first in range(0, weight.shape[1], group_size):
            group = weight[row, first : first + group_size]
            grid = quantization.choose_qparams_affine(group, bits, symmetric=True)
            q[row, first : first + group_size] = quantization.quantize_affine(group, *grid, bits)
            scales.append(grid[0].item())
    return q, torch.tensor(scales).view(len(weight), -1)


def _in_groups(
    weight,
    bits,
    group_size,
    size=lambda groups: groups.abs().amax(-1, keepdim=True),
    steps=lambda bits: 2 ** (bits - 1) - 1,
    rounded=torch.round,
    unit=1.0,
    store=lambda q, steps: q.to(torch.int8),
):
    """Quantize in groups with one thing about it changed."""
    if weight.shape[1] % group_size:
        return ()
    groups = weight.reshape(len(weight), -1, group_size)
    scale = (size(groups) / steps(bits)).expand(*groups.shape[:2], 1)
    scale = torch.where(scale == 0, unit, scale)
    levels = groups / scale
    q = rounded(levels).clamp(*quantization.quant_range(bits))
    return store(q, levels).reshape(weight.shape), scale[..., 0]


def _far_neighbours(weight, bits, group_size):
    """Group every n-th weight of a row instead of those that stand side by side."""
    if weight.shape[1] % group_size:
        return ()
    mixed = weight.reshape(len(weight), group_size, -1).mT.reshape(weight.shape)
    q, scales = _quantize_groups(mixed, bits, group_size)
    return q.reshape(len(q), -1, group_size).mT.reshape(weight.shape), scales


def _filled_up(weight, bits, group_size):
    """Give what is left over at the end of a row a scale, too."""
    padded = torch.nn.functional.pad(weight, (0, -weight.shape[1] % group_size))
    q, scales = _quantize_groups(padded, bits, group_size)
    return q[:, : weight.shape[1]], scales


def _read_back(weight, bits, group_size):
    found = _quantize_groups(weight, bits, group_size)
    return (found[0] * found[1].repeat_interleave(group_size, 1), found[1]) if found else ()


def _same_kind(answer, wanted, *case):
    """Compare, and do not take floats for integers."""
    kinds = [
        getattr(to_array((entries(found) or [None])[0]), "dtype", None)
        for found in (answer, wanted)
    ]
    return same(answer, wanted) and kinds[0] == kinds[1]


QUANTIZE_GROUPS_MISTAKES = {
    "one_scale_a_row": partial(
        _in_groups, size=lambda groups: groups.abs().amax((-2, -1), keepdim=True)
    ),
    "far_neighbours": _far_neighbours,
    "without_abs": partial(_in_groups, size=lambda groups: groups.amax(-1, keepdim=True)),
    "one_step_too_many": partial(_in_groups, steps=lambda bits: 2 ** (bits - 1)),
    "all_levels": partial(_in_groups, steps=lambda bits: 2**bits - 1),
    "floors": partial(_in_groups, rounded=torch.floor),
    "truncates": partial(_in_groups, rounded=torch.trunc),
    "divides_by_nothing": partial(_in_groups, unit=0.0),
    "floats": partial(_in_groups, store=lambda q, steps: q),
    "read_back": _read_back,
    "odd_width_filled_up": _filled_up,
}


QUANTIZE_GROUPS = Exercise(
    "quantize_groups",
    _quantize_groups,
    _quantize_groups_cases,
    QUANTIZE_GROUPS_MISTAKES,
    _same_kind,
)


def check_clipped_scale(clipped_scale) -> bool:
    """Check ``clipped_scale(x, bits, shares)``: for each row the scale of least squared error."""
    return grade(clipped_scale, CLIPPED_SCALE)


def _clipped_scale_cases(seed):
    roll = dice(seed)

    def draw(rows, columns, bits, shares):
        x = normal(rows, columns, seed=roll.randrange(2**31)) * torch.arange(1.0, rows + 1)[:, None]
        return x, bits, torch.tensor(shares)

    sizes = [
        ((3, 24, 3, [1.0, 0.8, 0.6, 0.4]), 0),
        ((6, 5, 2, [0.3, 0.6, 0.9, 1.2]), 1),
        ((6, 8, 2, [0.4, 1.0, 0.7]), -1),
        ((2, 16, 4, [1.1, 0.5, 0.8]), 0),
    ]
    cases = [until(partial(_tells, more=more), partial(draw, *size)) for size, more in sizes]
    silent = torch.tensor([[0.0, 0.0, 0.0], [0.4, -2.0, 0.6]])
    return [*cases, (silent, 3, torch.tensor([0.5, 1.0]))]


def _tells(case, more):
    """Tell whether no last bit decides, and ``more`` levels below would change a choice."""
    errors, changed = (
        _errors(*case, lowest=lambda bits, more=more: -(2 ** (bits - 1)) - more)[0]
        for more in (0, more)
    )
    first, second = errors.sort(0).values[:2]
    clear = (second - first > 1e-3 * second).all()
    return bool(clear) and (not more or bool((errors.argmin(0) != changed.argmin(0)).any()))


def _clipped_scale(x, bits, shares):
    """Look how far each value is from the nearest of all levels."""
    lowest, highest = quantization.quant_range(bits)
    levels = torch.arange(lowest, highest + 1, dtype=torch.float64)
    scales = []
    for row in x.double():
        tried = shares.double() * row.abs().max() / highest
        far = (row[:, None] - tried[:, None, None] * levels).abs().amin(-1)
        scales.append(tried[far.square().sum(-1).argmin()].item() or 1.0)
    return torch.tensor(scales)[:, None]


def _errors(
    x,
    bits,
    shares,
    error=lambda gap: gap.square().sum(-1),
    lowest=lambda bits: -(2 ** (bits - 1)),
    highest=lambda bits: 2 ** (bits - 1) - 1,
    steps=lambda bits: 2 ** (bits - 1) - 1,
):
    """Return the error of each share and row, with one thing about it changed, and the scales."""
    scales = shares[:, None] * x.abs().amax(1) / steps(bits)
    q = (x / scales[..., None]).round().clamp(lowest(bits), highest(bits))
    return error(q * scales[..., None] - x), scales


def _chosen(x, bits, shares, pick=lambda errors: errors.argmin(0), **changed):
    errors, scales = _errors(x, bits, shares, **changed)
    return torch.where(x.any(1), scales[pick(errors), torch.arange(len(x))], 1.0)[:, None]


CLIPPED_SCALE_MISTAKES = {
    "full_range": lambda x, bits, shares: _chosen(x, bits, torch.ones(1)),
    "not_clamped": partial(_chosen, lowest=lambda bits: -(2**40), highest=lambda bits: 2**40),
    "one_share_for_all": partial(
        _chosen, pick=lambda errors: errors.nan_to_num().sum(1).argmin().expand(errors.shape[1])
    ),
    "absolute_error": partial(_chosen, error=lambda gap: gap.abs().sum(-1)),
    "largest_error": partial(_chosen, error=lambda gap: gap.abs().amax(-1)),
    "worst_kept": partial(_chosen, pick=lambda errors: errors.argmax(0)),
    "range_returned": lambda x, bits, shares: (
        _clipped_scale(x, bits, shares) * (2 ** (bits - 1) - 1)
    ),
    "one_step_too_many": partial(_chosen, steps=lambda bits: 2 ** (bits - 1)),
    "divides_by_nothing": lambda x, bits, shares: (
        _clipped_scale(x, bits, shares) * x.any(1, keepdim=True)
    ),
    "shape_lost": lambda x, bits, shares: _clipped_scale(x, bits, shares)[:, 0],
}


CLIPPED_SCALE = Exercise(
    "clipped_scale", _clipped_scale, _clipped_scale_cases, CLIPPED_SCALE_MISTAKES
)


def check_spend_bits(spend_bits) -> bool:
    """Check ``spend_bits(sizes, rises, choices, budget)``: bits for each layer in a budget."""
    return grade(spend_bits, SPEND_BITS)


def _spend_bits_cases(seed):
    roll = dice(seed)

    def draw(layers, choices, least, most):
        sizes = [8 * int(2 ** roll.uniform(1, 6)) for _ in range(layers)]
        rises = torch.tensor([_rises(roll, size, len(choices)) for size in sizes])
        low, high = (bits * sum(sizes) / 8 for bits in (choices[0], choices[-1]))
        return sizes, rises, choices, int(low + roll.uniform(least, most) * (high - low))

    loss, stop = {"per_bit": False}, {"stop": True}
    plans = [
        ((6, [2, 3, 4], 0.55, 0.7), loss),
        ((8, [3, 4], 0.2, 0.5), stop),
        ((5, [2, 4, 8], 0.2, 0.5), loss),
        ((6, [2, 3, 4], 0.2, 0.5), stop),
    ]
    cases = [
        until(partial(_tells_from, changed=changed), partial(draw, *how)) for how, changed in plans
    ]
    just_fits = [8, 64], torch.tensor([[0.02, 0.01], [2.0, 1.0]]), [2, 4], 34
    # What a step lowers counts: neither what is left after it nor what further steps lower.
    much_stays = [8, 8], torch.tensor([[5.0, 4.9], [1.0, 0.2]]), [2, 3], 5
    first_step = [8, 8], torch.tensor([[3.0, 2.0, 1.0], [2.6, 1.1, 1.0]]), [2, 3, 4], 5
    return [*cases, just_fits, much_stays, first_step]


def _rises(roll, size, count):
    """Draw how much the loss rises with each number of bits, each further bit bringing less."""
    most, kept = size**0.6 * 10 ** roll.uniform(-3, -2), roll.uniform(0.15, 0.5)
    return [most * kept**place for place in range(count)]


def _tells_from(case, changed):
    """Tell whether the greedy plan is next to the best one, and a changed one is far off."""
    return _share(_greedy(*case), *case) > 0.99 and _share(_greedy(*case, **changed), *case) < 0.94


def _spend_bits(sizes, rises, choices, budget):
    """Try every plan there is."""
    plans = torch.cartesian_prod(*[torch.arange(len(choices))] * len(sizes))
    bits = torch.tensor(choices)[plans]
    fits = (bits * torch.tensor(sizes)).sum(1) <= 8 * budget
    total = rises.double()[torch.arange(len(sizes)), plans].sum(1)
    return bits[total.where(fits, torch.inf).argmin()].tolist()


def _share(plan, sizes, rises, choices, budget):
    """Return what share of the best plan's gain a plan reaches; 0 where it is no plan."""
    plan = [getattr(bits, "item", lambda bits=bits: bits)() for bits in entries(plan) or []]
    if len(plan) != len(sizes) or not all(bits in choices for bits in plan):
        return 0.0
    if sum(bits * size for bits, size in zip(plan, sizes, strict=True)) > 8 * budget:
        return 0.0

    def gain(plan):
        return sum(
            float(row[0] - row[choices.index(bits)]) for row, bits in zip(rises, plan, strict=True)
        )

    return gain(plan) / gain(_spend_bits(sizes, rises, choices, budget))


def _as_good(answer, wanted, *case):
    """Tell whether two plans are the same, or both keep the budget and are next to the best."""
    return same(answer, wanted) or min(_share(answer, *case), _share(wanted, *case)) > 0.97


def _greedy(
    sizes, rises, choices, budget, per_bit=True, sign=1, stop=False, over=False, unit=8, jump=False
):
    """Buy the step that is worth most until nothing fits, with one thing about it changed."""
    costs = [[size * bits for bits in choices] for size in sizes]
    places, left = [0] * len(sizes), unit * budget - sum(row[0] for row in costs)
    open_steps = set(range(len(sizes)))
    while open_steps and left > 0:
        offers = []
        for layer in open_steps:
            here, there = places[layer], len(choices) - 1 if jump else places[layer] + 1
            price = costs[layer][there] - costs[layer][here]
            gain = float(rises[layer, here] - rises[layer, there])
            offers.append((sign * gain / (price if per_bit else 1), layer, there, price))
        _, layer, there, price = max(offers)
        if price > left and not over:
            open_steps = set() if stop else open_steps - {layer}
            continue
        places[layer], left = there, left - price
        if there == len(choices) - 1:
            open_steps.remove(layer)
    return [choices[place] for place in places]


def _each_layer_alike(sizes, rises, choices, budget):
    """Spend the budget as if all layers were of one size."""
    mean = sum(sizes) / len(sizes)
    return _greedy([mean] * len(sizes), rises, choices, budget)


def _same_for_all(sizes, rises, choices, budget):
    fitting = [bits for bits in choices if bits * sum(sizes) <= 8 * budget]
    return [fitting[-1]] * len(sizes)


SPEND_BITS_MISTAKES = {
    "budget_ignored": lambda sizes, rises, choices, budget: [choices[-1]] * len(sizes),
    "same_for_all": _same_for_all,
    "by_loss_alone": partial(_greedy, per_bit=False),
    "least_first": partial(_greedy, sign=-1),
    "stops_early": partial(_greedy, stop=True),
    "one_step_over": partial(_greedy, over=True),
    "bytes_taken_for_bits": partial(_greedy, unit=1),
    "sizes_ignored": _each_layer_alike,
    "straight_to_the_most": partial(_greedy, jump=True),
}


SPEND_BITS = Exercise("spend_bits", _spend_bits, _spend_bits_cases, SPEND_BITS_MISTAKES, _as_good)


def check_straight_through(straight_through) -> bool:
    """Check ``straight_through(weight, scale, bits, upstream)``: values and their gradient."""
    return grade(straight_through, STRAIGHT_THROUGH)


def _straight_through_cases(seed):
    roll, cases = dice(seed), []
    ends = torch.tensor([[-5.2, -4.4, -3.8, -0.3, 0.2], [1.7, 2.7, 3.3, 3.7, 4.2]])
    for steps, bits in [(ends, 3), *((_steps(roll, 4, 9, bits), bits) for bits in (2, 4, 8))]:
        scale = 0.1 + normal(len(steps), 1, seed=roll.randrange(2**31)).abs()
        upstream = 2 * normal(*steps.shape, seed=roll.randrange(2**31))
        cases.append((steps * scale, scale, bits, upstream))
    return cases


def _steps(roll, rows, columns, bits):
    """Draw numbers of steps, some of them beyond both ends of the grid, none next to a half."""

    def draw():
        return 2 ** (bits - 1) * normal(rows, columns, seed=roll.randrange(2**31))

    return until(lambda x: ((x - x.floor() - 0.5).abs() > 1e-3).all(), draw)


def _straight_through(weight, scale, bits, upstream):
    """Let autograd go through the library's function."""
    weight = weight.clone().requires_grad_()
    rounded = quantization.fake_quantize(weight, scale, torch.zeros(1), bits)
    rounded.backward(upstream)
    return rounded.detach(), weight.grad


def _only(chosen):
    """Return the right values with a gradient where something is true of the steps."""
    return _with(gradient=lambda w, s, b, up: up * chosen(w / s, *quantization.quant_range(b)))


def _with(values=None, gradient=None):
    """Return the right pair with one part of it changed."""
    return but(_straight_through, 0 if values else 1, values or gradient)


def _gradient(*case):
    return _straight_through(*case)[1]


STRAIGHT_THROUGH_MISTAKES = {
    "no_gradient": _only(lambda steps, low, high: False),
    "clamped_pass": _only(lambda steps, low, high: True),
    "unclamped_stop": _only(
        lambda steps, low, high: ~((steps.round() >= low) & (steps.round() <= high))
    ),
    "looks_before_rounding": _only(lambda steps, low, high: (steps >= low) & (steps <= high)),
    "ends_stop": _only(lambda steps, low, high: (steps.round() > low) & (steps.round() < high)),
    "gradient_times_scale": _with(gradient=lambda w, s, b, up: _gradient(w, s, b, up) * s),
    "gradient_over_scale": _with(gradient=lambda w, s, b, up: _gradient(w, s, b, up) / s),
    "gradient_of_ones": _with(gradient=lambda *case: (_gradient(*case) != 0).float()),
    "integers": _with(values=lambda w, s, b, up: _straight_through(w, s, b, up)[0] / s),
    "not_clamped": _with(values=lambda w, s, b, up: (w / s).round() * s),
    "not_rounded": _with(
        values=lambda w, s, b, up: (w / s).clamp(*quantization.quant_range(b)) * s
    ),
    "order_swapped": lambda *case: _straight_through(*case)[::-1],
}


STRAIGHT_THROUGH = Exercise(
    "straight_through", _straight_through, _straight_through_cases, STRAIGHT_THROUGH_MISTAKES
)


# --- worked out by hand, from the numbers of a variant ---


def _group_bits(quantize_groups, bits, group):
    integers, scales = quantize_groups(torch.ones(1, 8 * group), bits, group)
    return bits + 16 * scales.numel() / integers.numel()


FITTING_GRID = ByHand(
    AFFINE_QPARAMS,
    lambda affine_qparams, low, middle, high, bits: affine_qparams(
        torch.tensor([low, middle, high]), bits
    ),
)
GROUP_BITS = ByHand(QUANTIZE_GROUPS, _group_bits)
