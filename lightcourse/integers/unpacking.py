"""Integers out of the order of panels, in torch's own operations: a graph can hold them.

The twins of ``unpack_w8``, ``unpack_w4`` and ``unpack_groups`` of :mod:`lightcourse.panels`,
on any device, traced as well as run.
"""

import torch

from lightcourse import panels


def offset(bits: int) -> int:
    """Return what is added to integers so that they are stored unsigned."""
    return panels.OFFSET_W4 if bits <= 4 else panels.OFFSET_W8


def is_traced(x: torch.Tensor) -> bool:
    """Tell whether ``x`` stands for values that are not there, or not there yet."""
    traced = torch.compiler.is_compiling() or torch.jit.is_tracing()
    return traced or x.is_meta or type(x) is not torch.Tensor


def stored(qweight: torch.Tensor, shape: tuple[int, int], bits: int) -> torch.Tensor:
    """Return the integers plus their offset, row by row: uint8 of that shape."""
    if bits <= 4:
        qweight = halves(qweight)
    rows = qweight.transpose(1, 2).flatten(2).flatten(0, 1)
    return rows[: shape[0], : shape[1]]


def halves(blocks: torch.Tensor) -> torch.Tensor:
    """Part two 4-bit values a byte: shape (n, blocks, ...) becomes (n, 2 * blocks, ...)."""
    # torch 2.13 exports a shift of uint8 with a wrong type; a division takes far longer here.
    high = blocks // 16 if torch.onnx.is_in_onnx_export() else blocks >> 4
    return torch.stack([blocks & 0xF, high], dim=2).flatten(1, 2)


def by_row(values: torch.Tensor, rows: int) -> torch.Tensor:
    """Return scales or zero points as shape (rows, groups), whatever their order."""
    return values if values.ndim == 2 else values.transpose(1, 2).flatten(0, 1)[:rows]


def dequantize(
    qweight: torch.Tensor,
    scale: torch.Tensor,
    zero_point: torch.Tensor | None,
    shape: tuple[int, int],
    bits: int,
) -> torch.Tensor:
    """Return the float32 matrix that the buffers of an IntegerMatrix stand for."""
    q, scale = stored(qweight, shape, bits), by_row(scale, shape[0]).float()
    zero = stored_zeros(zero_point, scale, bits).to(torch.int16)[..., None]
    groups = q.reshape(*scale.shape, -1).to(torch.int16) - zero
    return (groups * scale[..., None]).view(shape)


def stored_zeros(zero_point: torch.Tensor | None, scale: torch.Tensor, bits: int) -> torch.Tensor:
    """Return the zero points plus their offset: uint8 of the shape of ``scale``, by rows."""
    if zero_point is None:
        return torch.full_like(scale, offset(bits), dtype=torch.uint8)
    return by_row(zero_point, len(scale))
