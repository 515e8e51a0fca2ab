"""The measuring tape: quality, size and time, and the ledger that sets them side by side."""

import math
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from lightcourse import asking, layers
from lightcourse.ledger import Ledger as Ledger  # public as metrics.Ledger


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


@torch.no_grad()
def predict(model: nn.Module, batches: Iterable[dict]) -> torch.Tensor:
    """Return the logits of a classifier, shape (examples, classes), in evaluation mode.

    Parameters
    ----------
    model : nn.Module
        Its output has ``logits``. Its training mode is restored afterwards.
    batches : iterable of dict
        Keyword arguments for the model; ``labels`` are left out.

    Raises
    ------
    ValueError
        When there is no batch, or one is no dict.
    """
    with layers.evaluating(model):
        return torch.cat([model(**inputs).logits for inputs in asking.inputs_of_each(batches)])


def _pair(first, second, names):
    first, second = torch.as_tensor(first), torch.as_tensor(second)
    if first.shape != second.shape or first.ndim != 1 or not len(first):
        raise ValueError(
            f"{names[0]} has shape {tuple(first.shape)} and {names[1]} {tuple(second.shape)}; "
            "two equally long, filled rows are wanted"
        )
    return first, second


def accuracy(predictions: Sequence[int], labels: Sequence[int]) -> float:
    """Return the fraction of predictions that equal their label.

    Raises
    ------
    ValueError
        When the two are empty or not equally long.

    Examples
    --------
    >>> accuracy([0, 1, 1, 1], [0, 1, 0, 1])
    0.75
    """
    predictions, labels = _pair(predictions, labels, ("predictions", "labels"))
    return (predictions == labels).double().mean().item()


def macro_f1(predictions: Sequence[int], labels: Sequence[int]) -> float:
    """Return the mean over classes of F1 = 2·TP / (2·TP + FP + FN).

    Each class counts the same, however rare. Classes are those that occur among labels or
    predictions.

    Raises
    ------
    ValueError
        As :func:`accuracy`.

    Examples
    --------
    Always saying the commoner class looks good to accuracy alone:

    >>> labels = [0] * 9 + [1]
    >>> accuracy([0] * 10, labels), round(macro_f1([0] * 10, labels), 3)
    (0.9, 0.474)
    """
    predictions, labels = _pair(predictions, labels, ("predictions", "labels"))
    scores = []
    for label in torch.cat([predictions, labels]).unique():
        hits = ((predictions == label) & (labels == label)).sum()
        named = (predictions == label).sum() + (labels == label).sum()
        scores.append(2 * hits.item() / named.item())
    return statistics.fmean(scores)


def flips(
    before: Sequence[int], after: Sequence[int], labels: Sequence[int] | None = None
) -> float:
    """Return the fraction of answers that a change to the model has changed.

    Dutta et al. 2024, arXiv 2407.09141: models of equal accuracy can differ in many
    answers.

    Parameters
    ----------
    before, after : sequence of int
        Predictions of the two models for the same examples.
    labels : sequence of int, optional
        With them only changes from right to wrong or back count, as in the paper.

    Raises
    ------
    ValueError
        When lengths differ or are 0.

    Examples
    --------
    >>> flips([0, 1, 2, 2], [0, 2, 1, 2]), flips([0, 1, 2, 2], [0, 2, 1, 2], [0, 1, 0, 2])
    (0.5, 0.25)
    """
    before, after = _pair(before, after, ("before", "after"))
    if labels is None:
        return (before != after).double().mean().item()
    before, labels = _pair(before, labels, ("before", "labels"))
    return ((before == labels) != (after == labels)).double().mean().item()


def kl_divergence(logits_p: torch.Tensor, logits_q: torch.Tensor) -> float:
    """Return the mean of KL(p ‖ q) in nats: how surprised q would be by p's answers.

    Parameters
    ----------
    logits_p, logits_q : Tensor of floats, shape (..., classes)
        -inf excludes a class.

    Returns
    -------
    float
        Infinity where q excludes a class that p thinks possible; NaN where a position has
        no distribution: NaN or +inf among its logits, or every class excluded.

    Raises
    ------
    ValueError
        When the shapes differ.
    """
    if logits_p.shape != logits_q.shape:
        raise ValueError(
            f"logits_q has shape {tuple(logits_q.shape)}; {tuple(logits_p.shape)} is wanted"
        )
    log_p, log_q = F.log_softmax(logits_p.float(), -1), F.log_softmax(logits_q.float(), -1)
    return divergence(log_p, log_q).mean().item()


def divergence(log_p: torch.Tensor, log_q: torch.Tensor) -> torch.Tensor:
    """Return KL(p ‖ q) of each position, from log-probabilities.

    By the convention 0 · log 0 = 0 a class that p excludes costs nothing, whatever q says of
    it, and its gradient is no NaN either.

    Parameters
    ----------
    log_p, log_q : Tensor of floats, shape (..., classes)

    Returns
    -------
    Tensor, shape (...)

    Examples
    --------
    >>> divergence(torch.tensor([0.0, -torch.inf]), torch.tensor([0.5, 0.5]).log())
    tensor(0.6931)
    """
    excluded = log_p.exp() == 0
    # Filled before they are multiplied: behind a product of 0 and infinity the gradient is NaN.
    log_p, log_q = (x.masked_fill(excluded, 0) for x in (log_p, log_q))
    return F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(dim=-1)


def sparsity(model: nn.Module) -> float:
    """Return the fraction of exact zeros among all weight matrices but embedding tables.

    Those of linear layers, where they store integers too (an integer at its zero point is a
    zero); and those that are no layer's, such as the experts of a mixture: whoever prunes the
    linear layers alone sees here how little of such a model that is. An output layer that is
    tied to a table counts as the table.

    Raises
    ------
    ValueError
        When the model has no such matrix.
    """
    model = layers.inside(model)
    weights = [layer.weight for layer in layers.linear_layers(model).values()]
    weights += [m.weight for m in layers.integer_layers(model).values()]
    weights += [model.get_parameter(name) for name in layers.other_matrices(model)]
    if not weights:
        raise ValueError(f"model is a {type(model).__name__} without a weight matrix")
    zeros = sum(int((weight == 0).sum()) for weight in weights)
    return zeros / sum(weight.numel() for weight in weights)


def size_in_bytes(model: nn.Module) -> int:
    """Return the bytes of everything that the model's ``state_dict`` would store.

    Real buffers as they are held, packed integers and scales included; a tensor that two
    modules share counts once.
    """
    state = model.state_dict(keep_vars=True).values()
    # On meta all tensors lie at 0: there the objects tell which are shared.
    tensors = {id(t) if t.is_meta else (t.data_ptr(), t.nbytes): t.nbytes for t in state}
    return sum(tensors.values())


@dataclass(frozen=True)
class Latency:
    """The time of one call, over many: median and spread (interquartile range) in seconds."""

    median: float
    spread: float
    repeats: int
    threads: int

    def __str__(self):
        return (
            f"{self.median * 1e3:.2f} ms ± {self.spread * 1e3 / 2:.2f} "
            f"(median of {self.repeats}, {self.threads} thread{'s' * (self.threads > 1)})"
        )


def latency(function: Callable[[], object], repeats: int = 20, warmup: int = 3) -> Latency:
    """Time ``function()`` without gradients, after calls that warm it up.

    Parameters
    ----------
    function : callable
        Takes no argument; must do the same work at each call.
    repeats, warmup : int
        Timed calls (at least 2), and untimed ones before them.

    Raises
    ------
    ValueError
        When ``repeats`` is below 2 or ``warmup`` below 0.
    """
    return latencies({"": function}, repeats, warmup)[""]


def latencies(
    functions: dict[str, Callable[[], object]], repeats: int = 20, warmup: int = 3
) -> dict[str, Latency]:
    """Time several functions in turns, so that a machine that slows down slows all alike.

    Parameters
    ----------
    functions : dict of str to callable
        Each round calls every one of them once.
    repeats, warmup : int
        Timed and untimed rounds, as in :func:`latency`.

    Raises
    ------
    ValueError
        As :func:`latency`, or when there is no function.
    """
    if not functions:
        raise ValueError("functions is empty; at least one is wanted")
    if repeats < 2 or warmup < 0:
        raise ValueError(f"repeats is {repeats} and warmup {warmup}; at least 2 and 0 are wanted")
    times = {name: [] for name in functions}
    with torch.inference_mode():
        for _ in range(warmup + repeats):
            for name, function in functions.items():
                start = time.perf_counter()
                function()
                times[name].append(time.perf_counter() - start)
    return {name: _summary(values[warmup:]) for name, values in times.items()}


def _summary(times):
    low, median, high = statistics.quantiles(times, n=4, method="inclusive")
    return Latency(median, high - low, len(times), torch.get_num_threads())
