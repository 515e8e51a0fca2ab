"""Levels that need not be evenly spaced, and the nearest of them for each value.

A codebook is a tensor of levels in ascending order; the code of a value is the place of its level
there.
"""

import torch


def normal_levels(bits: int = 4) -> torch.Tensor:
    """Return levels that a normal distribution uses about equally often: with 4 bits, NF4.

    They are quantiles of the standard normal at evenly spaced probabilities, on one side of 0 one
    more than on the other, and 0 itself, divided by the largest (Dettmers et al. 2023, QLoRA,
    arXiv 2305.14314, section 3 and its code).

    Parameters
    ----------
    bits : int
        2 to 8.

    Returns
    -------
    Tensor of float32, shape (2**bits,)
        From -1 to 1.

    Raises
    ------
    ValueError
        When ``bits`` is out of range.

    Examples
    --------
    >>> [round(level, 3) for level in normal_levels(3).tolist()]
    [-1.0, -0.535, -0.247, 0.0, 0.183, 0.382, 0.623, 1.0]
    """
    _check(bits, "bits", 2, 8)
    half = 2 ** (bits - 1)
    # The outermost probability: as far from 1 as half a step, the mean of both sides' steps.
    last = 1 - (1 / (4 * half) + 1 / (4 * half - 2)) / 2
    above, below = (
        torch.special.ndtri(torch.linspace(last, 0.5, count + 1, dtype=torch.float64))[:-1]
        for count in (half, half - 1)
    )
    levels = torch.cat([-below, torch.zeros(1, dtype=torch.float64), above.flip(0)])
    return (levels / above[0]).float()


def float_levels(exponent_bits: int, mantissa_bits: int) -> torch.Tensor:
    """Return all numbers of a small floating-point format without infinities.

    A sign, an exponent e and a mantissa m stand for 2**(e - bias) * (1 + m / 2**mantissa_bits),
    and for e = 0 for 2**(1 - bias) * m / 2**mantissa_bits, with a bias of
    2**(exponent_bits - 1) - 1. Two bits and one are FP4, as MXFP4 stores it (Open Compute Project,
    Microscaling Formats v1.0, 2023). No bit of mantissa leaves powers of two: a logarithmic grid.

    Parameters
    ----------
    exponent_bits : int
        1 to 5.
    mantissa_bits : int
        0 to 3.

    Returns
    -------
    Tensor of float32, ascending
        0 once, though the format has it twice.

    Raises
    ------
    ValueError
        When a number of bits is out of range.

    Examples
    --------
    >>> float_levels(2, 1)[7:].tolist()
    [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]
    >>> float_levels(3, 0)[7:].tolist()
    [0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0]
    """
    _check(exponent_bits, "exponent_bits", 1, 5)
    _check(mantissa_bits, "mantissa_bits", 0, 3)
    exponent = torch.arange(2**exponent_bits)[:, None]
    mantissa = torch.arange(2**mantissa_bits) / 2**mantissa_bits
    first = 2.0 - 2 ** (exponent_bits - 1)  # the exponent of the smallest normal number
    power = 2.0 ** (first + (exponent - 1).clamp(min=0))
    sizes = (power * ((exponent > 0) + mantissa)).flatten()
    return torch.cat([-sizes[1:].flip(0), sizes])


def nearest_codes(x: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
    """Return the code of the nearest level for each value.

    Parameters
    ----------
    x : Tensor of floats
        Finite.
    levels : Tensor of float32, shape (count,)
        Ascending, 2 to 256 of them.

    Returns
    -------
    Tensor of uint8, of ``x``'s shape
        In the middle between two levels, the code that is as even as that of 0: for a
        floating-point format the mantissa that ends in 0, as IEEE 754 rounds.

    Raises
    ------
    ValueError
        When ``levels`` are no codebook, or a value is not finite.

    Examples
    --------
    >>> fp4 = float_levels(2, 1)
    >>> fp4[nearest_codes(torch.tensor([2.4, 2.5, 3.5, -9.0]), fp4).long()].tolist()
    [2.0, 2.0, 4.0, -6.0]
    """
    check_levels(levels)
    if not torch.isfinite(x).all():
        raise ValueError("x holds NaN or infinity; finite values are wanted")
    codes = torch.zeros(x.shape, dtype=torch.uint8, device=x.device)
    zero = int(levels.abs().argmin())
    # For few levels faster than a search, whose jumps no processor foresees.
    for code, middle in enumerate((levels[1:] / 2 + levels[:-1] / 2).to(x.dtype)):
        above = x >= middle if (code - zero) % 2 else x > middle
        codes += above.view(torch.uint8)
    return codes


def kmeans_codebook(
    x: torch.Tensor, bits: int = 4, start: torch.Tensor | None = None, rounds: int = 50
) -> torch.Tensor:
    """Return the levels that leave a small squared error on given values: k-means in one dimension.

    Each value goes to its nearest level, each level to the mean of its values, until nothing
    moves (Lloyd 1982; for weights Han et al. 2015, Deep Compression, arXiv 1510.00149). A level
    that no value is nearest to goes to a value that is farthest from its own.

    Parameters
    ----------
    x : Tensor of floats
        At least one value, all finite.
    bits : int
        1 to 8.
    start : Tensor of float32, shape (2**bits,), optional
        Where the levels begin, ascending. Without it evenly from the smallest to the largest
        value, which keeps a level near the rare large ones (section 3.2 of the paper).
    rounds : int
        At most so many.

    Returns
    -------
    Tensor of float32, shape (2**bits,)
        Ascending.

    Raises
    ------
    ValueError
        When ``bits`` is out of range, or values or ``start`` cannot be used.

    Examples
    --------
    >>> kmeans_codebook(torch.tensor([0.0, 1.0, 9.0, 10.0]), bits=1).tolist()
    [0.5, 9.5]
    """
    _check(bits, "bits", 1, 8)
    x = _checked_values(x).double()
    levels = _even(x, 2**bits) if start is None else start.double()
    check_levels(levels, 2**bits)
    # Sorted, the values of a level are neighbours: their sum is a difference of running sums.
    x = x.flatten().sort().values
    sums = torch.cat([x.new_zeros(1), x.cumsum(0)])
    for _ in range(rounds):
        moved = _means(x, sums, levels)
        if torch.equal(moved, levels):
            break
        levels = moved
    return levels.float()


def check_levels(levels: torch.Tensor, count: int | None = None) -> None:
    """Raise ``ValueError`` where levels are no codebook, or not of so many."""
    if levels.ndim != 1 or not 2 <= len(levels) <= 256:
        shape = tuple(levels.shape)
        raise ValueError(f"levels has shape {shape}; 2 to 256 levels in one row are wanted")
    if count is not None and len(levels) != count:
        raise ValueError(f"start has {len(levels)} levels; {count} are wanted")
    if not torch.isfinite(levels).all() or (levels.diff() < 0).any():
        raise ValueError("levels are not ascending and finite; sort them, without NaN")


def _even(x, count):
    return torch.linspace(x.min(), x.max(), count, dtype=torch.float64)


def _means(x, sums, levels):
    """Return the mean of each level's values; x is sorted, sums are its running sums."""
    ends = torch.searchsorted(x, (levels[1:] + levels[:-1]) / 2, right=True)
    ends = torch.cat([ends.new_zeros(1), ends, ends.new_full((1,), len(x))])
    counts = ends.diff()
    means = sums[ends].diff() / counts.clamp(min=1)
    if idle := int((counts == 0).sum()):
        off = (x - levels.repeat_interleave(counts)).abs()
        far = off.topk(min(idle, len(x)))
        means[counts == 0] = levels[counts == 0]
        gained = far.values > 0
        means[(counts == 0).nonzero()[: len(gained), 0][gained]] = x[far.indices[gained]]
    return means.sort().values


def _checked_values(x):
    if not x.numel() or not torch.isfinite(x).all():
        raise ValueError(f"x of shape {tuple(x.shape)} is empty or not finite")
    return x.detach().cpu()


def _check(value, name, low, high):
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ValueError(f"{name} is {value!r}; {low} to {high} is wanted")
