"""Checks of the exercises of chapter 05."""

import torch

from lightcourse import quantization
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
    "bytes are multiplied as bytes: 200 · 200 does not fit, so widen before multiplying": (
        lambda x, w, x_zero, w_zero, x_scale, w_scale: (
            x_scale * w_scale * ((x - x_zero) * (w - w_zero)).sum().item()
        )
    ),
    "the products wrap: x · w of two uint8 is a uint8 again, so widen before multiplying": (
        lambda x, w, x_zero, w_zero, x_scale, w_scale: (
            _without((1, -1, -1))(x, w, x_zero, w_zero, x_scale, w_scale)
            + x_scale * w_scale * ((x * w).long() - x.long() * w.long()).sum().item()
        )
    ),
    "a zero point is subtracted from a byte, which has nothing below 0: widen before that": (
        lambda x, w, x_zero, w_zero, x_scale, w_scale: (
            x_scale * w_scale * ((x - x_zero).long() * (w - w_zero).long()).sum().item()
        )
    ),
    "the zero points are forgotten: what is stored is q, and q - zero_point is meant": (
        _without((0, 0, 0))
    ),
    "the term K · x_zero · w_zero is missing: both corrections took it away": _without((0, -1, -1)),
    "the product of both zero points is counted once: it is there for each of the K inputs": (
        lambda x, w, x_zero, w_zero, x_scale, w_scale: (
            _without((0, -1, -1))(x, w, x_zero, w_zero, x_scale, w_scale)
            + x_scale * w_scale * x_zero * w_zero
        )
    ),
    "the zero points are added: q - zero_point is meant": _without((1, 1, 1)),
    "w's zero point is missing": _without((0, 0, -1)),
    "x's zero point is missing": _without((0, -1, 0)),
    "each zero point meets the other sum: w_zero goes with Σx, x_zero with Σw": (
        lambda x, w, x_zero, w_zero, x_scale, w_scale: _without((1, -1, -1))(
            x, w, w_zero, x_zero, x_scale, w_scale
        )
    ),
    "the scales are added: each product carries both, so they multiply": (
        lambda x, w, x_zero, w_zero, x_scale, w_scale: (
            (x_scale + w_scale) * _integer_dot(x, w, x_zero, w_zero, 1, 1)
        )
    ),
    "the scales are missing: the sum is in steps, y is in units": (
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
    "the halves are swapped: even places (the first of two) belong into the low half": (
        lambda q: _joined(_filled(q)[..., 1::2] & 15, _filled(q)[..., 0::2] & 15)
    ),
    "negative numbers are not cut to 4 bits: -1 is 11111111, and its ones cover the other half": (
        lambda q: _joined(_filled(q)[..., 0::2], _filled(q)[..., 1::2])
    ),
    "it stores q + 8: here the two's complement is wanted, q & 15": (
        lambda q: _joined(_filled(q)[..., 0::2] + 8, _filled(q)[..., 1::2] + 8)
    ),
    "an odd number of values loses its last one: fill up with a 0": (
        lambda q: _joined(q[..., 0 : q.shape[-1] // 2 * 2 : 2] & 15, q[..., 1::2] & 15)
    ),
    "it joins the first half of the row with the second: neighbours share a byte": _pack_halves,
    "the size of a number is stored without its sign: abs() loses it": (
        lambda q: _joined(_filled(q)[..., 0::2].abs(), _filled(q)[..., 1::2].abs())
    ),
    "uint8 is wanted, the type whose values are bytes": (
        lambda q: _joined(_filled(q)[..., 0::2] & 15, _filled(q)[..., 1::2] & 15).int()
    ),
    "nothing is shared: one byte for each value": (lambda q: (q.long() & 15).to(torch.uint8)),
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
    "the sign is lost: 15 stands for -1, and 8 for -8": (
        lambda packed, length: _woven(*_halves(packed))[..., :length]
    ),
    "it subtracts 8: these are two's complement, in which 0 is 0 and 15 is -1": (
        lambda packed, length: _woven(*_halves(packed))[..., :length] - 8
    ),
    "the halves are swapped: the low half comes first": (
        lambda packed, length: _signed(_woven(*_halves(packed)[::-1]))[..., :length]
    ),
    "all low halves come first, then all high ones: they must alternate": (
        lambda packed, length: _signed(torch.cat(_halves(packed), dim=-1))[..., :length]
    ),
    "length is not used: an odd row comes back one too long": (
        lambda packed, length: _signed(_woven(*_halves(packed)))
    ),
    "all values from 7 on become negative: 7 itself still fits": (
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
    read = inputs * outputs * bits / 8 + 4 * rows * (inputs + outputs)
    return read / bandwidth, 2 * inputs * outputs * rows / peak


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
    "the order is: seconds for reading and writing, seconds for computing": (
        lambda *case: _layer_limits(*case)[::-1]
    ),
    "weights are counted in bits: 8 bits make one byte": _limits(
        lambda size, rows, bits: size * bits, _row_bytes, lambda size, rows: 2 * size * rows
    ),
    "one weight and one input make two operations, a multiplication and an addition": _limits(
        lambda size, rows, bits: size * bits / 8, _row_bytes, lambda size, rows: size * rows
    ),
    "the weights are read once for all rows, not once for each": _limits(
        lambda size, rows, bits: size * bits / 8 * rows,
        _row_bytes,
        lambda size, rows: 2 * size * rows,
    ),
    "x and y are missing: they too are read and written, 4 bytes a number": _limits(
        lambda size, rows, bits: size * bits / 8,
        lambda *case: 0,
        lambda size, rows: 2 * size * rows,
    ),
    "y is missing: what is written goes through the memory as well": _limits(
        lambda size, rows, bits: size * bits / 8,
        lambda inputs, outputs, rows, bits: 4 * rows * inputs,
        lambda size, rows: 2 * size * rows,
    ),
    "x and y are float32 here, 4 bytes a number: bits is the width of the weights": _limits(
        lambda size, rows, bits: size * bits / 8,
        lambda inputs, outputs, rows, bits: rows * (inputs + outputs) * bits / 8,
        lambda size, rows: 2 * size * rows,
    ),
    "the operations of one row are counted: every row multiplies with every weight": _limits(
        lambda size, rows, bits: size * bits / 8, _row_bytes, lambda size, rows: 2 * size
    ),
    "it is upside down: bytes divided by bytes a second are seconds": (
        lambda *case: tuple(1 / seconds for seconds in _layer_limits(*case))
    ),
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
    return w.long() + 128, -128 * x.long().sum(dim=1)


OFFSET_PARTS_MISTAKES = {
    "the sums start at +128 Σx: the offset added that much, so it must be taken away": (
        lambda x, w: (w.long() + 128, 128 * x.long().sum(dim=1))
    ),
    "the start has 128 times the sum of w: it was w that got the offset, and x meets it": (
        lambda x, w: (w.long() + 128, -128 * w.long().sum(dim=1))
    ),
    "-128 Σx is there for each *row* of x (dim=1), not for each input (dim=0)": (
        lambda x, w: (w.long() + 128, -128 * x.long().sum(dim=0))
    ),
    "all rows share one start here: each row of x needs its own sum": (
        lambda x, w: (w.long() + 128, -128 * x.long().sum())
    ),
    "the start lacks the factor: each input was multiplied with 128 too much": (
        lambda x, w: (w.long() + 128, -x.long().sum(dim=1))
    ),
    "127 leaves -128 below 0: 128 makes -128..127 into 0..255": (
        lambda x, w: (w.long() + 127, -127 * x.long().sum(dim=1))
    ),
    "128 does not fit into int8: the bytes wrap, so widen w first": (
        lambda x, w: ((w + 128).long(), _offset_parts(x, w)[1])
    ),
    "int8 cannot hold Σx · 128: widen x before multiplying": (
        lambda x, w: (w.long() + 128, (-128 * x).sum(dim=1))
    ),
    "the weights are still signed: the instruction wants bytes from 0 to 255": (
        lambda x, w: (w.long(), torch.zeros(len(x), dtype=torch.int64))
    ),
    "that is the mean of x: the offset came with each of the K inputs, so take their sum": (
        lambda x, w: (w.long() + 128, -128 * x.double().mean(dim=1))
    ),
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
    return _most(2**x_bits - 1, 2 ** (w_bits - 1), sum_bits)


def _most(x, w, sum_bits):
    """Return how many products of ``x`` by ``-w`` to ``w - 1`` a signed sum holds."""
    limit = 2 ** (sum_bits - 1)
    below = limit // (x * w)
    return min(below, (limit - 1) // (x * (w - 1))) if w > 1 else below


SAFE_INPUTS_MISTAKES = {
    "x is unsigned here: it reaches 2^x_bits - 1, twice as far as a signed one": (
        lambda x_bits, w_bits, sum_bits: (
            (2 ** (sum_bits - 1) - 1) // (2 ** (x_bits - 1) * 2 ** (w_bits - 1))
        )
    ),
    "the sum is signed: one of its bits is the sign, so it ends at 2^(sum_bits - 1)": (
        lambda x_bits, w_bits, sum_bits: (2**sum_bits - 1) // ((2**x_bits - 1) * 2 ** (w_bits - 1))
    ),
    "w is signed here: it reaches -2^(w_bits - 1), not 2^w_bits": (
        lambda x_bits, w_bits, sum_bits: (
            (2 ** (sum_bits - 1) - 1) // ((2**x_bits - 1) * (2**w_bits - 1))
        )
    ),
    "the worst weight is -2^(w_bits - 1), one further from 0 than the largest": (
        lambda x_bits, w_bits, sum_bits: (
            (2 ** (sum_bits - 1) - 1) // ((2**x_bits - 1) * (2 ** (w_bits - 1) - 1))
        )
    ),
    "that counts bits, which rounds everything to powers of two: divide the true limits": (
        lambda x_bits, w_bits, sum_bits: 2 ** max(sum_bits - x_bits - w_bits, 0)
    ),
    "so many no longer fit: that is the first number that overflows, one less is safe": (
        lambda x_bits, w_bits, sum_bits: _safe_inputs(x_bits, w_bits, sum_bits) + 1
    ),
    "the largest K rounds down: // is wanted, a K that is rounded up overflows": (
        lambda x_bits, w_bits, sum_bits: round(
            2 ** (sum_bits - 1) / ((2**x_bits - 1) * 2 ** (w_bits - 1))
        )
    ),
    "the negative end is one further away: 32,768 below 0, 32,767 above": (
        lambda x_bits, w_bits, sum_bits: (
            (2 ** (sum_bits - 1) - 1) // ((2**x_bits - 1) * 2 ** (w_bits - 1))
        )
    ),
    "it asks for the typical case, which grows with √K: the worst one is wanted": (
        lambda x_bits, w_bits, sum_bits: _safe_inputs(x_bits, w_bits, sum_bits) ** 2
    ),
}


SAFE_INPUTS = Exercise("safe_inputs", _safe_inputs, _safe_inputs_cases, SAFE_INPUTS_MISTAKES)
