"""Prompts of any length as one matrix, padded on the left, and texts out of it again."""

from collections.abc import Collection, Iterable, Sequence

import torch
from torch.nn import functional as F


def pad(
    prompts: Iterable[Sequence[int] | torch.Tensor], pad_id: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return prompts of any length as one matrix, with padding on their left.

    On the left, so that the last column holds the last token of each: new ones follow it.

    Parameters
    ----------
    prompts : iterable of list of int, or of Tensor of int64 of one dimension
        Each of at least one token.
    pad_id : int
        Any id that the model knows: padding is not looked at.

    Returns
    -------
    ids : Tensor of int64, shape (n, longest)
    mask : Tensor of bool, shape (n, longest)
        True for tokens, False for padding.

    Raises
    ------
    ValueError
        When there is no prompt, or one is empty or no row of whole numbers.

    Examples
    --------
    >>> ids, mask = pad([[5, 6, 7], [8]])
    >>> ids.tolist(), mask.tolist()
    ([[5, 6, 7], [0, 0, 8]], [[True, True, True], [False, False, True]])
    """
    rows = [torch.as_tensor(prompt) for prompt in prompts]
    if not rows:
        raise ValueError("prompts is empty; at least one prompt is wanted")
    for row in rows:
        if row.ndim != 1 or not len(row) or row.dtype != torch.int64:
            raise ValueError(
                f"prompts holds {row.dtype} of shape {tuple(row.shape)}; a row of at least one "
                "whole number, torch.int64, is wanted"
            )
    longest = max(map(len, rows))
    ids = [F.pad(row, (longest - len(row), 0), value=pad_id) for row in rows]
    masks = [torch.arange(longest) >= longest - len(row) for row in rows]
    return torch.stack(ids), torch.stack(masks).to(ids[0].device)


def unpad(
    ids: torch.Tensor, mask: torch.Tensor, stop: int | Collection[int] = ()
) -> list[torch.Tensor]:
    """Return the texts of a matrix that :func:`generate` returned, each by itself.

    Parameters
    ----------
    ids : Tensor of int64, shape (n, prompt + length)
    mask : Tensor of bool, shape (n, prompt)
        As :func:`pad` returned it.
    stop : int, or collection of int
        The end tokens. A text ends with the first that was written; what fills the row behind
        it is left out.

    Returns
    -------
    list of Tensor of int64
        Each of its own length: prompt, what was written, and the end token where there is one.
    """
    prompt = mask.shape[1]
    ends = torch.isin(ids[:, prompt:], end_tokens(stop).to(ids.device))
    ends = ends.cumsum(1) - ends.long() == 0  # no end token before this one
    kept = torch.cat([mask, ends], dim=1)
    return [row[keep] for row, keep in zip(ids, kept, strict=True)]


def end_tokens(stop: int | Collection[int]) -> torch.Tensor:
    """Return one end token or several as a row of int64."""
    return torch.tensor([stop] if isinstance(stop, int) else list(stop), dtype=torch.int64)


def check_mask(mask: torch.Tensor, prompts: torch.Tensor) -> None:
    """Raise ``ValueError`` unless a mask says which of ``prompts`` is padding on the left."""
    if mask.dtype != torch.bool or mask.shape != prompts.shape:
        raise ValueError(
            f"mask is {mask.dtype} of shape {tuple(mask.shape)}; torch.bool of the prompts' "
            f"{tuple(prompts.shape)} is wanted"
        )
    if not mask[:, -1].all() or (mask[:, :-1] & ~mask[:, 1:]).any():
        raise ValueError(
            "mask has padding behind a token; padding on the left is wanted, as by pad"
        )
