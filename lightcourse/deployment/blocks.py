"""Our integers as ggml's blocks of 32: the bytes that llama.cpp multiplies by.

A block holds 32 neighbours of a row. Its scale d, and in Q4_1 its smallest value m, are float16
before the integers:

====  =====  ==============================================  ==============
kind  bytes  what it holds                                   a weight is
====  =====  ==============================================  ==============
Q8_0  34     d, 32 int8                                      d · q
Q4_0  18     d, 16 bytes: q₀ and q₁₆ in the first, …         d · (q - 8)
Q4_1  20     d, m, 16 bytes in the same order                d · q + m
====  =====  ==============================================  ==============
"""

import numpy as np
import torch

from lightcourse.integers import IntegerMatrix

BLOCK = 32
TINIEST = 2.0**-24  # of the numbers that float16 holds
LARGEST = 65504


def kind_of(matrix: IntegerMatrix) -> str:
    """Return the kind of block that holds a matrix's integers as they are.

    Raises
    ------
    ValueError
        When none does: 8 bits without zero points fit, and 4 bits, in groups that whole
        blocks fill.
    """
    kind = {(8, True): "Q8_0", (4, True): "Q4_0", (4, False): "Q4_1"}.get(
        (matrix.bits, matrix.symmetric)
    )
    if kind is None:
        points = "without" if matrix.symmetric else "with"
        raise ValueError(
            f"it has {matrix.bits} bits {points} zero points; 8 without, or 4, are wanted"
        )
    _check_width(matrix.shape[1])
    if (matrix.group_size or matrix.shape[1]) % BLOCK:
        raise ValueError(f"its group_size is {matrix.group_size}; a multiple of 32 is wanted")
    return kind


def of_integers(matrix: IntegerMatrix) -> np.ndarray:
    """Return a matrix's integers as blocks of :func:`kind_of`, a row of bytes for each row.

    The integers are kept. Scales, and what Q4_1 adds, are rounded to float16, by 2⁻¹¹ of
    themselves or by 2⁻²⁵, whichever is more. So a weight w moves by |w| · 2⁻¹¹ at most in Q8_0
    where the scales were float32 (or by 2⁻¹⁸, where a scale is below 6e-5), not at all in
    Q4_0, whose scales are float16 here, too, and in Q4_1 by d · 15 · 2⁻¹¹, under a hundredth
    of a step: but all 32 weights of the block by the same.

    Returns
    -------
    ndarray of uint8, shape (rows, bytes of a row)

    Raises
    ------
    ValueError
        As :func:`kind_of`, or when float16 does not hold a scale.
    """
    kind, (rows, columns) = kind_of(matrix), matrix.shape
    repeats = columns // BLOCK // matrix.scales().shape[1]  # wider groups say it block by block
    scale = matrix.scales().cpu().repeat_interleave(repeats, 1).numpy()
    q = matrix.integers().cpu().numpy().reshape(rows, -1, BLOCK)
    heads = [_halves(scale)]
    if kind == "Q4_1":
        lowest = -8 - matrix.zero_points().cpu().repeat_interleave(repeats, 1).numpy()
        heads.append(_halves(scale * lowest))
    body = q.view(np.uint8) if kind == "Q8_0" else _by_twos((q + 8).view(np.uint8))
    return np.concatenate([*heads, body], axis=2).reshape(rows, -1)


def _halves(values):
    """Return the bytes of float16 numbers: shape (rows, blocks, 2)."""
    if np.abs(values).max() > LARGEST:
        raise ValueError(f"its scales reach {np.abs(values).max():.3g}, which no float16 holds")
    return values.astype("<f2")[..., None].view(np.uint8)


def _by_twos(q):
    """Put the second half of each block above the first, 4 bits each."""
    return q[..., : BLOCK // 2] | q[..., BLOCK // 2 :] << 4


def of_floats(weight: torch.Tensor, kind: str) -> np.ndarray:
    """Return a matrix of floats in a kind of GGUF, rounded by that kind's own rule.

    That is ggml's: in Q8_0 the largest value becomes ±127, in Q4_0 -8, in Q4_1 the smallest
    and the largest become 0 and 15.

    Parameters
    ----------
    weight : Tensor of floats, shape (rows, columns) or (columns,)
    kind : str
        ``"F32"``, ``"F16"``, ``"Q8_0"``, ``"Q4_0"`` or ``"Q4_1"``.

    Returns
    -------
    ndarray
        float32, float16, or uint8 of shape (rows, bytes of a row).

    Raises
    ------
    ValueError
        When the weight is not finite, too large for float16, or too narrow for whole blocks.
    """
    from gguf import GGMLQuantizationType, quants

    values = weight.detach().float().cpu().numpy()
    if not np.isfinite(values).all():
        raise ValueError("it holds NaN or infinity; finite values are wanted")
    if kind == "F32":
        return values
    if np.abs(values).max() > LARGEST:
        raise ValueError(f"it reaches {np.abs(values).max():.3g}, which no float16 holds")
    if kind == "F16":
        return values.astype(np.float16)
    _check_width(values.shape[1])
    # So small a scale's inverse would be infinite.
    kept = np.where(np.abs(values) < TINIEST, np.float32(0), values)
    return quants.quantize(kept, GGMLQuantizationType[kind])


def _check_width(columns):
    if columns % BLOCK:
        raise ValueError(f"it is {columns} columns wide; a multiple of 32 is wanted")
