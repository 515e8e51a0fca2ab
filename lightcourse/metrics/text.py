"""How well a language model foretells a text."""

import math

import torch
from torch import nn
from torch.nn import functional as F


@torch.no_grad()
def cross_entropy(model: nn.Module, tokens: torch.Tensor, window: int = 256) -> float:
    """Return the mean negative log-likelihood of each token but the first, in nats.

    The text is cut into windows; within one a token is predicted from those before it, so
    that a window's first prediction sees one token and its last sees ``window``.

    Parameters
    ----------
    model : nn.Module
        A causal language model whose output has ``logits``.
    tokens : Tensor of int64, shape (n,)
        At least 2.
    window : int
        Tokens that the model sees at once; at least 1.

    Raises
    ------
    ValueError
        When there are fewer than 2 tokens or ``window`` is below 1.
    """
    if tokens.ndim != 1 or len(tokens) < 2:
        raise ValueError(f"tokens has shape {tuple(tokens.shape)}; one row of 2 or more is wanted")
    if window < 1:
        raise ValueError(f"window is {window}; at least 1 is wanted")
    inputs, targets = tokens[:-1], tokens[1:]
    whole = len(inputs) // window * window
    total = 0.0
    pairs = torch.stack([inputs[:whole].view(-1, window), targets[:whole].view(-1, window)])
    rest = torch.stack([inputs[None, whole:], targets[None, whole:]])
    for rows, wanted in [*pairs.split(8, dim=1), rest]:
        if rows.numel():
            logits = model(input_ids=rows).logits.float()
            total += F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), reduction="sum").item()
    return total / len(targets)


def perplexity(model: nn.Module, tokens: torch.Tensor, window: int = 256) -> float:
    """Return exp of :func:`cross_entropy`: among how many tokens the model hesitates.

    Compare perplexities only at the same tokenizer and window; :func:`bits_per_byte`
    compares across tokenizers.

    Raises
    ------
    ValueError
        As :func:`cross_entropy`.
    """
    return math.exp(cross_entropy(model, tokens, window))


def bits_per_byte(model: nn.Module, tokenizer, text: str, window: int = 256) -> float:
    """Return how many bits the model would spend on a byte of UTF-8 text.

    Every token is charged, the first one too: the text is read after the tokenizer's
    start (or else end) token.

    Parameters
    ----------
    model : nn.Module
        A causal language model.
    tokenizer : transformers tokenizer
        The model's own.
    text : str
        Not empty.
    window : int
        As in :func:`cross_entropy`.

    Raises
    ------
    ValueError
        When the text is empty.
    """
    if not text:
        raise ValueError("text is empty; at least one character is wanted")
    start = tokenizer.bos_token_id
    start = tokenizer.eos_token_id if start is None else start
    ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    nats = cross_entropy(model, torch.tensor([start, *ids]), window) * len(ids)
    return nats / math.log(2) / len(text.encode())
