"""The one loop that writes: what a causal language model says, token by token."""

from collections.abc import Callable, Collection, Iterator
from contextlib import nullcontext
from itertools import islice

import torch
from torch import nn

from lightcourse import layers
from lightcourse.generation.choosing import likeliest
from lightcourse.generation.prompts import check_mask, end_tokens
from lightcourse.generation.sessions import begin, vocabulary_of, window_of


@torch.no_grad()
def stream(
    model,
    prompts: torch.Tensor,
    choose: Callable[[torch.Tensor], torch.Tensor] = likeliest,
    mask: torch.Tensor | None = None,
    stop: int | Collection[int] = (),
    cache=None,
) -> Iterator[torch.Tensor]:
    """Yield the next token of each text, for as long as it is asked.

    Parameters
    ----------
    model : nn.Module, or object with ``begin``
        A causal language model of transformers, in evaluation mode, or one that keeps its own
        cache, such as a jitted one. The cache grows with every token.
    prompts : Tensor of int64, shape (n, prompt)
    choose : callable
        From logits of shape (n, vocabulary), in float32, to ids of shape (n,):
        :func:`likeliest`, or what :func:`sampled` returns.
    mask : Tensor of bool, shape (n, prompt), optional
        False for padding, on the left, as :func:`pad` returns it. Each text is written as it
        would be alone, but for rounding.
    stop : int, or collection of int
        End tokens. The one that a text ends with is repeated while others go on; after the
        last text has ended, so does the stream. Without any a text goes on for ever.
    cache : transformers.Cache, optional
        As in :func:`begin`.

    Yields
    ------
    Tensor of int64, shape (n,)

    Raises
    ------
    ValueError
        When a text would grow beyond the model's window.
    """
    session, new = begin(model, mask, cache), prompts
    ends = end_tokens(stop).to(prompts.device)
    done = torch.zeros(len(prompts), dtype=torch.bool, device=prompts.device)
    while not done.all():
        chosen = choose(session.read(new)[:, -1])
        chosen = torch.where(done, new[:, -1], chosen)
        yield chosen
        done |= torch.isin(chosen, ends)
        new = chosen[:, None]


def generate(
    model,
    prompts: torch.Tensor,
    length: int,
    choose: Callable[[torch.Tensor], torch.Tensor] = likeliest,
    mask: torch.Tensor | None = None,
    stop: int | Collection[int] = (),
    cache=None,
) -> torch.Tensor:
    """Return prompts with ``length`` tokens that the model wrote behind each.

    Parameters
    ----------
    model, prompts, choose, mask, stop, cache
        As in :func:`stream`. The model is asked in evaluation mode, and unchanged.
    length : int
        New tokens, at least 1.

    Returns
    -------
    Tensor of int64, shape (n, prompt + length)
        Narrower where all texts ended before; :func:`unpad` parts it into texts.

    Raises
    ------
    ValueError
        When ``prompts`` is empty, no matrix of int64 or holds an id that the model does not
        know, ``mask`` does not fit it, ``length`` is below 1, or prompt + length exceeds the
        model's window.
    """
    check_prompts(model, prompts)
    check_length(model, prompts.shape[1], length)
    if mask is not None:
        check_mask(mask, prompts)
    with evaluating(model):
        new = list(islice(stream(model, prompts, choose, mask, stop, cache), length))
    return torch.cat([prompts, torch.stack(new, dim=1)], dim=1)


def evaluating(model):
    """Return what puts a model into evaluation mode meanwhile, where it has any modes."""
    return layers.evaluating(model) if isinstance(model, nn.Module) else nullcontext(model)


def check_prompts(model, prompts: torch.Tensor) -> None:
    """Raise ``ValueError`` unless ``prompts`` is a matrix of ids that the model knows."""
    if prompts.dtype != torch.int64 or prompts.ndim != 2 or not prompts.numel():
        raise ValueError(
            f"prompts is {prompts.dtype} of shape {tuple(prompts.shape)}; torch.int64 of shape "
            "(n, prompt), at least (1, 1), is wanted"
        )
    vocabulary = vocabulary_of(model)
    if prompts.min() < 0 or prompts.max() >= vocabulary:
        raise ValueError(
            f"prompts holds ids from {prompts.min()} to {prompts.max()}; 0..{vocabulary - 1}, "
            "the model's vocabulary, is wanted"
        )


def check_length(model, prompt: int, length: int) -> None:
    """Raise ``ValueError`` unless ``length`` new tokens fit a window behind so many."""
    if length < 1:
        raise ValueError(f"length is {length}; at least 1 is wanted")
    window = window_of(model)
    if prompt + length > window:
        raise ValueError(
            f"prompts and length make {prompt + length} tokens; {window} at most, the "
            "model's window, are wanted"
        )
