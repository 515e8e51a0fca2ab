"""Checks of the exercises of chapter 00."""

import math

import numpy as np
import torch

from lightcourse import pruning
from lightcourse.checks.by_hand import ByHand
from lightcourse.checks.cases import dice, normal, whole
from lightcourse.checks.comparing import is_mask
from lightcourse.checks.grading import Exercise, grade


def check_keep_mask(keep_mask) -> bool:
    """Check ``keep_mask(weight, sparsity)``: True where a weight survives magnitude pruning."""
    return grade(keep_mask, KEEP_MASK)


def _keep_mask_cases(seed):
    roll = dice(seed)
    cases = [
        (normal(*shape, seed=roll.randrange(2**31)), sparsity)
        for shape, sparsity in [
            ((4, 5), 0.28),
            ((4, 5), 0.21),
            ((7, 3), 2 / 3),
            ((2, 2, 2), 0.0),
            ((6,), 1.0),
            ((5,), 0.5),  # 2.5 weights: round(...) makes 2 of it
            ((3, 5), 0.5),
            ((roll.randint(3, 6), 7), roll.uniform(0.1, 0.9)),
        ]
    ]
    # Many weights of equal size: a threshold would remove all of them, or none.
    cases.append((whole(-2, 3, 5, 6, seed=roll.randrange(2**31)).float(), 0.45))
    return cases


def _keep_mask(weight, sparsity):
    return pruning.layer_mask(weight.abs(), sparsity)


def _last_to_go(weight, sparsity):
    """Return the size of the largest weight that is removed."""
    remove = round(sparsity * weight.numel())
    return weight.abs().flatten().sort().values[remove - 1] if remove else -1.0


def keeps_alike(answer, wanted, weight) -> bool:
    """Tell whether two masks keep equally many weights, of the same sizes.

    Of equal sizes any may go, so several masks are right.
    """
    if not (is_mask(answer, weight) and is_mask(wanted, weight)):
        return False
    kept, best = (weight.abs()[torch.as_tensor(m)].sort().values for m in (answer, wanted))
    return torch.equal(kept, best)


KEEP_MASK_MISTAKES = {
    "compares_signed_weights": lambda weight, sparsity: pruning.layer_mask(weight, sparsity),
    "mask_upside_down": lambda weight, sparsity: ~_keep_mask(weight, sparsity),
    "keeps_the_small": lambda weight, sparsity: pruning.layer_mask(-weight.abs(), sparsity),
    "keeps_the_fraction": lambda weight, sparsity: _keep_mask(weight, 1 - sparsity),
    "row_by_row": lambda weight, sparsity: pruning.row_mask(weight.abs(), sparsity),
    "rounds_down": (
        lambda weight, sparsity: pruning.layer_mask(
            weight.abs(), int(sparsity * weight.numel() + 1e-9) / weight.numel()
        )
    ),
    "rounds_up": (
        lambda weight, sparsity: pruning.layer_mask(
            weight.abs(), math.ceil(sparsity * weight.numel() - 1e-9) / weight.numel()
        )
    ),
    "halves_up": (
        lambda weight, sparsity: pruning.layer_mask(
            weight.abs(), math.floor(sparsity * weight.numel() + 0.5) / weight.numel()
        )
    ),
    "threshold_takes_ties": lambda weight, sparsity: weight.abs() > _last_to_go(weight, sparsity),
    "fraction_of_the_largest": (
        lambda weight, sparsity: weight.abs() > sparsity * weight.abs().max()
    ),
}


KEEP_MASK = Exercise(
    "keep_mask",
    _keep_mask,
    _keep_mask_cases,
    KEEP_MASK_MISTAKES,
    lambda answer, wanted, weight, sparsity: keeps_alike(answer, wanted, weight),
)


def check_stored_bytes(stored_bytes) -> bool:
    """Check ``stored_bytes(rows, columns, bits, group_size)``: packed integers plus scales."""
    return grade(stored_bytes, STORED_BYTES)


def _stored_bytes_cases(seed):
    roll = dice(seed)
    cases = [(6, 64, 4, 32), (10, 96, 8, 96), (384, 384, 4, 64), (3, 40, 2, 8), (5, 48, 3, 16)]
    for bits in (2, 3, 4, 5, 6):
        groups, group_size = roll.randint(2, 9), 8 * roll.randint(1, 8)
        cases.append((roll.randint(2, 50), groups * group_size, bits, group_size))
    return cases


def _stored_bytes(rows, columns, bits, group_size):
    """Make such integers, bit for bit, and such scales, and ask NumPy for their bytes."""
    integers = np.packbits(np.zeros((rows, columns * bits), np.uint8), axis=1)
    scales = np.zeros((rows, columns // group_size), np.float16)
    return integers.nbytes + scales.nbytes


STORED_BYTES_MISTAKES = {
    "no_scales": lambda rows, columns, bits, group_size: rows * columns * bits // 8,
    "bits_not_bytes": (
        lambda rows, columns, bits, group_size: (
            rows * columns * bits + rows * (columns // group_size) * 16
        )
    ),
    "scale_per_row": lambda rows, columns, bits, group_size: rows * columns * bits // 8 + rows * 2,
    "byte_per_integer": (
        lambda rows, columns, bits, group_size: rows * columns + rows * (columns // group_size) * 2
    ),
    "three_bits_as_four": (
        lambda rows, columns, bits, group_size: _stored_bytes(
            rows, columns, 1 << (bits - 1).bit_length(), group_size
        )
    ),
    "scale_of_1_byte": (
        lambda rows, columns, bits, group_size: (
            rows * columns * bits // 8 + rows * (columns // group_size)
        )
    ),
    "scale_of_4_bytes": (
        lambda rows, columns, bits, group_size: (
            rows * columns * bits // 8 + rows * (columns // group_size) * 4
        )
    ),
}


STORED_BYTES = Exercise("stored_bytes", _stored_bytes, _stored_bytes_cases, STORED_BYTES_MISTAKES)


def check_lora_ledger(lora_ledger) -> bool:
    """Check ``lora_ledger(inputs, outputs, rank)``: (trained, stored beside, stored merged)."""
    return grade(lora_ledger, LORA_LEDGER)


def _lora_ledger_cases(seed):
    roll = dice(seed)
    drawn = (roll.randint(2, 500), roll.randint(501, 900), roll.randint(2, 16))
    return [(384, 384, 8), (384, 1536, 4), (10, 6, 1), drawn]


def _lora_ledger(inputs, outputs, rank):
    """Make the three matrices, and count the entries of all and of what merging leaves."""
    frozen, a, b = np.zeros((outputs, inputs)), np.zeros((rank, inputs)), np.zeros((outputs, rank))
    return a.size + b.size, frozen.size + a.size + b.size, (frozen + b @ a).size


LORA_LEDGER_MISTAKES = {
    "merged_keeps_update": (
        lambda inputs, outputs, rank: (
            rank * (inputs + outputs),
            inputs * outputs + rank * (inputs + outputs),
            inputs * outputs + rank * (inputs + outputs),
        )
    ),
    "frozen_not_stored": (
        lambda inputs, outputs, rank: (
            rank * (inputs + outputs),
            rank * (inputs + outputs),
            inputs * outputs,
        )
    ),
    "frozen_trained": (
        lambda inputs, outputs, rank: (
            inputs * outputs + rank * (inputs + outputs),
            inputs * outputs + rank * (inputs + outputs),
            inputs * outputs,
        )
    ),
    "without_b": (
        lambda inputs, outputs, rank: (
            rank * inputs,
            inputs * outputs + rank * inputs,
            inputs * outputs,
        )
    ),
    "order_swapped": (
        lambda inputs, outputs, rank: (
            rank * (inputs + outputs),
            inputs * outputs,
            inputs * outputs + rank * (inputs + outputs),
        )
    ),
    "bytes_not_parameters": (
        lambda inputs, outputs, rank: tuple(
            4 * entry for entry in _lora_ledger(inputs, outputs, rank)
        )
    ),
    "multiplied": (
        lambda inputs, outputs, rank: (
            rank * inputs * outputs,
            inputs * outputs + rank * inputs * outputs,
            inputs * outputs,
        )
    ),
}


LORA_LEDGER = Exercise("lora_ledger", _lora_ledger, _lora_ledger_cases, LORA_LEDGER_MISTAKES)


def check_choose_row(choose_row) -> bool:
    """Check ``choose_row(rows, most_bytes, most_ms, margin)``: what to ship for a budget."""
    return grade(choose_row, CHOOSE_ROW)


def _choose_row_cases(seed):
    roll = dice(seed)
    names = roll.sample(["whole", "halves", "bytes", "nibbles", "thin", "short", "mixed"], 7)
    # Qualities and margins are of sixteenths, so that a gap of just the margin is exact.
    table = [
        (90, 16, 13),
        (60, 12, 12),
        (52, 24, 11),
        (30, 5, 8),
        (25, 6, 9),
        (14, 8, 7),
        (8, 4, 2),
    ]
    rows = [(n, b * 10**6, ms, q / 16) for n, (b, ms, q) in zip(names, table, strict=True)]
    turned, mega = [rows[1], rows[0], *rows[2:]], 10**6
    return [
        (rows, 100 * mega, 50.0, 0.125),  # 52 MB lie just within the margin
        (turned, 100 * mega, 50.0, 0.125),
        (rows[::-1], 100 * mega, 50.0, 0.125),
        (rows, 100 * mega, 50.0, 0.0),
        (rows, 60 * mega, 12, 0.0),  # fits by a hair's breadth, twice
        (rows[::-1], 55 * mega, 10.0, 0.0625),  # the best of all does not fit
        (rows, 100 * mega, 10.0, 0.0),
        (rows, 20 * mega, 50.0, 0.25),
        (rows, 5 * mega, 50.0, 0.125),  # none fits
        (rows, 100 * mega, 3.0, 0.125),
        (rows, roll.randint(9, 80) * mega, roll.randint(5, 23), roll.randint(0, 4) / 16),
    ]


def _choose_row(rows, most_bytes, most_ms, margin):
    """Go from the smallest row up, and stop where no fitting row is clearly better."""

    def fits(row):
        return not (row[1] > most_bytes or row[2] > most_ms)

    def unbeaten(row):
        return not any(fits(other) and other[3] > row[3] + margin for other in rows)

    names = (r[0] for r in sorted(rows, key=lambda r: r[1]) if fits(r) and unbeaten(r))
    return next(names, "none")


def _best_of_all(rows, most_bytes, most_ms, margin):
    """Compare with the best row, whether it fits or not."""
    best = max(row[3] for row in rows)
    close = [row for row in rows if row[3] >= best - margin]
    return _choose_row(close, most_bytes, most_ms, margin)


def _by(key):
    """Return what chooses among the fitting rows that are as good as the best by another key."""

    def wrong(rows, most_bytes, most_ms, margin):
        fitting = [row for row in rows if row[1] <= most_bytes and row[2] <= most_ms]
        best = max((row[3] for row in fitting), default=0)
        return min((r for r in fitting if r[3] >= best - margin), key=key, default=["none"])[0]

    return wrong


CHOOSE_ROW_MISTAKES = {
    "ignores_the_margin": (
        lambda rows, most_bytes, most_ms, margin: _choose_row(rows, most_bytes, most_ms, 0.0)
    ),
    "ignores_quality": (
        lambda rows, most_bytes, most_ms, margin: _choose_row(rows, most_bytes, most_ms, 1.0)
    ),
    "ignores_bytes": (
        lambda rows, most_bytes, most_ms, margin: _choose_row(rows, 1e12, most_ms, margin)
    ),
    "ignores_time": (
        lambda rows, most_bytes, most_ms, margin: _choose_row(rows, most_bytes, 1e12, margin)
    ),
    "best_of_all_rows": _best_of_all,
    "fastest_not_smallest": _by(lambda row: row[2]),
    "largest_not_smallest": _by(lambda row: -row[1]),
    "first_in_the_list": _by(lambda row: 0),
    "strict_budgets": (
        lambda rows, most_bytes, most_ms, margin: _choose_row(
            [row for row in rows if row[1] < most_bytes and row[2] < most_ms], 1e12, 1e12, margin
        )
    ),
}


CHOOSE_ROW = Exercise("choose_row", _choose_row, _choose_row_cases, CHOOSE_ROW_MISTAKES)


# What is worked out by hand, from the numbers of a variant
STORED_BITS = ByHand(
    STORED_BYTES,
    lambda stored_bytes, side, bits, group: stored_bytes(side, side, bits, group) * 8 / side**2,
)
LORA_NUMBERS = ByHand(
    LORA_LEDGER, lambda lora_ledger, inputs, outputs, rank: lora_ledger(inputs, outputs, rank)
)
