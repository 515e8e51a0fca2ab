"""What a causal language model writes, token by token, with its cache of keys and values.

Not ``model.generate`` of transformers: what stands in ``model.generation_config``, such as a
penalty for repetition or an end token, would change the text unseen, and its dice are torch's
global ones.
"""

import math
from collections.abc import Callable, Iterator
from itertools import islice

import torch
from torch import nn

from lightcourse import layers


def likeliest(logits: torch.Tensor) -> torch.Tensor:
    """Return the id of the largest of each row of logits: greedy decoding."""
    return logits.argmax(dim=-1)


def sampled(
    temperature: float, generator: torch.Generator
) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return what draws from softmax(logits / temperature), an id a row.

    Parameters
    ----------
    temperature : float
        Above 0, and finite.
    generator : torch.Generator
        On the device of the logits: torch's global one does not move.

    Raises
    ------
    ValueError
        When ``temperature`` is out of range.
    """
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature is {temperature}; a number above 0 is wanted")

    def choose(logits):
        probabilities = (logits / temperature).softmax(dim=-1)
        return torch.multinomial(probabilities, 1, generator=generator).squeeze(-1)

    return choose


@torch.no_grad()
def stream(
    model: nn.Module,
    prompts: torch.Tensor,
    choose: Callable[[torch.Tensor], torch.Tensor] = likeliest,
) -> Iterator[torch.Tensor]:
    """Yield the next token of each text, for as long as it is asked.

    Parameters
    ----------
    model : nn.Module
        A causal language model of transformers, in evaluation mode. Its cache grows with
        every token; beyond its window it writes nonsense, or raises.
    prompts : Tensor of int64, shape (n, prompt)
        Of equal length, without padding.
    choose : callable
        From logits of shape (n, vocabulary), at least in float32, to ids of shape (n,):
        :func:`likeliest`, or what :func:`sampled` returns. An end token is a token like any
        other.

    Yields
    ------
    Tensor of int64, shape (n,)
    """
    new, past = prompts, None
    while True:
        output = model(input_ids=new, past_key_values=past, use_cache=True)
        past = output.past_key_values
        chosen = choose(output.logits[:, -1].float())
        yield chosen
        new = chosen[:, None]


def generate(
    model: nn.Module,
    prompts: torch.Tensor,
    length: int,
    choose: Callable[[torch.Tensor], torch.Tensor] = likeliest,
) -> torch.Tensor:
    """Return prompts with ``length`` tokens that the model wrote behind each.

    Parameters
    ----------
    model, prompts, choose
        As in :func:`stream`. The model is asked in evaluation mode, and unchanged.
    length : int
        New tokens, at least 1.

    Returns
    -------
    Tensor of int64, shape (n, prompt + length)

    Raises
    ------
    ValueError
        When ``prompts`` is empty, no matrix of int64 or holds an id that the model does not
        know, ``length`` is below 1, or prompt + length exceeds the model's window.
    """
    _check_prompts(model, prompts)
    _check_length(model, prompts, length)
    with layers.evaluating(model):
        new = list(islice(stream(model, prompts, choose), length))
    return torch.cat([prompts, torch.stack(new, dim=1)], dim=1)


def _check_prompts(model, prompts):
    if prompts.dtype != torch.int64 or prompts.ndim != 2 or not prompts.numel():
        raise ValueError(
            f"prompts is {prompts.dtype} of shape {tuple(prompts.shape)}; torch.int64 of shape "
            "(n, prompt), at least (1, 1), is wanted"
        )
    vocabulary = model.get_input_embeddings().num_embeddings
    if prompts.min() < 0 or prompts.max() >= vocabulary:
        raise ValueError(
            f"prompts holds ids from {prompts.min()} to {prompts.max()}; 0..{vocabulary - 1}, "
            "the model's vocabulary, is wanted"
        )


def _check_length(model, prompts, length):
    if length < 1:
        raise ValueError(f"length is {length}; at least 1 is wanted")
    window = model.config.max_position_embeddings
    if prompts.shape[1] + length > window:
        raise ValueError(
            f"prompts and length make {prompts.shape[1] + length} tokens; {window} at most, the "
            "model's window, are wanted"
        )
