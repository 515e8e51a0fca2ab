"""Finished integers, with their scales and zero points, as the bytes that are stored."""

import torch

from lightcourse import panels
from lightcourse.integers.unpacking import offset

INTEGERS = (torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8)
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def quant_range(bits: int) -> tuple[int, int]:
    """Return ``quant_min, quant_max``, the signed integers that ``bits`` bits can hold.

    Raises
    ------
    ValueError
        When ``bits`` is not a whole number from 2 to 8.

    Examples
    --------
    >>> quant_range(4)
    (-8, 7)
    """
    if bits not in range(2, 9):
        raise ValueError(f"bits is {bits}; a whole number from 2 to 8 is wanted")
    return -(2 ** (int(bits) - 1)), 2 ** (int(bits) - 1) - 1


def storable(scale: torch.Tensor, bits: int) -> torch.Tensor:
    """Return scales, in float32, that :func:`pack` keeps as they are: round a matrix by these.

    Up to 4 bits it keeps float16. What would become 0 there becomes 1: its values all round
    to 0.

    Raises
    ------
    ValueError
        When a scale is not finite, or too large for what is kept.
    """
    stored = _as_stored(scale, bits)
    return torch.where(stored == 0, 1, stored).float()


def _as_stored(scale, bits):
    kept = torch.float16 if bits <= 4 else torch.float32
    stored = scale.to(kept)
    if not torch.isfinite(stored).all():
        raise ValueError(f"scale reaches {scale.abs().max():.3g}, which no {kept} holds")
    return stored


def pack(
    q: torch.Tensor,
    scale: torch.Tensor,
    zero_point: torch.Tensor | None,
    bits: int,
    halves: bool = False,
) -> dict[str, torch.Tensor]:
    """Pack finished integers into the buffers of an :class:`IntegerMatrix`.

    Parameters
    ----------
    q : Tensor of integers, shape (rows, columns)
        From quant_min to quant_max of ``bits``; up to 4 bits two share a byte. A layer's rows
        are its outputs, in GPT-2's ``Conv1D`` as well.
    scale : Tensor of floats, shape (rows, groups)
        Each for columns / groups neighbours in a row; not 0, but of either sign. Up to 4
        bits stored as float16: see :func:`storable`.
    zero_point : Tensor of integers, shape (rows, groups), or None
        From quant_min to quant_max; None where it is 0 everywhere.
    bits : int
        2 to 8.
    halves : bool
        True: above 4 bits, too, scales are stored as float16 in the order of panels, as
        :func:`lightcourse.kernels.linear_w8a8_grouped` wants them; without zero points. A
        group whose scale float16 would store as 0 (its values lie below 4e-6) is stored as
        zeros.

    Returns
    -------
    dict of str to Tensor
        ``qweight``, ``scale`` and, unless None, ``zero_point``, where ``q`` lies.

    Raises
    ------
    ValueError
        When a shape, a type or a value is wrong: a scale, too, that would be stored as 0.

    Examples
    --------
    >>> from lightcourse.integers.unpacking import dequantize
    >>> q = torch.tensor([[7, -8, 3, 0]])
    >>> buffers = pack(q, torch.tensor([[0.5]]), None, bits=4)
    >>> dequantize(buffers["qweight"], buffers["scale"], None, q.shape, bits=4).tolist()
    [[3.5, -4.0, 1.5, 0.0]]
    """
    _check("q", q, bits)
    _check_scale(scale, q.shape)
    if zero_point is not None:
        _check("zero_point", zero_point, bits)
        if zero_point.shape != scale.shape:
            raise ValueError(_wrong("zero_point", zero_point, f"the scale's {tuple(scale.shape)}"))
    if halves and bits > 4:
        return _in_halves(q, scale, bits)
    parts = {"qweight": _packed_integers(q, bits), "scale": _packed_scale(scale, bits)}
    if zero_point is not None:
        parts["zero_point"] = _packed_zeros(zero_point, bits)
    return {name: part.to(q.device) for name, part in parts.items()}


def _in_halves(q, scale, bits):
    """Store integers of more than 4 bits, and scales as those of 4 bits are stored."""
    scale = scale.detach().cpu()
    lost = (scale.half() == 0).repeat_interleave(q.shape[1] // scale.shape[1], 1)
    integers = _packed_integers(q.cpu().masked_fill(lost, 0), bits)
    parts = {"qweight": integers, "scale": _packed_scale(storable(scale, 4), 4)}
    return {name: part.to(q.device) for name, part in parts.items()}


def _check(name, values, bits):
    """Raise unless ``values`` is a matrix of integers that fit so many bits."""
    quant_min, quant_max = quant_range(bits)
    if _kind(values) not in INTEGERS:
        raise ValueError(f"{name} is {_kind(values)}; a tensor of integers is wanted")
    if values.ndim != 2 or not values.numel():
        raise ValueError(_wrong(name, values, "rows and columns, at least one of each"))
    low, high = (end.item() for end in values.aminmax())
    if low < quant_min or high > quant_max:
        raise ValueError(
            f"{name} spans {low}..{high}; {quant_min} to {quant_max} is wanted for {bits} bits"
        )


def _kind(values):
    """Return a dense tensor's dtype, or what else it is, in words."""
    if not isinstance(values, torch.Tensor):
        return type(values).__name__
    if values.is_meta or values.layout != torch.strided:
        return "on the device meta" if values.is_meta else f"{values.layout}"
    return values.dtype


def _check_scale(scale, shape):
    if _kind(scale) not in FLOATS:
        raise ValueError(f"scale is {_kind(scale)}; a tensor of floats is wanted")
    rows, columns = shape
    if scale.ndim != 2 or len(scale) != rows or not scale.shape[1] or columns % scale.shape[1]:
        wanted = f"({rows}, groups), where groups divides the {columns} columns,"
        raise ValueError(_wrong("scale", scale, wanted))
    if not torch.isfinite(scale).all() or (scale == 0).any():
        raise ValueError("scale holds 0, NaN or infinity; finite numbers but 0 are wanted")


def _wrong(name, values, wanted):
    return f"{name} has shape {tuple(values.shape)}; {wanted} is wanted"


def _packed_integers(q, bits):
    pack_rows = panels.pack_w4 if bits <= 4 else panels.pack_w8
    return torch.from_numpy(pack_rows(q.to("cpu", torch.int8).numpy()))


def _packed_scale(scale, bits):
    stored = _as_stored(scale.detach().cpu(), bits)
    if (stored == 0).any():
        raise ValueError(
            f"scale falls to {scale.abs().min():.3g}, which would be stored as 0; round the "
            "matrix by lightcourse.integers.storable(scale, bits)"
        )
    if bits > 4:
        return stored.clone()
    return torch.from_numpy(panels.pack_groups(stored.numpy(), fill=1))


def _packed_zeros(zero_point, bits):
    stored = (zero_point.to("cpu", torch.int16) + offset(bits)).to(torch.uint8)
    if bits > 4:
        return stored
    return torch.from_numpy(panels.pack_groups(stored.numpy(), fill=panels.OFFSET_W4))
