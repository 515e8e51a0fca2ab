"""Checks of the exercises of chapter 00."""

import math

import torch

from lightcourse import pruning
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
    "it compares w, not |w|: all negative weights go first, however large": (
        lambda weight, sparsity: pruning.layer_mask(weight, sparsity)
    ),
    "the mask is upside down: True must mean keep": (
        lambda weight, sparsity: ~_keep_mask(weight, sparsity)
    ),
    "it keeps the small weights and removes the large ones": (
        lambda weight, sparsity: pruning.layer_mask(-weight.abs(), sparsity)
    ),
    "sparsity is the fraction to remove, not the fraction to keep": (
        lambda weight, sparsity: _keep_mask(weight, 1 - sparsity)
    ),
    "the lowest of the whole tensor go, not the lowest of each row": (
        lambda weight, sparsity: pruning.row_mask(weight.abs(), sparsity)
    ),
    "it rounds the number of weights down: round(...) is wanted, int(...) cuts off": (
        lambda weight, sparsity: pruning.layer_mask(
            weight.abs(), int(sparsity * weight.numel() + 1e-9) / weight.numel()
        )
    ),
    "it rounds the number of weights up: round(...) takes the nearest": (
        lambda weight, sparsity: pruning.layer_mask(
            weight.abs(), math.ceil(sparsity * weight.numel() - 1e-9) / weight.numel()
        )
    ),
    "a half goes to the even number in Python: use round(...)": (
        lambda weight, sparsity: pruning.layer_mask(
            weight.abs(), math.floor(sparsity * weight.numel() + 0.5) / weight.numel()
        )
    ),
    "a threshold takes all weights of one size or none: exactly so many must go": (
        lambda weight, sparsity: weight.abs() > _last_to_go(weight, sparsity)
    ),
    "sparsity is a fraction of the weights, not of the largest weight": (
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
    return rows * columns * bits // 8 + rows * (columns // group_size) * 2


STORED_BYTES_MISTAKES = {
    "the scales are missing: each group of weights stores one, in 2 bytes": (
        lambda rows, columns, bits, group_size: rows * columns * bits // 8
    ),
    "that is bits, not bytes: 8 bits make one byte": (
        lambda rows, columns, bits, group_size: (
            rows * columns * bits + rows * (columns // group_size) * 16
        )
    ),
    "there is one scale for each group, not one for each row": (
        lambda rows, columns, bits, group_size: rows * columns * bits // 8 + rows * 2
    ),
    "integers of fewer than 8 bits share a byte here: count bits / 8 bytes for each": (
        lambda rows, columns, bits, group_size: rows * columns + rows * (columns // group_size) * 2
    ),
    "3 bits are packed as tightly as 4: no bit is left empty between them": (
        lambda rows, columns, bits, group_size: _stored_bytes(
            rows, columns, 1 << (bits - 1).bit_length(), group_size
        )
    ),
    "a scale is one float16, which takes 2 bytes, not 1": (
        lambda rows, columns, bits, group_size: (
            rows * columns * bits // 8 + rows * (columns // group_size)
        )
    ),
    "a scale is one float16, which takes 2 bytes, not 4": (
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
    trained = rank * (inputs + outputs)
    return trained, inputs * outputs + trained, inputs * outputs


LORA_LEDGER_MISTAKES = {
    "the merged matrix is as large as before: the update is added into it, not kept": (
        lambda inputs, outputs, rank: (
            rank * (inputs + outputs),
            inputs * outputs + rank * (inputs + outputs),
            inputs * outputs + rank * (inputs + outputs),
        )
    ),
    "the frozen matrix is still stored: LoRA trains less, it does not store less": (
        lambda inputs, outputs, rank: (
            rank * (inputs + outputs),
            rank * (inputs + outputs),
            inputs * outputs,
        )
    ),
    "the frozen matrix is not trained: only A and B are": (
        lambda inputs, outputs, rank: (
            inputs * outputs + rank * (inputs + outputs),
            inputs * outputs + rank * (inputs + outputs),
            inputs * outputs,
        )
    ),
    "B is missing: the update is two matrices, A and B": (
        lambda inputs, outputs, rank: (
            rank * inputs,
            inputs * outputs + rank * inputs,
            inputs * outputs,
        )
    ),
    "the order is: trained, stored beside, stored merged": (
        lambda inputs, outputs, rank: (
            rank * (inputs + outputs),
            inputs * outputs,
            inputs * outputs + rank * (inputs + outputs),
        )
    ),
    "count parameters, not bytes": (
        lambda inputs, outputs, rank: tuple(
            4 * entry for entry in _lora_ledger(inputs, outputs, rank)
        )
    ),
    "A has rank x inputs values and B has outputs x rank: add them, don't multiply": (
        lambda inputs, outputs, rank: (
            rank * inputs * outputs,
            inputs * outputs + rank * inputs * outputs,
            inputs * outputs,
        )
    ),
}


LORA_LEDGER = Exercise("lora_ledger", _lora_ledger, _lora_ledger_cases, LORA_LEDGER_MISTAKES)
