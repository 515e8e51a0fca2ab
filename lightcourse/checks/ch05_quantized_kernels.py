"""Checks of the exercises of chapter 05."""

from bisect import bisect_left

import numpy as np
import torch

from lightcourse import quantization
from lightcourse.checks.by_hand import ByHand
from lightcourse.checks.cases import dice, whole
from lightcourse.checks.comparing import same
from lightcourse.checks.grading import Exercise, grade

EVERY_NIBBLE = torch.arange(-8, 8, dtype=torch.int8)[None]


def check_integer_dot(integer_dot) -> bool:
    """Check ``integer_dot(x, w, x_zero, w_zero, x_scale, w_scale)``: scales and zeros outside."""
    return grade(integer_dot, INTEGER_DOT)


def _integer_dot_cases(seed):
    roll = dice(seed)
    settings = [
        (7, (128, 119), (0.5, 0.25)),
        (300, (3, 250), (0.02, 0.01)),
        (64, (90, 0), (0.1, 2.0)),
        (roll.randint(20, 90), (roll.randint(1, 255), roll.randint(1, 255)), (0.3, 0.7)),
    ]
    return [
        (*whole(0, 256, 2, length, seed=roll.randrange(2**31), dtype=torch.uint8), *zeros, *scales)
        for length, zeros, scales in settings
    ]


def _integer_dot(x, w, x_zero, w_zero, x_scale, w_scale):
    return x_scale * w_scale * ((x.long() - x_zero) * (w.long() - w_zero)).sum().item()


def _without(terms):
    """Return the four-term form with some terms left out or turned around."""

    def wrong(x, w, x_zero, w_zero, x_scale, w_scale):
        x, w, (cross, left, right) = x.long(), w.long(), terms
        total = (x * w).sum() + cross * len(x) * x_zero * w_zero
        total = total + left * w_zero * x.sum() + right * x_zero * w.sum()
        return x_scale * w_scale * total.item()

    return wrong


INTEGER_DOT_MISTAKES = {
    "all_in_bytes": (
        lambda x, w, x_zero, w_zero, x_scale, w_scale: (
            x_scale * w_scale * ((x - x_zero) * (w - w_zero)).sum().item()
        )
    ),
    "products_in_bytes": (
        lambda x, w, x_zero, w_zero, x_scale, w_scale: (
            _without((1, -1, -1))(x, w, x_zero, w_zero, x_scale, w_scale)
            + x_scale * w_scale * ((x * w).long() - x.long() * w.long()).sum().item()
        )
    ),
    "zero_points_in_bytes": (
        lambda x, w, x_zero, w_zero, x_scale, w_scale: (
            x_scale * w_scale * ((x - x_zero).long() * (w - w_zero).long()).sum().item()
        )
    ),
    "no_zero_points": _without((0, 0, 0)),
    "both_zero_points_missing": _without((0, -1, -1)),
    "both_zero_points_once": (
        lambda x, w, x_zero, w_zero, x_scale, w_scale: (
            _without((0, -1, -1))(x, w, x_zero, w_zero, x_scale, w_scale)
            + x_scale * w_scale * x_zero * w_zero
        )
    ),
    "zero_points_added": _without((1, 1, 1)),
    "w_zero_missing": _without((0, 0, -1)),
    "x_zero_missing": _without((0, -1, 0)),
    "zero_points_crossed": (
        lambda x, w, x_zero, w_zero, x_scale, w_scale: _without((1, -1, -1))(
            x, w, w_zero, x_zero, x_scale, w_scale
        )
    ),
    "scales_added": (
        lambda x, w, x_zero, w_zero, x_scale, w_scale: (
            (x_scale + w_scale) * _integer_dot(x, w, x_zero, w_zero, 1, 1)
        )
    ),
    "no_scales": (
        lambda x, w, x_zero, w_zero, x_scale, w_scale: _integer_dot(x, w, x_zero, w_zero, 1, 1)
    ),
}


INTEGER_DOT = Exercise("integer_dot", _integer_dot, _integer_dot_cases, INTEGER_DOT_MISTAKES)


def check_pack_nibbles(pack_nibbles) -> bool:
    """Check ``pack_nibbles(q)``: two 4-bit integers in each byte, even places low."""
    return grade(pack_nibbles, PACK_NIBBLES)


def _nibbles(seed):
    """Return rows of 4-bit integers, even and odd ones, and all values that there are."""
    roll = dice(seed)
    sizes = [(3, 8), (2, 7), (1, 1)]
    drawn = [whole(-8, 8, *s, seed=roll.randrange(2**31), dtype=torch.int8) for s in sizes]
    return [*drawn, EVERY_NIBBLE.clone()]


def _pack_nibbles_cases(seed):
    return [(q,) for q in _nibbles(seed)]


def _same_bytes(answer, wanted, q):
    """Compare the values, and the type: uint8 is asked for, and no other takes one byte."""
    return _is_uint8(answer) == _is_uint8(wanted) and same(answer, wanted)


def _is_uint8(answer):
    return str(getattr(answer, "dtype", "")) in ("torch.uint8", "uint8")


def _filled(q):
    return torch.nn.functional.pad(q.long(), (0, q.shape[-1] % 2))


def _joined(low, high):
    return (low | high << 4).to(torch.uint8)


def _pack_halves(q):
    q = _filled(q) & 15
    half = q.shape[-1] // 2
    return _joined(q[..., :half], q[..., half:])


PACK_NIBBLES_MISTAKES = {
    "halves_swapped": lambda q: _joined(_filled(q)[..., 1::2] & 15, _filled(q)[..., 0::2] & 15),
    "sign_bits_not_cut": lambda q: _joined(_filled(q)[..., 0::2], _filled(q)[..., 1::2]),
    "offset_by_8": lambda q: _joined(_filled(q)[..., 0::2] + 8, _filled(q)[..., 1::2] + 8),
    "odd_value_lost": (
        lambda q: _joined(q[..., 0 : q.shape[-1] // 2 * 2 : 2] & 15, q[..., 1::2] & 15)
    ),
    "halves_of_the_row": _pack_halves,
    "sign_lost": lambda q: _joined(_filled(q)[..., 0::2].abs(), _filled(q)[..., 1::2].abs()),
    "not_uint8": lambda q: _joined(_filled(q)[..., 0::2] & 15, _filled(q)[..., 1::2] & 15).int(),
    "byte_per_value": lambda q: (q.long() & 15).to(torch.uint8),
}


PACK_NIBBLES = Exercise(
    "pack_nibbles",
    quantization.pack_int4,
    _pack_nibbles_cases,
    PACK_NIBBLES_MISTAKES,
    _same_bytes,
)


def check_unpack_nibbles(unpack_nibbles) -> bool:
    """Check ``unpack_nibbles(packed, length)``: the ``length`` integers that were packed."""
    return grade(unpack_nibbles, UNPACK_NIBBLES)


def _unpack_nibbles_cases(seed):
    return [(quantization.pack_int4(q), q.shape[-1]) for q in _nibbles(seed)]


def _signed(nibble):
    return torch.where(nibble > 7, nibble - 16, nibble)


def _halves(packed):
    return packed.long() & 15, packed.long() >> 4


def _woven(first, second):
    return torch.stack([first, second], dim=-1).flatten(-2)


UNPACK_NIBBLES_MISTAKES = {
    "sign_lost": lambda packed, length: _woven(*_halves(packed))[..., :length],
    "offset_by_8": lambda packed, length: _woven(*_halves(packed))[..., :length] - 8,
    "halves_swapped": lambda packed, length: _signed(_woven(*_halves(packed)[::-1]))[..., :length],
    "halves_not_woven": (
        lambda packed, length: _signed(torch.cat(_halves(packed), dim=-1))[..., :length]
    ),
    "length_unused": lambda packed, length: _signed(_woven(*_halves(packed))),
    "seven_is_negative": (
        lambda packed, length: torch.where(
            (nibble := _woven(*_halves(packed))) >= 7, nibble - 16, nibble
        )[..., :length]
    ),
}


UNPACK_NIBBLES = Exercise(
    "unpack_nibbles", quantization.unpack_int4, _unpack_nibbles_cases, UNPACK_NIBBLES_MISTAKES
)


def check_layer_limits(layer_limits) -> bool:
    """Check ``layer_limits(inputs, outputs, rows, bits, bandwidth, peak)``: two times."""
    return grade(layer_limits, LAYER_LIMITS)


def _layer_limits_cases(seed):
    roll = dice(seed)
    inputs, outputs = 8 * roll.randint(8, 99), 8 * roll.randint(8, 99)
    return [
        (2048, 8192, 1, 8, 29e9, 470e9),
        (384, 1536, 128, 4, 29e9, 470e9),
        (4096, 4096, 16, 4, 10e9, 1e12),
        (64, 40, 3, 3, 1e9, 2e9),
        (inputs, outputs, roll.randint(2, 9), 2, 7e9, 3e10),
    ]


def _layer_limits(inputs, outputs, rows, bits, bandwidth, peak):
    """Ask arrays for their bytes; each number of y takes so many products and so many sums."""
    x, y = np.zeros((rows, inputs), np.float32), np.zeros((rows, outputs), np.float32)
    moved_bits = bits * outputs * inputs + 8 * (x.nbytes + y.nbytes)
    return moved_bits / (8 * bandwidth), y.size * (inputs + inputs) / peak


def _limits(weight_bytes, row_bytes, operations):
    """Return a wrong answer with other bytes of weights and rows, and other operations."""

    def wrong(inputs, outputs, rows, bits, bandwidth, peak):
        size = weight_bytes(inputs * outputs, rows, bits)
        size = size + row_bytes(inputs, outputs, rows, bits)
        return size / bandwidth, operations(inputs * outputs, rows) / peak

    return wrong


def _row_bytes(inputs, outputs, rows, bits):
    return 4 * rows * (inputs + outputs)


LAYER_LIMITS_MISTAKES = {
    "order_swapped": lambda *case: _layer_limits(*case)[::-1],
    "weights_in_bits": _limits(
        lambda size, rows, bits: size * bits, _row_bytes, lambda size, rows: 2 * size * rows
    ),
    "one_operation_per_weight": _limits(
        lambda size, rows, bits: size * bits / 8, _row_bytes, lambda size, rows: size * rows
    ),
    "weights_read_per_row": _limits(
        lambda size, rows, bits: size * bits / 8 * rows,
        _row_bytes,
        lambda size, rows: 2 * size * rows,
    ),
    "no_x_and_y": _limits(
        lambda size, rows, bits: size * bits / 8,
        lambda *case: 0,
        lambda size, rows: 2 * size * rows,
    ),
    "no_y": _limits(
        lambda size, rows, bits: size * bits / 8,
        lambda inputs, outputs, rows, bits: 4 * rows * inputs,
        lambda size, rows: 2 * size * rows,
    ),
    "rows_as_narrow_as_weights": _limits(
        lambda size, rows, bits: size * bits / 8,
        lambda inputs, outputs, rows, bits: rows * (inputs + outputs) * bits / 8,
        lambda size, rows: 2 * size * rows,
    ),
    "operations_of_one_row": _limits(
        lambda size, rows, bits: size * bits / 8, _row_bytes, lambda size, rows: 2 * size
    ),
    "upside_down": lambda *case: tuple(1 / seconds for seconds in _layer_limits(*case)),
}


LAYER_LIMITS = Exercise("layer_limits", _layer_limits, _layer_limits_cases, LAYER_LIMITS_MISTAKES)


def check_offset_parts(offset_parts) -> bool:
    """Check ``offset_parts(x, w)``: unsigned weights, and what the sums start from."""
    return grade(offset_parts, OFFSET_PARTS)


def _offset_parts_cases(seed):
    roll, cases = dice(seed), []
    for rows, outputs, inputs in [(3, 4, 6), (1, 2, 500), (2, 5, 5)]:
        x, w = (
            whole(-128, 128, size, inputs, seed=roll.randrange(2**31), dtype=torch.int8)
            for size in (rows, outputs)
        )
        # Both ends occur; so a smaller offset is none that fits.
        x[0, :2], w[:, 0], w[0, -1] = torch.tensor([-128, -128]).to(torch.int8), -128, 127
        cases.append((x, w))
    return cases


def _offset_parts(x, w):
    """Turn the top bit of each byte; start from what the products lack then, for any output."""
    stored = (w.view(torch.uint8) ^ 128).long()
    return stored, (x.long() @ (w.long() - stored).T)[:, 0]


OFFSET_PARTS_MISTAKES = {
    "sign_turned": lambda x, w: (w.long() + 128, 128 * x.long().sum(dim=1)),
    "sums_of_w": lambda x, w: (w.long() + 128, -128 * w.long().sum(dim=1)),
    "sums_per_input": lambda x, w: (w.long() + 128, -128 * x.long().sum(dim=0)),
    "one_start_for_all": lambda x, w: (w.long() + 128, -128 * x.long().sum()),
    "factor_missing": lambda x, w: (w.long() + 128, -x.long().sum(dim=1)),
    "offset_127": lambda x, w: (w.long() + 127, -127 * x.long().sum(dim=1)),
    "weights_wrap": lambda x, w: ((w + 128).long(), _offset_parts(x, w)[1]),
    "sums_wrap": lambda x, w: (w.long() + 128, (-128 * x).sum(dim=1)),
    "still_signed": lambda x, w: (w.long(), torch.zeros(len(x), dtype=torch.int64)),
    "mean_of_x": lambda x, w: (w.long() + 128, -128 * x.double().mean(dim=1)),
}


OFFSET_PARTS = Exercise("offset_parts", _offset_parts, _offset_parts_cases, OFFSET_PARTS_MISTAKES)


def check_safe_inputs(safe_inputs) -> bool:
    """Check ``safe_inputs(x_bits, w_bits, sum_bits)``: the most products that always fit."""
    return grade(safe_inputs, SAFE_INPUTS)


def _safe_inputs_cases(seed):
    roll = dice(seed)
    cases = [(8, 8, 32), (8, 8, 16), (8, 4, 16), (4, 4, 16), (8, 2, 16), (2, 2, 8)]
    cases += [(3, 2, 16), (1, 2, 8), (1, 5, 12), (2, 3, 12)]  # 2340.6; exactly 64; a last half
    return cases + [
        (roll.randint(2, 8), roll.randint(2, 8), roll.randint(17, 32)) for _ in range(3)
    ]


def _safe_inputs(x_bits, w_bits, sum_bits):
    """Multiply all by all, and search for the first number of worst products that overflows."""
    products = np.outer(np.arange(2**x_bits), np.arange(2**w_bits) - 2 ** (w_bits - 1))
    least, most, end = int(products.min()), int(products.max()), 2 ** (sum_bits - 1)
    return bisect_left(range(end + 2), True, key=lambda k: k * least < -end or k * most >= end) - 1


SAFE_INPUTS_MISTAKES = {
    "x_signed": (
        lambda x_bits, w_bits, sum_bits: (
            (2 ** (sum_bits - 1) - 1) // (2 ** (x_bits - 1) * 2 ** (w_bits - 1))
        )
    ),
    "sum_unsigned": (
        lambda x_bits, w_bits, sum_bits: (2**sum_bits - 1) // ((2**x_bits - 1) * 2 ** (w_bits - 1))
    ),
    "w_unsigned": (
        lambda x_bits, w_bits, sum_bits: (
            (2 ** (sum_bits - 1) - 1) // ((2**x_bits - 1) * (2**w_bits - 1))
        )
    ),
    "largest_weight_is_worst": (
        lambda x_bits, w_bits, sum_bits: (
            (2 ** (sum_bits - 1) - 1) // ((2**x_bits - 1) * (2 ** (w_bits - 1) - 1))
        )
    ),
    "counts_bits": lambda x_bits, w_bits, sum_bits: 2 ** max(sum_bits - x_bits - w_bits, 0),
    "first_that_overflows": (
        lambda x_bits, w_bits, sum_bits: _safe_inputs(x_bits, w_bits, sum_bits) + 1
    ),
    "rounds_to_nearest": (
        lambda x_bits, w_bits, sum_bits: round(
            2 ** (sum_bits - 1) / ((2**x_bits - 1) * 2 ** (w_bits - 1))
        )
    ),
    "positive_end_for_both": (
        lambda x_bits, w_bits, sum_bits: (
            (2 ** (sum_bits - 1) - 1) // ((2**x_bits - 1) * 2 ** (w_bits - 1))
        )
    ),
    "typical_case": lambda x_bits, w_bits, sum_bits: _safe_inputs(x_bits, w_bits, sum_bits) ** 2,
}


SAFE_INPUTS = Exercise("safe_inputs", _safe_inputs, _safe_inputs_cases, SAFE_INPUTS_MISTAKES)


def check_linear_int8(linear_int8) -> bool:
    """Check ``linear_int8(x_q, x_scale, w_q, w_scale)``: a kernel, compiled or not."""
    return grade(linear_int8, LINEAR_INT8)


def _linear_int8_cases(seed):
    # Never more rows than outputs: a row's number is an output's number, too.
    roll, cases = dice(seed), []
    for rows, outputs, inputs in [(1, 3, 5), (3, 3, 301), (4, 7, 18), (5, 6, roll.randint(65, 99))]:
        x_q, w_q = (
            whole(-127, 128, size, inputs, seed=roll.randrange(2**31), dtype=torch.int8).numpy()
            for size in (rows, outputs)
        )
        # Large first numbers: sums of bytes, and of 16 bits, overflow; so does a sum of one sign.
        x_q[:, :4], w_q[:, :3], w_q[:, -1], x_q[0, -1] = 120, 125, -90, 77
        scales = (
            np.array([roll.uniform(0.01, 0.03) for _ in range(size)], np.float32)
            for size in (rows, outputs)
        )
        x_scale, w_scale = scales
        cases.append((x_q, x_scale, w_q, w_scale))
    return cases


def _linear_int8(x_q, x_scale, w_q, w_scale):
    """Let the library's layer multiply the inputs that the integers stand for, as floats."""
    scale = torch.from_numpy(np.array(w_scale))[:, None]
    layer = quantization.QuantizedLinear.from_integers(torch.tensor(w_q), scale, None, bits=8)
    x = torch.from_numpy(x_q * x_scale[:, None].astype(float))
    return layer.double()(x).float().numpy()


def _from_sums(sums, finish=lambda sums, x_scale, w_scale: sums * x_scale[:, None] * w_scale):
    """Return an answer with other sums, or with scales that meet them in another way."""

    def wrong(x_q, x_scale, w_q, w_scale):
        found = sums(x_q.astype(int), w_q.astype(int))
        return finish(found, x_scale, w_scale).astype(np.float32)

    return wrong


def _exact(x, w):
    return x @ w.T


def _whole_fours(x, w):
    end = x.shape[1] // 4 * 4
    return x[:, :end] @ w[:, :end].T


LINEAR_INT8_MISTAKES = {
    "products_in_bytes": _from_sums(
        lambda x, w: (x[:, None] * w).astype(np.int8).astype(int).sum(axis=2)
    ),
    "sums_in_bytes": _from_sums(lambda x, w: _exact(x, w).astype(np.int8)),
    "sums_in_16_bits": _from_sums(lambda x, w: _exact(x, w).astype(np.int16)),
    "no_scales": _from_sums(_exact, lambda sums, x_scale, w_scale: sums),
    "x_scale_missing": _from_sums(_exact, lambda sums, x_scale, w_scale: sums * w_scale),
    "w_scale_missing": _from_sums(_exact, lambda sums, x_scale, w_scale: sums * x_scale[:, None]),
    "w_scale_twice": _from_sums(
        _exact, lambda sums, x_scale, w_scale: sums * x_scale[:, None] * w_scale**2
    ),
    "x_scale_twice": _from_sums(
        _exact, lambda sums, x_scale, w_scale: sums * x_scale[:, None] ** 2 * w_scale
    ),
    "scales_twice": _from_sums(
        _exact, lambda sums, x_scale, w_scale: sums * (x_scale[:, None] * w_scale) ** 2
    ),
    "w_scale_of_the_row": _from_sums(
        _exact, lambda sums, x_scale, w_scale: sums * (x_scale * w_scale[: len(x_scale)])[:, None]
    ),
    "one_scale_for_all_rows": _from_sums(
        _exact, lambda sums, x_scale, w_scale: sums * x_scale[0] * w_scale
    ),
    "transposed": lambda *case: np.ascontiguousarray(_linear_int8(*case).T),
    "last_input_lost": _from_sums(lambda x, w: _exact(x[:, :-1], w[:, :-1])),
    "only_whole_fours": _from_sums(_whole_fours),
    "total_never_reset": _from_sums(lambda x, w: _exact(x, w).cumsum().reshape(len(x), len(w))),
    "total_not_reset_per_output": _from_sums(lambda x, w: _exact(x, w).cumsum(axis=1)),
    "only_the_last_product": _from_sums(lambda x, w: np.outer(x[:, -1], w[:, -1])),
    "scales_added": _from_sums(
        _exact, lambda sums, x_scale, w_scale: sums * (x_scale[:, None] + w_scale)
    ),
}


LINEAR_INT8 = Exercise("linear_int8", _linear_int8, _linear_int8_cases, LINEAR_INT8_MISTAKES)


# --- worked out by hand, from the numbers of a variant ---


def _slower_side(layer_limits, side, bits, bandwidth, peak):
    moving, computing = layer_limits(side, side, 1, bits, bandwidth * 1e9, peak * 1e9)
    return moving / computing


SHARED_BYTE = ByHand(
    PACK_NIBBLES,
    lambda pack_nibbles, even, odd: int(
        pack_nibbles(torch.tensor([[even, odd]], dtype=torch.int8))[0, 0]
    ),
)
SLOWER_SIDE = ByHand(LAYER_LIMITS, _slower_side)
MOST_INPUTS = ByHand(
    SAFE_INPUTS, lambda safe_inputs, x_bits, w_bits, sum_bits: safe_inputs(x_bits, w_bits, sum_bits)
)
