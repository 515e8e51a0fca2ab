"""Checks of the exercises of chapter 00."""

import torch

from lightcourse import pruning
from lightcourse.checks.grading import grade


def check_keep_mask(keep_mask) -> bool:
    """Check ``keep_mask(weight, sparsity)``: True where a weight survives magnitude pruning."""
    generator = torch.Generator().manual_seed(3)
    cases = [
        (torch.randn(shape, generator=generator), sparsity)
        for shape, sparsity in [((4, 5), 0.28), ((7, 3), 2 / 3), ((2, 8), 0.0), ((6,), 1.0)]
    ]
    return grade(keep_mask, _keep_mask, cases, KEEP_MASK_MISTAKES)


def _keep_mask(weight, sparsity):
    return pruning.layer_mask(weight.abs(), sparsity)


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
    "sparsity is a fraction of the weights, not of the largest weight": (
        lambda weight, sparsity: weight.abs() > sparsity * weight.abs().max()
    ),
}


def check_stored_bytes(stored_bytes) -> bool:
    """Check ``stored_bytes(rows, columns, bits, group_size)``: packed integers plus scales."""
    cases = [(6, 64, 4, 32), (10, 96, 8, 96), (384, 384, 4, 64), (3, 40, 2, 8)]
    return grade(stored_bytes, _stored_bytes, cases, STORED_BYTES_MISTAKES)


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


def check_lora_ledger(lora_ledger) -> bool:
    """Check ``lora_ledger(inputs, outputs, rank)``: (trained, stored beside, stored merged)."""
    cases = [(384, 384, 8), (384, 1536, 4), (10, 6, 1)]
    return grade(lora_ledger, _lora_ledger, cases, LORA_LEDGER_MISTAKES)


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
