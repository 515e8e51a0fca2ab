"""How far apart two models' probabilities are."""

import torch
from torch.nn import functional as F


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
