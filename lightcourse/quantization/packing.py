"""Two 4-bit integers in a byte, for tensors of any shape."""

import torch
from torch.nn import functional as F


def pack_int4(q: torch.Tensor) -> torch.Tensor:
    """Pack two 4-bit integers into each byte along the last dimension.

    Parameters
    ----------
    q : Tensor of integers from -8 to 7, shape (..., K)

    Returns
    -------
    Tensor of uint8, shape (..., ceil(K / 2))
        Even positions in the low half of a byte; an odd K is filled up with a 0.

    Raises
    ------
    ValueError
        When a value does not fit 4 bits.

    Examples
    --------
    >>> pack_int4(torch.tensor([1, -1, 7])).tolist()
    [241, 7]
    """
    if q.numel() and (q.min() < -8 or q.max() > 7):
        raise ValueError(f"q spans {q.min()}..{q.max()}; integers from -8 to 7 are wanted")
    nibbles = F.pad(q.to(torch.int16) & 0xF, (0, q.shape[-1] % 2)).to(torch.uint8)
    return nibbles[..., 0::2] | (nibbles[..., 1::2] << 4)


def unpack_int4(packed: torch.Tensor, length: int) -> torch.Tensor:
    """Undo :func:`pack_int4`: int8 values of shape (..., length)."""
    nibbles = torch.stack([packed & 0xF, packed >> 4], dim=-1).flatten(-2)[..., :length]
    return (nibbles.to(torch.int8) ^ 8) - 8
