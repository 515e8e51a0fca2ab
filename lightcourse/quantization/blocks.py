"""Blocks of weights with a scale each, as the small floating-point formats and NF4 store them."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from lightcourse.quantization.levels import (
    check_levels,
    float_levels,
    kmeans_codebook,
    nearest_codes,
    normal_levels,
)

E8M0_BIAS = 127  # an exponent's byte in the Microscaling formats is the exponent plus this


@dataclass(frozen=True)
class Coded:
    """A matrix as codes of levels, with a scale for each block of neighbours in a row.

    Parameters
    ----------
    codes : Tensor of uint8, shape (rows, columns)
    levels : Tensor of float32, shape (2**bits,) or fewer
    scale : Tensor, shape (rows, blocks), or (1, 1) for the whole matrix
        As it is stored: float32, float16, an 8-bit float, or the exponents of powers of two
        (``torch.float8_e8m0fnu``).
    factor : float
        Of the whole matrix: a scale in few bits is a multiple of it.
    """

    codes: torch.Tensor
    levels: torch.Tensor
    scale: torch.Tensor
    factor: float = 1.0

    @property
    def bits(self) -> int:
        """The bits of a code."""
        return (len(self.levels) - 1).bit_length()

    @property
    def nbytes(self) -> int:
        """The bytes of the codes without room between them, the scales, and the levels."""
        codes = -(-self.codes.numel() * self.bits // 8)
        return codes + self.scale.nbytes + 4 * 2**self.bits + 4 * (self.factor != 1)

    def read_back(self) -> torch.Tensor:
        """Return the float32 matrix of shape (rows, columns) that is stored."""
        # Three times as fast as levels[codes], and without 8 bytes for each code.
        values = self.levels.index_select(0, self.codes.flatten().int())
        values = values.view(len(self.codes), self.scale.shape[1], -1)
        return (values * (self.scale.float() * self.factor)[..., None]).flatten(1)


def code_blocks(
    weight: torch.Tensor, levels: torch.Tensor, block: int | None, choose_scale: Callable
) -> Coded:
    """Round a matrix to scaled levels, block by block.

    Parameters
    ----------
    weight : Tensor of floats, shape (rows, columns)
    levels : Tensor of float32
        As in :func:`lightcourse.quantization.levels.nearest_codes`.
    block : int or None
        Neighbours in a row that share a scale; the whole row for None.
    choose_scale : callable
        ``choose_scale(groups, levels)`` of float32 weights, shape (rows, blocks, size): the
        scales as they will be stored, shape (rows, blocks), and a factor for all of them.

    Returns
    -------
    Coded

    Raises
    ------
    ValueError
        When the weight is no finite matrix, or blocks do not fit.
    """
    check_levels(levels)
    groups = _into_blocks(weight, block)
    scale, factor = choose_scale(groups, levels)
    real = scale.float() * factor
    codes = nearest_codes(groups / torch.where(real > 0, real, 1.0)[..., None], levels)
    return Coded(codes.flatten(1), levels, scale, factor)


def largest_value(groups: torch.Tensor, levels: torch.Tensor) -> tuple[torch.Tensor, float]:
    """Choose scales in 32 bits by which a block's largest value meets the largest level."""
    return groups.abs().amax(-1) / levels.abs().max(), 1.0


def mean_size(groups: torch.Tensor, levels: torch.Tensor) -> tuple[torch.Tensor, float]:
    """Choose the mean size of a block's weights, in 16 bits.

    For the levels -1 and 1 no scale leaves a smaller squared error (Rastegari et al. 2016,
    XNOR-Net, arXiv 1603.05279, section 3.1). For -1, 0 and 1 it is BitNet b1.58's
    (Ma et al. 2024, arXiv 2402.17764).
    """
    return groups.abs().mean(-1).half(), 1.0


def least_squares(
    groups: torch.Tensor, levels: torch.Tensor, tries: int = 10
) -> tuple[torch.Tensor, float]:
    """Choose scales in 16 bits for a small squared error.

    From the one by which the largest value meets the largest level down to a quarter of it, each
    is tried: its codes, and the best scale for these.
    """
    largest = largest_value(groups, levels)[0]
    best, least = largest.half(), torch.full_like(largest, torch.inf)
    for part in torch.linspace(1.0, 0.25, tries):
        real = torch.where(largest > 0, part * largest, 1.0)[..., None]
        values = levels[nearest_codes(groups / real, levels).long()]
        scale = (values * groups).sum(-1) / values.square().sum(-1).clamp(min=1e-12)
        scale = torch.where(largest > 0, scale, 0.0).half()
        error = (values * scale.float()[..., None] - groups).square().sum(-1)
        best, least = torch.where(error < least, scale, best), error.minimum(least)
    return best, 1.0


def power_of_two(groups: torch.Tensor, levels: torch.Tensor) -> tuple[torch.Tensor, float]:
    """Choose a power of two for each block, as the Microscaling formats do.

    The exponent of the largest value less that of the largest level, rounded down, so that some
    values may be cut off (OCP Microscaling Formats v1.0, section 6.3).
    """
    largest, top = groups.abs().amax(-1), levels.abs().max()
    exponent = torch.frexp(largest).exponent - torch.frexp(top).exponent
    exponent = exponent.clamp(-E8M0_BIAS, E8M0_BIAS)
    exponent = torch.where(largest > 0, exponent, -E8M0_BIAS)
    return torch.ldexp(torch.ones_like(largest), exponent).to(torch.float8_e8m0fnu), 1.0


def small_float(groups: torch.Tensor, levels: torch.Tensor) -> tuple[torch.Tensor, float]:
    """Choose a scale of 8 bits (E4M3) for each block, and a factor for all, as NVFP4 does.

    NVIDIA 2025, *Pretraining large language models with NVFP4*, arXiv 2509.25149, appendix.
    """
    largest, top = groups.abs().amax(-1), levels.abs().max()
    most = torch.finfo(torch.float8_e4m3fn).max
    factor = (largest.max() / (top * most)).item() or 1.0
    return (largest / top / factor).clamp(max=most).to(torch.float8_e4m3fn), factor


def nf4(weight: torch.Tensor, block: int | None = 64) -> Coded:
    """Round to NF4: quantiles of the normal, a scale in 32 bits for each block.

    Dettmers et al. 2023, arXiv 2305.14314. (The paper rounds the scales once more, "double
    quantization".)

    Examples
    --------
    >>> nf4(torch.linspace(-2, 2, 128)[None]).codes[0, ::16].tolist()
    [0, 1, 2, 4, 7, 10, 13, 14]
    """
    return code_blocks(weight, normal_levels(4), block, largest_value)


def mxfp4(weight: torch.Tensor) -> Coded:
    """Round to MXFP4: FP4 (E2M1) in blocks of 32 with a power of two each.

    Open Compute Project 2023, Microscaling Formats (MX) v1.0; Rouhani et al. 2023,
    arXiv 2310.10537.
    """
    return code_blocks(weight, float_levels(2, 1), 32, power_of_two)


def nvfp4(weight: torch.Tensor) -> Coded:
    """Round to NVFP4: FP4 (E2M1) in blocks of 16 with a scale in 8 bits (E4M3) each."""
    return code_blocks(weight, float_levels(2, 1), 16, small_float)


def fp8(weight: torch.Tensor, block: int | None = None) -> Coded:
    """Round to FP8 (E4M3: four bits of exponent, three of mantissa) with a scale for each row.

    Micikevicius et al. 2022, arXiv 2209.05433.
    """
    levels = float_levels(4, 3)
    most = torch.finfo(torch.float8_e4m3fn).max  # above it the format has its NaN
    return code_blocks(weight, levels[levels.abs() <= most], block, largest_value)


def log4(weight: torch.Tensor, block: int | None = 32) -> Coded:
    """Round to powers of two, their signs and 0: a logarithmic grid of 4 bits.

    Fine for small weights and coarse for large ones (Miyashita et al. 2016, arXiv 1603.01025).
    """
    return code_blocks(weight, float_levels(3, 0), block, least_squares)


def kmeans(weight: torch.Tensor, bits: int = 4, block: int | None = None) -> Coded:
    """Round to a codebook of the matrix's own, found by k-means.

    Han et al. 2015, Deep Compression, arXiv 1510.00149.

    Parameters
    ----------
    weight : Tensor of floats, shape (rows, columns)
    bits : int
        1 to 8.
    block : int, optional
        Neighbours whose largest value, in 16 bits, they are divided by before; one codebook
        then serves large and small rows. Without it the values are taken as they are.

    Returns
    -------
    Coded
    """
    groups = _into_blocks(weight, block)
    scale = torch.ones(1, 1) if block is None else groups.abs().amax(-1).half()
    values = groups / torch.where(scale > 0, scale.float(), 1.0)[..., None]
    levels = kmeans_codebook(values, bits)
    return Coded(nearest_codes(values, levels).flatten(1), levels, scale)


def binary(weight: torch.Tensor, block: int | None = None) -> Coded:
    """Round to the sign times the mean size: one bit a weight, and a scale.

    Rastegari et al. 2016, arXiv 1603.05279. One bit *without* a scale would know signs alone, and
    a grid of one bit whose levels are 0 and 1, no negative weight.

    Examples
    --------
    >>> binary(torch.tensor([[3.0, -1.0, 0.5, -1.5]])).read_back().tolist()
    [[1.5, -1.5, 1.5, -1.5]]
    """
    return code_blocks(weight, torch.tensor([-1.0, 1.0]), block, mean_size)


def ternary(weight: torch.Tensor, block: int | None = None) -> Coded:
    """Round to -1, 0 or 1 times the mean size.

    Ma et al. 2024, BitNet b1.58, arXiv 2402.17764: log2(3) = 1.58 bits a weight carry it, two
    are stored here.

    Examples
    --------
    >>> ternary(torch.tensor([[3.0, -1.0, 0.5, -1.5]])).read_back().tolist()
    [[1.5, -1.5, 0.0, -1.5]]
    """
    return code_blocks(weight, torch.tensor([-1.0, 0.0, 1.0]), block, mean_size)


def _into_blocks(weight, block):
    if weight.ndim != 2 or not weight.numel():
        raise ValueError(f"weight has shape {tuple(weight.shape)}; a matrix with values is wanted")
    weight = weight.detach().float().cpu()
    block = weight.shape[1] if block is None else block
    if block < 1 or weight.shape[1] % block:
        raise ValueError(
            f"block is {block}; a divisor of the {weight.shape[1]} columns is wanted, or None"
        )
    if not torch.isfinite(weight).all():
        raise ValueError("weight holds NaN or infinity; finite values are wanted")
    return weight.unflatten(1, (-1, block))
