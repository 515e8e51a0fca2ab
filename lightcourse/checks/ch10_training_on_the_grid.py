"""Checks of the exercises of chapter 10."""

from decimal import ROUND_DOWN, ROUND_HALF_EVEN, ROUND_HALF_UP, Decimal
from functools import partial

import numpy as np
import torch

from lightcourse import quantization
from lightcourse.checks.by_hand import ByHand
from lightcourse.checks.cases import but, dice, normal, until
from lightcourse.checks.grading import Exercise, grade


def check_on_the_grid(on_the_grid) -> bool:
    """Check ``on_the_grid(x, weight, grids, bits, upstream)``: a layer, forward and back."""
    return grade(on_the_grid, ON_THE_GRID)


def _on_the_grid_cases(seed):
    roll = dice(seed)

    def draw(tokens, inputs, outputs, bits):
        seeds = [roll.randrange(2**31) for _ in range(3)]
        low, high = quantization.quant_range(bits)
        zero = torch.tensor(low + 1 + roll.randrange(high - low - 2), dtype=torch.int32)
        x_scale = torch.tensor(roll.uniform(0.2, 0.9))
        w_scale = torch.tensor([[roll.uniform(0.1, 0.4)] for _ in range(outputs)])
        x = 2 ** (bits - 1) * x_scale * (normal(tokens, inputs, seed=seeds[0]) - 0.3)
        weight = 0.7 * 2 ** (bits - 1) * w_scale * normal(outputs, inputs, seed=seeds[1])
        # A quarter of a step beyond the ends: rounded back onto the grid, not clamped.
        x[0, 0], x[1, 1] = (high - zero + 0.25) * x_scale, (low - zero - 0.25) * x_scale
        weight[0, 0], weight[1, 1] = (high + 0.25) * w_scale[0], (low - 0.25) * w_scale[1]
        return x, weight, (x_scale, zero, w_scale), bits, normal(tokens, outputs, seed=seeds[2])

    # Square, so that a matrix that lacks its transposition raises no error and can be named.
    sizes = [(6, 6, 6, 3), (7, 7, 7, 4), (5, 9, 4, 3), (4, 6, 5, 8)]
    return [until(_off_the_halves, partial(draw, *size)) for size in sizes]


def _off_the_halves(case):
    """Tell whether no value lies next to a half, and some are clamped at both ends."""
    x, weight, (x_scale, zero, w_scale), bits, _ = case
    low, high = quantization.quant_range(bits)
    parts = [x / x_scale + zero, weight / w_scale]
    clear = all(((part % 1 - 0.5).abs() > 0.01).all() for part in parts)
    return clear and all((part < low - 1).any() and (part > high + 1).any() for part in parts)


def _on_the_grid(x, weight, grids, bits, upstream):
    """Let autograd go through the library's rounding, and through the product."""
    x, weight = (part.clone().requires_grad_() for part in (x, weight))
    x_scale, zero, w_scale = grids
    on_grid = quantization.fake_quantize
    y = on_grid(x, x_scale, zero, bits) @ on_grid(weight, w_scale, torch.tensor(0), bits).T
    y.backward(upstream)
    return y.detach(), x.grad, weight.grad


def _sides(x, weight, grids, bits):
    """Return what is read back of both, and where either was not clamped."""
    found = []
    for part, scale, zero in ((x, *grids[:2]), (weight, grids[2], torch.tensor(0))):
        nearest = (part / scale).round() + zero
        q = nearest.clamp(*quantization.quant_range(bits))
        found += [(q - zero) * scale, q == nearest]
    return found


def _product(of_x=None, of_weight=None, after=None):
    """Return the right gradients with a product of which one thing was changed."""

    def answer(x, weight, grids, bits, upstream):
        x_back, _, w_back, _ = _sides(x, weight, grids, bits)
        x_back = of_x(x, x_back, *grids[:2], bits) if of_x else x_back
        w_back = of_weight(weight, w_back, grids[2], bits) if of_weight else w_back
        y = x_back @ w_back.T
        return after(y, grids) if after else y

    return but(_on_the_grid, 0, answer)


def _of_x(change):
    """Return the right answer but for the gradient by x."""

    def answer(x, weight, grids, bits, upstream):
        _, inside, w_back, _ = _sides(x, weight, grids, bits)
        return change(upstream, inside, w_back, weight, x, grids, bits)

    return but(_on_the_grid, 1, answer)


def _of_weight(change):
    """Return the right answer but for the gradient by the weight."""

    def answer(x, weight, grids, bits, upstream):
        x_back, _, _, inside = _sides(x, weight, grids, bits)
        return change(upstream, inside, x_back, x, weight, grids, bits)

    return but(_on_the_grid, 2, answer)


def _within(steps, bits):
    low, high = quantization.quant_range(bits)
    return (steps >= low) & (steps <= high)


def _both_gradients(x_change, w_change):
    """Return the right product with both gradients wrong in the same way."""

    def answer(*case):
        right = _on_the_grid(*case)
        return right[0], x_change(*case)[1], w_change(*case)[2]

    return answer


_X_AT_FLOATS = _of_x(lambda up, inside, w_back, weight, *_: up @ weight * inside)
_W_AT_FLOATS = _of_weight(lambda up, inside, x_back, x, *_: up.T @ x * inside)
_X_NO_MASK = _of_x(lambda up, inside, w_back, *_: up @ w_back)
_W_NO_MASK = _of_weight(lambda up, inside, x_back, *_: up.T @ x_back)
_X_UPSIDE_DOWN = _of_x(lambda up, inside, w_back, *_: up @ w_back * ~inside)
_W_UPSIDE_DOWN = _of_weight(lambda up, inside, x_back, *_: up.T @ x_back * ~inside)
_X_BY_VALUE = _of_x(
    lambda up, inside, w_back, weight, x, grids, bits: (
        up @ w_back * _within(x / grids[0] + grids[1], bits)
    )
)
_W_BY_VALUE = _of_weight(
    lambda up, inside, x_back, x, weight, grids, bits: (
        up.T @ x_back * _within(weight / grids[2], bits)
    )
)

ON_THE_GRID_MISTAKES = {
    "all_in_floats": lambda x, weight, grids, bits, up: (x @ weight.T, up @ weight, up.T @ x),
    "staircase": lambda *case: (_on_the_grid(*case)[0], 0 * case[0], 0 * case[1]),
    "at_the_floats": _both_gradients(_X_AT_FLOATS, _W_AT_FLOATS),
    "no_masks": _both_gradients(_X_NO_MASK, _W_NO_MASK),
    "masks_upside_down": _both_gradients(_X_UPSIDE_DOWN, _W_UPSIDE_DOWN),
    "ends_before_rounding": _both_gradients(_X_BY_VALUE, _W_BY_VALUE),
    "x_in_floats": _product(of_x=lambda x, *_: x),
    "weight_in_floats": _product(of_weight=lambda weight, *_: weight),
    "zero_point_kept": _product(of_x=lambda x, back, scale, zero, bits: back + zero * scale),
    "zero_point_forgotten": _product(
        of_x=lambda x, back, scale, zero, bits: (
            (x / scale).round().clamp(*quantization.quant_range(bits)) * scale
        )
    ),
    "x_not_clamped": _product(of_x=lambda x, back, scale, *_: (x / scale).round() * scale),
    "weight_not_clamped": _product(
        of_weight=lambda weight, back, scale, bits: (weight / scale).round() * scale
    ),
    "product_of_integers": _product(after=lambda y, grids: y / grids[0] / grids[2].T),
    "scale_of_x_forgotten": _product(after=lambda y, grids: y / grids[0]),
    "scale_of_the_weight_forgotten": _product(after=lambda y, grids: y / grids[2].T),
    "x_by_the_floats": _X_AT_FLOATS,
    "x_without_mask": _X_NO_MASK,
    "x_by_integers": _of_x(
        lambda up, inside, w_back, weight, x, grids, bits: up @ (w_back / grids[2]) * inside
    ),
    "x_in_steps": _of_x(
        lambda up, inside, w_back, weight, x, grids, bits: up @ w_back * inside * grids[0]
    ),
    "weight_by_the_floats": _W_AT_FLOATS,
    "weight_without_mask": _W_NO_MASK,
    "weight_by_integers": _of_weight(
        lambda up, inside, x_back, x, weight, grids, bits: up.T @ (x_back / grids[0]) * inside
    ),
    "weight_in_steps": _of_weight(
        lambda up, inside, x_back, x, weight, grids, bits: up.T @ x_back * inside * grids[2]
    ),
    "weight_sees_the_zero_point": _of_weight(
        lambda up, inside, x_back, x, weight, grids, bits: (
            up.T @ (x_back + grids[0] * grids[1]) * inside
        )
    ),
    "order_swapped": lambda *case: tuple(_on_the_grid(*case)[place] for place in (0, 2, 1)),
}


ON_THE_GRID = Exercise("on_the_grid", _on_the_grid, _on_the_grid_cases, ON_THE_GRID_MISTAKES)


def check_step_gradient(step_gradient) -> bool:
    """Check ``step_gradient(values, step, ends, upstream)``: what LSQ learns a step by."""
    return grade(step_gradient, STEP_GRADIENT)


def _step_gradient_cases(seed):
    roll = dice(seed)

    def draw(rows, columns, low, high):
        steps = (high - low) / 2 * normal(rows, columns, seed=roll.randrange(2**31))
        return steps + (high + low) / 2

    def case(rows, columns, low, high):
        steps = until(_no_half, partial(draw, rows, columns, low, high))
        # Just the ends, a little beyond them, and far: a power of two keeps the first exact.
        steps[:, :4] = torch.tensor([low, high, low - 0.25, high + 0.3])
        steps[0, 4:6] = torch.tensor([low - 3.6, high + 4.2])
        step = torch.tensor([[2.0 ** -roll.randint(1, 4)] for _ in range(rows)])
        upstream = normal(rows, columns, seed=roll.randrange(2**31))
        return steps * step, step, (low, high), upstream + 0.3

    return [case(4, 9, -4, 3), case(5, 12, -2, 1), case(3, 16, 0, 15), case(6, 7, -8, 7)]


def _no_half(steps):
    return ((steps % 1 - 0.5).abs() > 0.02).all() and (steps % 1 > 0.02).all()


def _step_gradient(values, step, ends, upstream):
    """Write down the three regions, with a rounding that autograd cannot see, and let it sum."""
    low, high = ends
    step = step.clone().requires_grad_()
    steps = values / step
    near = (steps + (steps.round() - steps).detach()) * step
    read = torch.where(steps > low, torch.where(steps < high, near, high * step), low * step)
    read.backward(upstream)
    return step.grad * (high * values[0].numel()) ** -0.5


def _learned(
    inside=lambda steps, low, high: steps.round() - steps,
    below=lambda steps, low, high: low,
    above=lambda steps, low, high: high,
    region=lambda steps, low, high: (steps <= low, steps >= high),
    upstream=lambda up, step: up,
    joined=lambda parts: parts.sum(1, keepdim=True),
    scale=lambda values, low, high: (values.shape[1] * high) ** -0.5,
):
    """Return the gradient with one thing about it changed."""

    def answer(values, step, ends, up):
        steps = values / step
        under, over = region(steps, *ends)
        slope = torch.where(under, below(steps, *ends), inside(steps, *ends))
        slope = torch.where(over, above(steps, *ends), slope)
        return joined(upstream(up, step) * slope) * scale(values, *ends)

    return answer


def _for_all(parts):
    return parts.sum().expand(len(parts), 1)


STEP_GRADIENT_MISTAKES = {
    "no_gradient_scale": _learned(scale=lambda values, low, high: 1.0),
    "not_a_root": _learned(scale=lambda values, low, high: 1 / (values.shape[1] * high)),
    "multiplied_by_the_root": _learned(
        scale=lambda values, low, high: (values.shape[1] * high) ** 0.5
    ),
    "all_values_counted": _learned(scale=lambda values, low, high: (values.numel() * high) ** -0.5),
    "rows_counted": _learned(scale=lambda values, low, high: (len(values) * high) ** -0.5),
    "values_not_counted": _learned(scale=lambda values, low, high: high**-0.5),
    "end_not_counted": _learned(scale=lambda values, low, high: values.shape[1] ** -0.5),
    "levels_counted": _learned(
        scale=lambda values, low, high: (values.shape[1] * (high - low)) ** -0.5
    ),
    "one_for_all_rows": _learned(joined=_for_all),
    "mean": _learned(joined=lambda parts: parts.mean(1, keepdim=True)),
    "upstream_forgotten": _learned(upstream=lambda up, step: torch.ones_like(up)),
    "in_steps": _learned(upstream=lambda up, step: up * step),
    "sizes_summed": _learned(joined=lambda parts: parts.abs().sum(1, keepdim=True)),
    "integers_held": _learned(inside=lambda steps, low, high: steps.round()),
    "all_passed": _learned(inside=lambda steps, low, high: 0 * steps),
    "sign_turned": _learned(inside=lambda steps, low, high: steps - steps.round()),
    "by_the_value": _learned(inside=lambda steps, low, high: -steps),
    "floors": _learned(inside=lambda steps, low, high: steps.floor() - steps),
    "truncates": _learned(inside=lambda steps, low, high: steps.trunc() - steps),
    "nothing_outside": _learned(
        below=lambda steps, low, high: 0.0, above=lambda steps, low, high: 0.0
    ),
    "upper_end_alone": _learned(below=lambda steps, low, high: 0.0),
    "ends_have_no_sign": _learned(below=lambda steps, low, high: abs(float(low))),
    "ends_as_opposites": _learned(below=lambda steps, low, high: -float(high)),
    "ends_swapped": _learned(
        below=lambda steps, low, high: high, above=lambda steps, low, high: low
    ),
    "one_outside": _learned(
        below=lambda steps, low, high: -1.0, above=lambda steps, low, high: 1.0
    ),
    "no_regions": _learned(region=lambda steps, low, high: (steps < -torch.inf, steps > torch.inf)),
    "clamped_minus_value": _learned(
        below=lambda steps, low, high: low - steps, above=lambda steps, low, high: high - steps
    ),
    "regions_after_rounding": _learned(
        region=lambda steps, low, high: (steps.round() < low, steps.round() > high)
    ),
    "ends_are_inside": _learned(region=lambda steps, low, high: (steps < low, steps > high)),
    "regions_by_values": lambda values, step, ends, up: _learned(
        region=lambda steps, low, high: (steps * step <= low, steps * step >= high),
    )(values, step, ends, up),
}


STEP_GRADIENT = Exercise(
    "step_gradient", _step_gradient, _step_gradient_cases, STEP_GRADIENT_MISTAKES
)


def check_ternary_rows(ternary_rows) -> bool:
    """Check ``ternary_rows(weight, share)``: -1, 0 or 1, and the best scale for them."""
    return grade(ternary_rows, TERNARY_ROWS)


# Mean sizes of 2, so that 1 is just half of it, and 3 one and a half times.
EXACT = [
    [4.0, -1.0, 1.0, -3.0, 0.5, 2.5],
    [-1.0, 3.0, 6.0, -0.75, 0.25, -1.0],
    [0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
    [0.0, -12.0, 0.0, 0.0, 0.0, 0.0],
    [1.0, 1.0, 5.0, -3.0, -1.5, -0.5],
    [-2.0, 2.0, -2.0, -2.0, 2.0, -2.0],
]


def _ternary_rows_cases(seed):
    roll = dice(seed)

    def draw(rows, columns, share):
        weight = normal(rows, columns, seed=roll.randrange(2**31))
        weight *= torch.tensor([[roll.uniform(0.2, 3.0)] for _ in range(rows)])
        weight[roll.randrange(rows)] = 0
        return weight, share

    def clear(case):
        weight, share = case
        size = weight.abs()
        return ((size - share * size.mean(1, keepdim=True)).abs() > 1e-3 * size).logical_or(
            size == 0
        ).all() and (size.sum(1) == 0).sum() == 1

    random = [(5, 8, 0.5), (4, 11, 0.7), (6, 6, 1.25), (3, 20, 0.2)]
    return [
        (torch.tensor(EXACT), 0.5),
        *(until(clear, partial(draw, *size)) for size in random),
    ]


def _ternary_rows(weight, share):
    """Choose the integers one by one, and let least squares find the scale of each row."""
    integers, scales = [], []
    for row in weight.double().numpy():
        least = share * np.linalg.norm(row, 1) / len(row)
        q = np.array([int(value > least) - int(value < -least) for value in row], dtype=float)
        found = np.linalg.lstsq(q[:, None], row, rcond=None)[0][0]
        integers.append(q)
        scales.append(found if q.any() else 1.0)
    return (
        torch.tensor(np.array(integers), dtype=torch.int8),
        torch.tensor(scales, dtype=torch.float32)[:, None],
    )


def _mean_of_kept(weight, kept):
    size = weight.abs() * kept
    return size.sum(1, keepdim=True) / kept.sum(1, keepdim=True)


def _mean_size(weight):
    return weight.abs().mean(1, keepdim=True)


def _made_ternary(
    threshold=lambda weight, share: share * _mean_size(weight),
    kept=lambda weight, threshold: weight.abs() > threshold,
    scale=_mean_of_kept,
    empty=1.0,
    integers=lambda weight, kept, scale: weight.sign() * kept,
):
    """Return ternary rows with one thing about them changed."""

    def answer(weight, share):
        chosen = kept(weight, threshold(weight, share))
        found = scale(weight, chosen).expand(len(weight), 1)
        filled = torch.where(chosen.any(1, keepdim=True), found, empty)
        return integers(weight, chosen, filled), filled

    return answer


def _threshold(function):
    return _made_ternary(threshold=function)


def _scale(function):
    return _made_ternary(scale=function)


def _clamped_rounds(weight, share):
    """Round by the scale that is returned, instead of comparing with the threshold."""
    q, scale = _ternary_rows(weight, share)
    return (weight / scale).round().clamp(-1, 1), scale


def _turned(change):
    """Return an answer made of columns instead of rows, in the shapes of rows."""

    def answer(weight, share):
        size = weight.abs()
        kept = size > share * change(size)
        scale = _mean_of_kept(weight, kept)
        return weight.sign() * kept, torch.where(kept.any(1, keepdim=True), scale, 1.0)

    return answer


TERNARY_ROWS_MISTAKES = {
    "mean_of_all": _scale(lambda weight, kept: _mean_size(weight)),
    "kept_over_all": _scale(
        lambda weight, kept: (weight.abs() * kept).sum(1, keepdim=True) / weight.shape[1]
    ),
    "signed_mean": _scale(
        lambda weight, kept: (weight * kept).sum(1, keepdim=True) / kept.sum(1, keepdim=True)
    ),
    "root_of_squares": _scale(
        lambda weight, kept: (
            (weight.square() * kept).sum(1, keepdim=True) / kept.sum(1, keepdim=True)
        ).sqrt()
    ),
    "largest": _scale(lambda weight, kept: weight.abs().amax(1, keepdim=True)),
    "smallest_kept": _scale(
        lambda weight, kept: weight.abs().masked_fill(~kept, torch.inf).amin(1, keepdim=True)
    ),
    "sum_of_kept": _scale(lambda weight, kept: (weight.abs() * kept).sum(1, keepdim=True)),
    "one_scale": _scale(lambda weight, kept: (weight.abs() * kept).sum() / kept.sum()),
    "threshold_as_scale": lambda weight, share: (
        _ternary_rows(weight, share)[0],
        torch.where(_mean_size(weight) > 0, share * _mean_size(weight), 1.0),
    ),
    "divides_by_nothing": _made_ternary(empty=torch.nan),
    "zero_scale": _made_ternary(empty=0.0),
    "one_threshold": _threshold(lambda weight, share: share * weight.abs().mean()),
    "threshold_of_columns": _turned(lambda size: size.mean(0)),
    "share_ignored": _threshold(lambda weight, share: 0.5 * _mean_size(weight)),
    "share_of_the_paper": _threshold(lambda weight, share: 0.7 * _mean_size(weight)),
    "share_alone": _threshold(lambda weight, share: share),
    "share_divides": _threshold(lambda weight, share: _mean_size(weight) / share),
    "share_of_the_largest": _threshold(
        lambda weight, share: share * weight.abs().amax(1, keepdim=True)
    ),
    "mean_of_signed": _threshold(lambda weight, share: share * weight.mean(1, keepdim=True)),
    "size_of_the_mean": _threshold(
        lambda weight, share: share * weight.mean(1, keepdim=True).abs()
    ),
    "deviation": _threshold(lambda weight, share: share * weight.std(1, keepdim=True)),
    "all_kept": _threshold(lambda weight, share: 0.0),
    "threshold_is_kept": _made_ternary(
        kept=lambda weight, threshold: (weight.abs() >= threshold) & (weight != 0)
    ),
    "without_abs": _made_ternary(kept=lambda weight, threshold: weight > threshold),
    "upside_down": _made_ternary(
        kept=lambda weight, threshold: weight.abs() <= threshold,
    ),
    "sign_lost": _made_ternary(integers=lambda weight, kept, scale: 1.0 * kept),
    "values": _made_ternary(integers=lambda weight, kept, scale: weight.sign() * kept * scale),
    "kept_as_they_were": _made_ternary(integers=lambda weight, kept, scale: weight * kept),
    "binary": _made_ternary(integers=lambda weight, kept, scale: weight.sign()),
    "rounded_by_the_scale": _clamped_rounds,
    "order_swapped": lambda *case: _ternary_rows(*case)[::-1],
}


TERNARY_ROWS = Exercise("ternary_rows", _ternary_rows, _ternary_rows_cases, TERNARY_ROWS_MISTAKES)


def check_held_step(held_step) -> bool:
    """Check ``held_step(weight, velocity, gradient, mask, settings)``: zeros stay zeros."""
    return grade(held_step, HELD_STEP)


def _held_step_cases(seed):
    roll = dice(seed)

    def case(rows, columns, momentum, decay, pruned):
        weight, velocity, gradient, chance = (
            normal(rows, columns, seed=roll.randrange(2**31)) for _ in range(4)
        )
        mask = chance > 0
        mask[0, :3], mask[1, :3] = torch.tensor([True, False, True]), torch.tensor([False] * 3)
        if pruned:
            weight = weight * mask
        weight[0, 0] = 0  # let in, and just 0
        return weight, velocity, gradient, mask, (roll.uniform(0.05, 0.3), momentum, decay)

    return [
        case(3, 4, 0.9, 0.1, pruned=True),
        case(4, 4, 0.6, 0.3, pruned=False),
        case(2, 5, 0.8, 0.0, pruned=True),
        case(5, 3, 0.3, 0.2, pruned=False),
    ]


def _held_step(weight, velocity, gradient, mask, settings):
    """Let PyTorch's optimizer step where the mask is True, and nothing be elsewhere."""
    rate, momentum, decay = settings
    kept = torch.nn.Parameter(weight[mask])
    kept.grad = gradient[mask]
    optimizer = torch.optim.SGD([kept], lr=rate, momentum=momentum, weight_decay=decay)
    optimizer.state[kept]["momentum_buffer"] = velocity[mask].clone()
    optimizer.step()
    speed = optimizer.state[kept]["momentum_buffer"]
    blank = torch.zeros_like(weight)
    return blank.masked_scatter(mask, kept.detach()), blank.masked_scatter(mask, speed)


def _stepped(
    pulled=lambda gradient, weight, decay: gradient + decay * weight,
    speed=lambda velocity, pull, rate, momentum: momentum * velocity + pull,
    moved=lambda weight, speed, pull, settings: weight - settings[0] * speed,
    mask=lambda mask, weight: mask,
    held=("speed", "weight"),
):
    """Return one step with one thing about it changed; ``held`` names what is masked."""

    def answer(weight, velocity, gradient, kept, settings):
        rate, momentum, decay = settings
        kept = mask(kept, weight)
        gradient = gradient * kept if "gradient" in held else gradient
        old = velocity * kept if "old" in held else velocity
        start = weight * kept if "start" in held else weight
        pull = pulled(gradient, start, decay)
        found = speed(old, pull, rate, momentum)
        found = found * kept if "speed" in held else found
        new = moved(start, found, pull, settings)
        new = new * kept if "weight" in held else new
        return new, found * kept if "told" in held else found

    return answer


HELD_STEP_MISTAKES = {
    "not_held": _stepped(held=()),
    "gradient_alone": _stepped(held=("gradient",)),
    "gradient_and_start": _stepped(held=("gradient", "start")),
    "weight_alone": _stepped(held=("weight",)),
    "speed_alone": _stepped(held=("speed",)),
    "masked_before_the_step": _stepped(held=("start",)),
    "velocity_told_alone": _stepped(held=("told",)),
    "mask_of_what_is_not_zero": _stepped(mask=lambda mask, weight: weight != 0),
    "mask_and_not_zero": _stepped(mask=lambda mask, weight: mask & (weight != 0)),
    "mask_upside_down": _stepped(mask=lambda mask, weight: ~mask),
    "no_decay": _stepped(pulled=lambda gradient, weight, decay: gradient),
    "decay_of_the_other_sign": _stepped(
        pulled=lambda gradient, weight, decay: gradient - decay * weight
    ),
    "decay_of_the_gradient": _stepped(
        pulled=lambda gradient, weight, decay: (1 + decay) * gradient
    ),
    "decay_beside": _stepped(
        pulled=lambda gradient, weight, decay: gradient,
        moved=lambda weight, speed, pull, settings: (
            weight - settings[0] * speed - settings[0] * settings[2] * weight
        ),
    ),
    "shrunk_by_decay": _stepped(
        pulled=lambda gradient, weight, decay: gradient,
        moved=lambda weight, speed, pull, settings: (
            (1 - settings[2]) * weight - settings[0] * speed
        ),
    ),
    "no_momentum": _stepped(speed=lambda velocity, pull, rate, momentum: pull),
    "momentum_forgotten": _stepped(speed=lambda velocity, pull, rate, momentum: velocity + pull),
    "averaged": _stepped(
        speed=lambda velocity, pull, rate, momentum: momentum * velocity + (1 - momentum) * pull
    ),
    "rate_in_the_velocity": _stepped(
        speed=lambda velocity, pull, rate, momentum: momentum * velocity + rate * pull,
        moved=lambda weight, speed, pull, settings: weight - speed,
    ),
    "looked_ahead": _stepped(
        moved=lambda weight, speed, pull, settings: (
            weight - settings[0] * (settings[1] * speed + pull)
        )
    ),
    "gradient_step": _stepped(
        moved=lambda weight, speed, pull, settings: weight - settings[0] * pull
    ),
    "uphill": _stepped(moved=lambda weight, speed, pull, settings: weight + settings[0] * speed),
    "rate_forgotten": _stepped(moved=lambda weight, speed, pull, settings: weight - speed),
    "change_alone": _stepped(moved=lambda weight, speed, pull, settings: -settings[0] * speed),
    "order_swapped": lambda *case: _held_step(*case)[::-1],
}


HELD_STEP = Exercise("held_step", _held_step, _held_step_cases, HELD_STEP_MISTAKES)


def check_export(export) -> bool:
    """Check ``export(layer, bits, fault)``: what a converter with a fault stores."""
    return grade(export, EXPORT)


FAULTS = ["none", "cut", "half up", "twice", "narrow", "float16", "zero point"]


def _layer(roll, rows, columns, bits):
    """Draw a layer of which a third of the weights are halves, and a third within a 32nd."""
    most = 2 ** (bits - 1)
    steps = 0.6 * most * normal(rows, columns, seed=roll.randrange(2**31))
    steps[:, ::3] = steps[:, ::3].round() + 0.5
    near = torch.tensor([roll.uniform(0.2, 0.9) / 32 * (-1) ** k for k in range(columns)])
    steps[:, 1::3] = steps[:, 1::3].round() + 0.5 + near[1::3]
    steps[:, 5::6] = steps[:, 5::6].round() + 0.54  # a 32nd is nearer
    steps[0, 2], steps[1, 2], steps[2, 2] = -most - 1.3, most + 0.8, -most + 0.2
    scale = torch.tensor([[roll.uniform(0.01, 0.1)] for _ in range(rows)])
    zero = torch.tensor(roll.randint(-90, 90), dtype=torch.int32)
    return steps * scale, scale, torch.tensor(roll.uniform(0.01, 0.05)), zero


def _shows(layer, bits):
    """Tell whether each fault shows, and none by a last bit."""
    steps = layer[0] / layer[1]
    parts = torch.stack([steps, 16 * steps, 16 * steps + 0.5]) % 1
    clear = ((parts - 0.5).abs() > 1e-3) | (steps % 1 == 0.5)
    made = [_export(layer, bits, fault)[0] for fault in FAULTS[:5]]
    differ = all(not torch.equal(a, b) for i, a in enumerate(made) for b in made[:i])
    lost = (layer[1].half().float() / layer[1] - 1).abs().amax() > 2.5e-4
    return bool(clear.all() and differ and lost)


def _drawn_layer(roll, bits):
    return until(partial(_shows, bits=bits), partial(_layer, roll, 4, 12, bits))


def _export_cases(seed):
    roll = dice(seed)
    return [(_drawn_layer(roll, bits), bits, fault) for bits in (3, 5) for fault in FAULTS]


def _export(layer, bits, fault):
    """Round one number after the other, by the rules that decimal arithmetic has for it."""
    weight, scale, step, zero = layer
    low, high = quantization.quant_range(bits)
    low += FAULTS.index(fault) == 4
    rule = {"cut": ROUND_DOWN, "half up": ROUND_HALF_UP}.get(fault, ROUND_HALF_EVEN)
    # Up is away from 0 there: among positive numbers the two are one.
    shift = 1000 if fault == "half up" else 0
    q = []
    for number in map(Decimal, (weight / scale).flatten().tolist()):
        if fault == "twice":
            number = (16 * number).quantize(Decimal(1), ROUND_HALF_EVEN) / 16
        q.append(min(max(int((number + shift).quantize(Decimal(1), rule)) - shift, low), high))
    if fault == "float16":
        scale = torch.from_numpy(scale.numpy().astype(np.float16).astype(np.float32))
    q = torch.tensor(q, dtype=torch.int8).view(weight.shape)
    return q, scale, step, zero + FAULTS[-1:].count(fault)


def _stored(when, change):
    """Return an export that stores something else where a fault is among ``when``."""

    def answer(layer, bits, fault):
        made = _export(layer, bits, fault)
        return change(*made, layer, bits, fault) if fault in when else made

    return answer


def _integers(when, rounded, low=0, high=0):
    """Return an export with other integers: ``rounded`` of the steps, and of moved ends."""

    def change(q, scale, step, zero, layer, bits, fault):
        ends = quantization.quant_range(bits)
        q = rounded(layer[0] / layer[1]).clamp(ends[0] + low, ends[1] + high)
        return q, scale, step, zero

    return _stored(when, change)


def _as_if(instead):
    """Return an export that takes one fault for another."""
    return lambda layer, bits, fault: _export(layer, bits, instead.get(fault, fault))


def _of_16(steps):
    return (16 * steps).round() / 16


def _away(steps):
    return steps.sign() * (steps.abs() + 0.5).floor()


PLAIN = ["none", "float16", "zero point"]  # their integers are the right ones

EXPORT_MISTAKES = {
    "nothing_ever": _as_if(dict.fromkeys(FAULTS, "none")),
    "cut_forgotten": _as_if({"cut": "none"}),
    "half_up_forgotten": _as_if({"half up": "none"}),
    "twice_forgotten": _as_if({"twice": "none"}),
    "narrow_forgotten": _as_if({"narrow": "none"}),
    "float16_forgotten": _as_if({"float16": "none"}),
    "zero_point_forgotten": _as_if({"zero point": "none"}),
    "always_half_up": _as_if(dict.fromkeys(PLAIN, "half up")),
    "always_cut": _as_if(dict.fromkeys([*PLAIN, "narrow", "half up"], "cut")),
    "cut_floors": _integers(["cut"], torch.floor),
    "half_away": _integers(["half up"], _away),
    "half_down": _integers(["half up"], lambda steps: (steps - 0.5).ceil()),
    "all_up": _integers(["half up"], torch.ceil),
    "sixteenths_stay": _integers(["twice"], _of_16),
    "sixteenths_cut": _integers(["twice"], lambda steps: (16 * steps).trunc().div(16).round()),
    "sixteenths_then_cut": _integers(["twice"], lambda steps: _of_16(steps).trunc()),
    "tenths": _integers(["twice"], lambda steps: (10 * steps).round().div(10).round()),
    "sixteen_steps": _integers(["twice"], lambda steps: (steps / 16).round().mul(16)),
    "narrow_above": _integers(["narrow"], torch.round, high=-1),
    "narrow_on_both_sides": _integers(["narrow"], torch.round, low=1, high=-1),
    "narrow_by_two": _integers(["narrow"], torch.round, low=2),
    "never_clamped": _integers(PLAIN, torch.round, low=-1000, high=1000),
    "one_level_more": _integers(PLAIN, torch.round, high=1),
    "rounded_by_float16": _stored(
        ["float16"],
        lambda q, scale, step, zero, layer, bits, fault: _export(
            (layer[0], scale, step, zero), bits, "none"
        ),
    ),
    "other_scale": _stored(
        ["float16"],
        lambda q, scale, step, zero, layer, *_: (q, layer[1], step.half().float(), zero),
    ),
    "both_scales": _stored(
        ["float16"], lambda q, scale, step, zero, *_: (q, scale, step.half().float(), zero)
    ),
    "zero_point_lower": _stored(
        ["zero point"], lambda q, scale, step, zero, *_: (q, scale, step, zero - 2)
    ),
    "integers_higher": _stored(
        ["zero point"], lambda q, scale, step, zero, *_: (q + 1, scale, step, zero - 1)
    ),
    "values": _stored(FAULTS, lambda q, scale, *rest: (q * scale, scale, *rest[:2])),
    "scale_ignored": _stored(
        FAULTS,
        lambda q, scale, step, zero, layer, bits, fault: (
            (layer[0]).round().clamp(*quantization.quant_range(bits)),
            scale,
            step,
            zero,
        ),
    ),
    "always_4_bits": lambda layer, bits, fault: _export(layer, 4, fault),
    "order_swapped": lambda *case: tuple(_export(*case)[place] for place in (1, 0, 2, 3)),
}


EXPORT = Exercise("export", _export, _export_cases, EXPORT_MISTAKES)


def check_find_fault(find_fault) -> bool:
    """Check ``find_fault(trained, exported, bits, faults)``: which layer differs, and why."""
    return grade(find_fault, FIND_FAULT)


def _find_fault_cases(seed):
    roll = dice(seed)

    def case(*happened, bits=4):
        trained = [_drawn_layer(roll, bits) for _ in happened]
        exported = [
            UNKNOWN[what](*_export(layer, bits, "none"))
            if what in UNKNOWN
            else _export(layer, bits, what)
            for layer, what in zip(trained, happened, strict=True)
        ]
        faults = ["none", *roll.sample(FAULTS[1:], 6)]
        return trained, exported, bits, faults

    one = [case(*["none"] * roll.randint(0, 2), fault, "none") for fault in FAULTS[1:]]
    unknown = [case("none", what, "none", bits=3) for what in UNKNOWN]
    two = [
        case("none", "narrow", "cut"),
        case("float16", "half up"),
        case("none", "twice", "twice"),
    ]
    return [case("none"), *one, *unknown, *two]


# What happened to a layer that is none of the faults.
UNKNOWN = {
    "one integer": lambda q, *rest: (torch.where(q == q.flatten()[5], q - 1, q), *rest),
    "scale": lambda q, scale, *rest: (q, scale * 1.002, *rest),
    "last bits": lambda q, scale, *rest: (q, scale * 1.00002, *rest),
    "step": lambda q, scale, step, zero: (q, scale, step.half().float(), zero),
    "lower": lambda q, scale, step, zero: (q, scale, step, zero - 1),
}


def _find_fault(trained, exported, bits, faults):
    """Look the stored bytes of each layer up among those of all faults."""
    found = []
    for layer, stored in zip(trained, exported, strict=True):
        table = {_bytes(_export(layer, bits, fault)): fault for fault in faults}
        found.append(table.get(_bytes(stored), "other"))
    odd = [place for place, fault in enumerate(found) if fault != "none"]
    return (odd[0], found[odd[0]]) if odd else (-1, "none")


def _bytes(parts):
    return b"".join(part.numpy().tobytes() for part in parts)


def _all_equal(made, stored):
    return all(map(torch.equal, made, stored))


def _found(
    equal=_all_equal,
    chosen=lambda odd: odd[0],
    unknown="other",
    nothing=(-1, "none"),
    place=lambda place, layers: place,
    export=_export,
):
    """Return a search with one thing about it changed."""

    def answer(trained, exported, bits, faults):
        odd = []
        for number, (layer, stored) in enumerate(zip(trained, exported, strict=True)):
            fits = (fault for fault in faults if equal(export(layer, bits, fault), stored))
            fault = next(fits, unknown)
            if fault != "none":
                odd.append((place(number, len(trained)), fault))
        return chosen(odd) if odd else nothing

    return answer


def _nearly(made, stored):
    return all(
        torch.allclose(a.float(), b.float(), rtol=1e-3) for a, b in zip(made, stored, strict=True)
    )


def _reason_of_the_last(trained, exported, bits, faults):
    place, fault = _find_fault(trained, exported, bits, faults)
    return place, _found(chosen=lambda odd: odd[-1])(trained, exported, bits, faults)[1]


def _by_what_differs(trained, exported, bits, faults):
    """Judge by the part that differs, without a look at how."""
    for place, (layer, stored) in enumerate(zip(trained, exported, strict=True)):
        q, scale, step, zero = map(torch.equal, _export(layer, bits, "none"), stored)
        if not (scale and step):
            return place, "float16"
        if not zero:
            return place, "zero point"
        if not q:
            return place, _find_fault([layer], [stored], bits, faults)[1]
    return -1, "none"


FIND_FAULT_MISTAKES = {
    "all_fine": lambda *case: (-1, "none"),
    "nearly_equal": _found(equal=_nearly),
    "integers_alone": _found(equal=lambda made, stored: torch.equal(made[0], stored[0])),
    "scales_forgotten": _found(
        equal=lambda made, stored: _all_equal((made[0], made[3]), (stored[0], stored[3]))
    ),
    "zero_point_forgotten": _found(equal=lambda made, stored: _all_equal(made[:3], stored[:3])),
    "weights_alone": _found(equal=lambda made, stored: _all_equal(made[:2], stored[:2])),
    "last_one": _found(chosen=lambda odd: odd[-1]),
    "reason_of_the_last": _reason_of_the_last,
    "counted_from_one": _found(place=lambda place, layers: place + 1),
    "counted_from_the_end": _found(place=lambda place, layers: place - layers),
    "first_layer_alone": lambda trained, exported, *rest: _find_fault(
        trained[:1], exported[:1], *rest
    ),
    "how_many": lambda trained, exported, bits, faults: (
        sum(
            not _all_equal(_export(layer, bits, "none"), stored)
            for layer, stored in zip(trained, exported, strict=True)
        ),
        _find_fault(trained, exported, bits, faults)[1],
    ),
    "nothing_is_layer_0": _found(nothing=(0, "none")),
    "other_when_fine": _found(nothing=(-1, "other")),
    "unknown_is_fine": _found(unknown="none"),
    "unknown_is_the_last": lambda trained, exported, bits, faults: _found(unknown=faults[-1])(
        trained, exported, bits, faults
    ),
    "by_what_differs": _by_what_differs,
    "always_4_bits": _found(export=lambda layer, bits, fault: _export(layer, 4, fault)),
    "reason_by_its_number": lambda *case: (
        _find_fault(*case)[0],
        (case[3] + ["other"]).index(_find_fault(*case)[1]),
    ),
    "order_swapped": lambda *case: _find_fault(*case)[::-1],
}


FIND_FAULT = Exercise("find_fault", _find_fault, _find_fault_cases, FIND_FAULT_MISTAKES)


# --- worked out by hand, from the numbers of a variant ---


def _one_input(on_the_grid, x, w):
    one, zero = torch.tensor(1.0), torch.tensor(0, dtype=torch.int32)
    x, w, grids = torch.tensor([[x]]), torch.tensor([[w]]), (one, zero, torch.ones(1, 1))
    return [float(part) for part in on_the_grid(x, w, grids, 8, torch.ones(1, 1))]


def _ternary_by_hand(ternary_rows, first, second, third, fourth):
    row = torch.tensor([[first, -second, third, fourth]])
    integers, scales = ternary_rows(row, 0.5)
    return float(scales), float((row - integers * scales).square().sum())


ONE_INPUT = ByHand(ON_THE_GRID, _one_input)
TERNARY = ByHand(TERNARY_ROWS, _ternary_by_hand)
