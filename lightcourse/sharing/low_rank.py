"""The product of two thin matrices that is nearest to a matrix, or to what it answers."""

from numbers import Integral

import torch

# A sum of products in float32 may have eigenvalues so far below zero, in sizes of the largest.
NOISE = 1e-4


def low_rank(
    weight: torch.Tensor, rank: int, second_moments: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the two factors of a rank whose product is nearest to a weight.

    Without ``second_moments`` nearest in squared error: the truncated singular value
    decomposition (Eckart & Young 1936). With them in the squared error of the outputs for inputs
    like those, ``tr((W - LR) H (W - LR)ᵀ)``, which SVD-LLM finds by whitening (Wang et al. 2024,
    arXiv 2403.07378). The same matrix is the weight projected on the directions in which its
    outputs are largest, so that H is never inverted: it may be singular, by inputs that are
    always zero or by fewer tokens than inputs. Ranks beyond those that the outputs need go to
    what is left of the weight.

    Parameters
    ----------
    weight : Tensor of shape (m, n)
    rank : int
        1 to min(m, n).
    second_moments : Tensor of shape (n, n), optional
        H: the mean or the sum of ``x xᵀ`` over inputs x, as ``calibration.hessians`` gives it.
        Its scale does not matter.

    Returns
    -------
    left : Tensor of shape (m, rank)
        In ``weight``'s dtype; computed in float64. Each column is as long as the row of ``right``
        that it multiplies, and the most important ones come first: the first k of both factors
        are those of rank k.
    right : Tensor of shape (rank, n)

    Raises
    ------
    ValueError
        When ``rank`` is out of range, a tensor has another shape or holds NaN or infinity, or
        ``second_moments`` has an eigenvalue below zero.

    Examples
    --------
    >>> left, right = low_rank(torch.tensor([[3.0, 0.0], [0.0, 1.0]]), rank=1)
    >>> (left @ right).round(decimals=4).abs().tolist()
    [[3.0, 0.0], [0.0, 0.0]]
    """
    check_matrix(weight)
    check_rank(rank, weight.shape)
    directions, _ = decomposed(weight, second_moments)
    return factors(weight, directions[:, :rank])


@torch.no_grad()
def decomposed(
    weight: torch.Tensor, second_moments: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the directions of a weight's outputs, the largest first, and what each one holds.

    Parameters
    ----------
    weight, second_moments
        As in :func:`low_rank`.

    Returns
    -------
    directions : Tensor of float64, shape (m, min(m, n))
        Orthonormal columns, as long as there is something left in their directions.
    energies : Tensor of float64, shape (min(m, n),)
        The squared error that a rank takes away: squared singular values.

    Raises
    ------
    ValueError
        As :func:`low_rank`.
    """
    check_matrix(weight)
    exact = weight.detach().double()
    if second_moments is None:
        directions, values, _ = torch.linalg.svd(exact, full_matrices=False)
        return directions, values.square()
    directions, values, _ = torch.linalg.svd(exact @ _root(second_moments, exact), False)
    least = values[0] * max(exact.shape) * torch.finfo(exact.dtype).eps
    seen = directions[:, values > least]
    if seen.shape[1] < len(values):
        rest, _, _ = torch.linalg.svd(exact - seen @ (seen.T @ exact), full_matrices=False)
        rest -= seen @ (seen.T @ rest)  # where nothing is left, any direction came
        directions = torch.cat([seen, rest], dim=1)[:, : len(values)]
    return directions, values.square()


def factors(weight: torch.Tensor, directions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the weight projected on orthonormal directions, as two factors of equal sizes."""
    right = directions.T @ weight.detach().double()
    root = right.norm(dim=1).sqrt()
    root[root == 0] = 1
    return (directions * root).to(weight.dtype), (right / root[:, None]).to(weight.dtype)


def _root(second_moments, weight):
    """Return S with S Sᵀ = H."""
    inputs = weight.shape[1]
    if not isinstance(second_moments, torch.Tensor) or second_moments.shape != (inputs, inputs):
        given = getattr(second_moments, "shape", type(second_moments).__name__)
        given = tuple(given) if isinstance(given, torch.Size) else given
        raise ValueError(f"second_moments is {given}; a tensor of {(inputs, inputs)} is wanted")
    if not torch.isfinite(second_moments).all():
        raise ValueError("second_moments holds NaN or infinity; finite numbers are wanted")
    exact = second_moments.detach().to(weight)
    values, vectors = torch.linalg.eigh((exact + exact.T) / 2)
    if values[0] < -NOISE * values[-1].abs():
        raise ValueError(
            f"second_moments has the eigenvalue {values[0]:.3g} beside {values[-1]:.3g}; a sum of "
            "x xᵀ has none below zero"
        )
    return vectors * values.clamp(min=0).sqrt()


def check_matrix(weight: torch.Tensor) -> None:
    """Raise ``ValueError`` where a weight is no filled matrix of finite floats."""
    if not isinstance(weight, torch.Tensor) or weight.ndim != 2 or not weight.numel():
        given = tuple(weight.shape) if isinstance(weight, torch.Tensor) else type(weight).__name__
        raise ValueError(f"weight is {given}; a filled matrix is wanted")
    if not weight.is_floating_point():
        raise ValueError(f"weight is {weight.dtype}; floats are wanted")
    if not torch.isfinite(weight).all():
        raise ValueError("weight holds NaN or infinity; finite numbers are wanted")


def check_rank(rank: int, shape: tuple[int, int]) -> None:
    """Raise ``ValueError`` where a matrix of a shape has no such rank."""
    if isinstance(rank, bool) or not isinstance(rank, Integral) or not 1 <= rank <= min(shape):
        raise ValueError(f"rank is {rank!r}; 1 to {min(shape)} is wanted for {tuple(shape)}")


def rank_within(shape: tuple[int, int], num_bytes: int, bytes_per_number: float = 4) -> int:
    """Return the largest rank whose two factors fit into some bytes; 0 where none does.

    Parameters
    ----------
    shape : (int, int)
        Of the whole matrix: (m, n). A rank takes m + n numbers.
    num_bytes : int
    bytes_per_number : float
        4 for float32, 2 for float16, 0.5 for 4 bits.

    Returns
    -------
    int
        0 to min(m, n).

    Raises
    ------
    ValueError
        When a side is below 1, ``num_bytes`` below 0 or ``bytes_per_number`` not above 0.

    Examples
    --------
    >>> rank_within((100, 300), 80_000)  # two thirds of 120,000 bytes
    50
    """
    rows, columns = shape
    if min(rows, columns) < 1:
        raise ValueError(f"shape is {tuple(shape)}; two sides of at least 1 are wanted")
    if not num_bytes >= 0:
        raise ValueError(f"num_bytes is {num_bytes}; 0 or more is wanted")
    if not bytes_per_number > 0:
        raise ValueError(f"bytes_per_number is {bytes_per_number}; more than 0 is wanted")
    return min(int(num_bytes // (bytes_per_number * (rows + columns))), rows, columns)
