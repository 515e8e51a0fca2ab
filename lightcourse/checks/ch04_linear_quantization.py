"""Checks of the exercises of chapter 04."""

import math
from functools import partial

import numpy as np
import torch

from lightcourse import quantization
from lightcourse.checks.cases import but, dice, normal, until
from lightcourse.checks.comparing import same, to_array
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


def _unrounded(x, bits):
    scale, _ = _qparams(x, bits)
    return scale, -(2 ** (bits - 1)) - min(x.min().item(), 0) / scale


def _turned_over(x, bits):
    scale, zero_point = _qparams(x, bits)
    return scale, -(2**bits) - zero_point


def _divided_by_nothing(x, bits):
    return _qparams(x, bits) if x.abs().max() > 0 else (0.0, float("nan"))


AFFINE_QPARAMS_MISTAKES = {
    "one_step_too_many": lambda x, bits: _qparams(x, bits, steps=2**bits),
    "bits_not_levels": lambda x, bits: _qparams(x, bits, steps=bits),
    "zero_outside_range": lambda x, bits: _qparams(x, bits, widen=False),
    "starts_at_zero": lambda x, bits: _qparams(x, bits, start=0),
    "zero_point_not_rounded": _unrounded,
    "floors": lambda x, bits: _qparams(x, bits, rounded=torch.floor),
    "ceils": lambda x, bits: _qparams(x, bits, rounded=torch.ceil),
    "sign_turned": _turned_over,
    "symmetric": lambda x, bits: ((x.abs().max() / (2 ** (bits - 1) - 1)).item() or 1.0, 0),
    "divides_by_nothing": _divided_by_nothing,
}


AFFINE_QPARAMS = Exercise(
    "affine_qparams", _affine_qparams, _affine_qparams_cases, AFFINE_QPARAMS_MISTAKES
)


def check_bits_per_weight(bits_per_weight) -> bool:
    """Check ``bits_per_weight(bits, group_size, symmetric)``: (information, stored) bits."""
    return grade(bits_per_weight, BITS_PER_WEIGHT)


def _bits_per_weight_cases(seed):
    group = 8 * dice(seed).randint(1, 12)
    cases = [(4, 32, True), (3, 32, False), (8, 64, False), (2, 16, True), (5, 128, True)]
    return cases + [(bits, group, symmetric) for bits in (4, 5, 7) for symmetric in (True, False)]


def _bits_per_weight(bits, group_size, symmetric):
    """Write down one group, bit by bit and as arrays, and measure both."""
    zeros = 0 if symmetric else 1
    written = "w" * bits * group_size + "s" * 16 + "z" * bits * zeros
    weights = np.zeros(group_size // 2 if bits <= 4 else group_size, np.uint8)
    arrays = weights, np.zeros(1, np.float16), np.zeros(zeros, np.int8)
    return len(written) / group_size, 8 * sum(array.nbytes for array in arrays) / group_size


_but = partial(but, _bits_per_weight)


def _shifted(bits, group_size, symmetric, scale_bits):
    """Count scales of another width."""
    more = (scale_bits - 16) / group_size
    return tuple(value + more for value in _bits_per_weight(bits, group_size, symmetric))


BITS_PER_WEIGHT_MISTAKES = {
    "no_scales": lambda b, g, s: (float(b), 4.0 if b <= 4 else 8.0),
    "scale_of_32_bits": lambda b, g, s: _shifted(b, g, s, 32),
    "scale_not_shared": (
        lambda b, g, s: tuple(
            width + (_bits_per_weight(b, g, s)[place] - width) * g
            for place, width in enumerate((b, 4 if b <= 4 else 8))
        )
    ),
    "no_zero_points": lambda b, g, s: _bits_per_weight(b, g, True),
    "zero_point_if_symmetric": lambda b, g, s: _bits_per_weight(b, g, False),
    "information_zero_point_8_bits": _but(0, lambda b, g, s: b + (16 + (0 if s else 8)) / g),
    "stored_as_information": _but(1, lambda b, g, s: b + (16 + (0 if s else 8)) / g),
    "stored_zero_point_not_a_byte": (
        _but(1, lambda b, g, s: (4 if b <= 4 else 8) + (16 + (0 if s else b)) / g)
    ),
    "stored_byte_per_weight": _but(1, lambda b, g, s: 8 + (16 + (0 if s else 8)) / g),
    "bytes_not_bits": lambda b, g, s: tuple(value / 8 for value in _bits_per_weight(b, g, s)),
    "order_swapped": lambda b, g, s: _bits_per_weight(b, g, s)[::-1],
}


BITS_PER_WEIGHT = Exercise(
    "bits_per_weight", _bits_per_weight, _bits_per_weight_cases, BITS_PER_WEIGHT_MISTAKES
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
    quant_min, quant_max = quantization.quant_range(bits)
    q = ((x / scale).floor() + zero_point).clamp(quant_min, quant_max)
    return (q - zero_point) * scale


def _too_many_steps(x, bits):
    low, high = x.min().clamp(max=0), x.max().clamp(min=0)
    scale = (high - low) / 2**bits or torch.tensor(1.0)
    low_end = (low / scale).round()
    return (x / scale).round().clamp(low_end, low_end + 2**bits - 1) * scale


ROUND_TRIP_MISTAKES = {
    "broken_version": _broken,
    "still_between_0_and_1": (
        lambda x, bits: (
            ((x - x.min()) / (x.max() - x.min()) * (2**bits - 1)).round() / (2**bits - 1)
        )
    ),
    "steps_of_bits": lambda x, bits: _from_smallest(x, bits),
    "zero_not_exact": lambda x, bits: _from_smallest(x, 2**bits - 1),
    "integers_returned": lambda x, bits: _integers(x, bits)[0].float(),
    "zero_point_not_subtracted": lambda x, bits: _integers(x, bits)[0] * _integers(x, bits)[1],
    "not_clamped": _without_clamp,
    "floors": _floored,
    "one_step_too_many": _too_many_steps,
}


ROUND_TRIP = Exercise("round_trip", _round_trip, _round_trip_cases, ROUND_TRIP_MISTAKES, _as_near)


def check_expected_error(expected_error) -> bool:
    """Check ``expected_error(low, high, bits)``: the mean squared rounding error."""
    return grade(expected_error, EXPECTED_ERROR)


def _expected_error_cases(seed):
    roll = dice(seed)
    drawn = (-roll.uniform(0.1, 2), roll.uniform(0.1, 2), roll.randint(5, 7))
    return [(-1.0, 1.0, 4), (-0.5, 2.5, 3), (0.0, 10.0, 8), (-3.0, 0.0, 2), drawn]


def _expected_error(low, high, bits):
    """Integrate the square of the error over one step, from a half below to a half above."""
    step = _step(low, high, bits)
    integral = np.polynomial.Polynomial([0, 0, 1]).integ()
    return float(integral(step / 2) - integral(-step / 2)) / step


def _step(low, high, bits):
    return (high - low) / (2**bits - 1)


EXPECTED_ERROR_MISTAKES = {
    "largest_error": lambda low, high, bits: _step(low, high, bits) ** 2 / 4,
    "mean_absolute_error": lambda low, high, bits: _step(low, high, bits) / 4,
    "squared_mean": lambda low, high, bits: _step(low, high, bits) ** 2 / 16,
    "step_not_squared": lambda low, high, bits: _step(low, high, bits) / 12,
    "root_taken": lambda low, high, bits: _step(low, high, bits) / 12**0.5,
    "floors": lambda low, high, bits: _step(low, high, bits) ** 2 / 3,
    "one_step_too_many": lambda low, high, bits: ((high - low) / 2**bits) ** 2 / 12,
    "bits_not_levels": lambda low, high, bits: ((high - low) / bits) ** 2 / 12,
    "integral_not_mean": lambda low, high, bits: _step(low, high, bits) ** 3 / 12,
    "range_is_high": lambda low, high, bits: (high / (2**bits - 1)) ** 2 / 12,
}


EXPECTED_ERROR = Exercise(
    "expected_error", _expected_error, _expected_error_cases, EXPECTED_ERROR_MISTAKES
)


def check_improve_scale(improve_scale) -> bool:
    """Check ``improve_scale(x, scale, bits)``: for each row the best scale for its integers."""
    return grade(improve_scale, IMPROVE_SCALE)


def _improve_scale_cases(seed):
    roll = dice(seed)

    def draw(rows, columns, bits):
        x = normal(rows, columns, seed=roll.randrange(2**31)) * torch.arange(1.0, rows + 1)[:, None]
        x[-1] = 0
        reach = 0.12 if bits < 8 else 0.006
        return x, x.abs().amax(1, keepdim=True) * reach + 0.05 * (bits < 8) + 1e-3, bits

    cases = [
        until(_far_from_halves, lambda size=size: draw(*size))
        for size in [(3, 16, 3), (2, 8, 4), (4, 32, 2), (2, 20, 8)]
    ]
    # Of the first row nothing is left, of the second a single 1.
    small = torch.tensor([[0.01, 0.02], [-0.2, 0.8], [-3.2, 1.4]])
    return [*cases, (small, torch.tensor([[1.0], [1.0], [0.5]]), 3)]


def _far_from_halves(case):
    """Tell whether no quotient is decided by a last bit."""
    steps = case[0] / case[1]
    return bool(((steps - steps.floor() - 0.5).abs() > 1e-3).all())


def _rounded(x, scale, bits, function=torch.round):
    quant_min, quant_max = quantization.quant_range(bits)
    return function(x / scale).clamp(quant_min, quant_max)


def _improve_scale(x, scale, bits):
    """Let a solver find the least squares of x = scale · q, row by row."""
    q = _rounded(x, scale, bits)
    best = torch.linalg.lstsq(q[:, :, None].double(), x[:, :, None].double()).solution[:, 0]
    return torch.where((q != 0).any(1, keepdim=True), best.float(), scale)


def _fit(x, scale, q):
    below = (q * q).sum(1, keepdim=True)
    best = (q * x).sum(1, keepdim=True) / below.clamp(min=1)
    return torch.where(below > 0, best, scale)


def _either(x, scale, bits, function):
    """Keep the scale where all integers are 0, as the right answer does."""
    q = _rounded(x, scale, bits)
    return torch.where((q != 0).any(1, keepdim=True), function(x, q), scale)


IMPROVE_SCALE_MISTAKES = {
    "unchanged": lambda x, scale, bits: scale * 1,
    "absmax": (
        lambda x, scale, bits: _either(
            x, scale, bits, lambda x, q: x.abs().amax(1, True) / (2 ** (bits - 1) - 1)
        )
    ),
    "fraction_upside_down": (
        lambda x, scale, bits: _either(
            x, scale, bits, lambda x, q: (q * x).sum(1, True) / (x * x).sum(1, True)
        )
    ),
    "equal_lengths": (
        lambda x, scale, bits: _either(
            x, scale, bits, lambda x, q: x.norm(dim=1, keepdim=True) / q.norm(dim=1, keepdim=True)
        )
    ),
    "ratio_of_means": (
        lambda x, scale, bits: _either(
            x, scale, bits, lambda x, q: x.abs().mean(1, True) / q.abs().mean(1, True)
        )
    ),
    "one_scale_for_all": (
        lambda x, scale, bits: torch.full_like(
            scale,
            ((_rounded(x, scale, bits) * x).sum() / _rounded(x, scale, bits).square().sum()).item(),
        )
    ),
    "not_clamped": lambda x, scale, bits: _fit(x, scale, (x / scale).round()),
    "truncates": lambda x, scale, bits: _fit(x, scale, _rounded(x, scale, bits, torch.trunc)),
    "floors": lambda x, scale, bits: _fit(x, scale, _rounded(x, scale, bits, torch.floor)),
    "zero_row_divides_by_nothing": (
        lambda x, scale, bits: (
            (_rounded(x, scale, bits) * x).sum(1, True)
            / _rounded(x, scale, bits).square().sum(1, True)
        )
    ),
    "shape_lost": lambda x, scale, bits: _improve_scale(x, scale, bits)[:, 0],
}


IMPROVE_SCALE = Exercise(
    "improve_scale", _improve_scale, _improve_scale_cases, IMPROVE_SCALE_MISTAKES
)
