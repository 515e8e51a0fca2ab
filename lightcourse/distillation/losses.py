"""Matching a teacher's logits: KL both ways, squared error, and the mix with true labels.

Classes stand in the last dimension. No gradient flows to the teacher. Half precision is
computed in float32. A logit of -inf excludes its class: 0 · log 0 = 0, so that a teacher may
exclude tokens, and a student that excludes what the teacher thinks possible costs infinity.
NaN among the student's logits comes out as NaN; both let ``training.train`` raise. A teacher
without a distribution is refused. Nothing is looked at where the mask is False.
"""

import torch
from torch.nn import functional as F

from lightcourse.distillation import positions
from lightcourse.metrics import divergence


def forward_kl(
    student_logits: torch.Tensor,
    teacher_logits: torch.Tensor,
    temperature: float = 1.0,
    mask: torch.Tensor | None = None,
) -> torch.Tensor:
    r"""Return T² · KL(teacher ‖ student), the soft part of distillation.

    Hinton, Vinyals & Dean 2015, arXiv 1503.02531. With p = softmax(teacher_logits / T) and
    q = softmax(student_logits / T) a position costs :math:`T^2 \sum_c p_c \log (p_c / q_c)`:
    0 where both agree, large where the student excludes what the teacher thinks possible.
    Its gradient on the student's logits is T · (q − p), which at large T tends to
    (student − teacher) / classes, both centred: T² keeps it at one size for every T.

    Parameters
    ----------
    student_logits, teacher_logits : Tensor of floats, shape (..., classes)
        -inf excludes a class.
    temperature : float
        T, above 0; larger values show more of what the teacher thinks of wrong classes.
        At 1000 float32 is good for 2 digits of the value.
    mask : Tensor of bool, shape (...), optional
        True = the position counts. All do without it.

    Returns
    -------
    Tensor
        A scalar in nats: the mean over the positions that count. Infinity where the student
        excludes a class to which the teacher gives weight.

    Raises
    ------
    ValueError
        When the shapes differ (the message names the way to learn from another vocabulary),
        ``temperature`` is out of range, ``mask`` does not fit or is False everywhere, or the
        teacher's logits at a position that counts hold NaN or +inf, or are all -inf.

    Examples
    --------
    >>> teacher = torch.tensor([[2.0, 1.0, 0.0]])
    >>> round(forward_kl(torch.zeros(1, 3), teacher).item(), 3)
    0.266
    >>> forward_kl(teacher + 5, teacher, temperature=4.0).item()  # a shift says nothing
    0.0
    """
    student, teacher = _log_probabilities(student_logits, teacher_logits, temperature, mask)
    return temperature**2 * divergence(teacher, student).mean()


def reverse_kl(
    student_logits: torch.Tensor,
    teacher_logits: torch.Tensor,
    temperature: float = 1.0,
    mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return T² · KL(student ‖ teacher): large where the student says what the teacher would not.

    MiniLLM, Gu et al. 2023, arXiv 2306.08543, where it is used on the student's own text. A
    student too small for all that the teacher thinks possible keeps to a part of it here,
    and covers all of it, badly, under :func:`forward_kl`.

    Parameters
    ----------
    student_logits, teacher_logits, temperature, mask
        As in :func:`forward_kl`.

    Returns
    -------
    Tensor
        A scalar in nats: the mean over the positions that count. Infinity where the teacher
        excludes a class to which the student gives weight: exclude it from both.

    Raises
    ------
    ValueError
        As :func:`forward_kl`.
    """
    student, teacher = _log_probabilities(student_logits, teacher_logits, temperature, mask)
    return temperature**2 * divergence(student, teacher).mean()


def logit_mse(
    student_logits: torch.Tensor,
    teacher_logits: torch.Tensor,
    mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the mean squared difference of logits, over classes and positions that count.

    Ba & Caruana 2013, arXiv 1312.6184. It sees what no probability shows: a constant added
    to all logits of a position. A class that the teacher excludes has no logit to match: the
    mean is over the others.

    Parameters
    ----------
    student_logits, teacher_logits, mask
        As in :func:`forward_kl`.

    Returns
    -------
    Tensor
        A scalar, in squared units of the logits. Infinity where the student alone excludes
        a class.

    Raises
    ------
    ValueError
        As :func:`forward_kl`.
    """
    _check_logits(student_logits, teacher_logits)
    student, teacher = _counting_pair(student_logits, teacher_logits, mask)
    positions.check_teacher(teacher)
    excluded = teacher == -torch.inf
    error = (student.masked_fill(excluded, 0) - teacher.masked_fill(excluded, 0)).square()
    return (error.sum(dim=-1) / (~excluded).sum(dim=-1)).mean()


def distillation_loss(
    student_logits: torch.Tensor,
    teacher_logits: torch.Tensor,
    labels: torch.Tensor,
    temperature: float = 2.0,
    soft_weight: float = 0.5,
) -> torch.Tensor:
    """Return (1 - soft_weight) · CE + soft_weight · T² · KL(teacher ‖ student).

    Hinton, Vinyals & Dean 2015, arXiv 1503.02531: both softmaxes of the KL term are taken
    at temperature T, the one of the cross-entropy at 1.

    Parameters
    ----------
    student_logits, teacher_logits : Tensor of floats, shape (..., classes)
    labels : Tensor of int64, shape (...)
        A position labelled -100 counts in neither term. For a causal language model take
        :func:`causal_distillation_loss`, which shifts them.
    temperature : float
        As in :func:`forward_kl`.
    soft_weight : float
        0 (labels alone) to 1 (teacher alone).

    Returns
    -------
    Tensor
        A scalar in nats: the mean over the positions that count. Infinity where the student
        excludes a label, or a class to which the teacher gives weight.

    Raises
    ------
    ValueError
        As :func:`forward_kl`, and when ``soft_weight`` is out of range, ``labels`` has
        another shape or names no class, or every label is -100.

    Examples
    --------
    >>> logits = torch.tensor([[2.0, 0.0]])
    >>> distillation_loss(logits, logits, torch.tensor([0]), soft_weight=1.0).item()
    0.0
    """
    positions.check_soft_weight(soft_weight)
    _check_logits(student_logits, teacher_logits)
    positions.check_labels(labels, student_logits)
    soft = forward_kl(student_logits, teacher_logits, temperature, labels != positions.IGNORED)
    return mixed(soft, student_logits, labels, soft_weight)


def causal_distillation_loss(
    student_logits: torch.Tensor,
    teacher_logits: torch.Tensor,
    labels: torch.Tensor,
    temperature: float = 2.0,
    soft_weight: float = 0.5,
) -> torch.Tensor:
    """Return :func:`distillation_loss` where position t is judged by label t + 1.

    Parameters
    ----------
    student_logits, teacher_logits : Tensor of floats, shape (batch, time, vocabulary)
    labels : Tensor of int64, shape (batch, time)
        As Hugging Face wants them: ``input_ids``, with -100 at padding. Not shifted: that
        is done here, and the last position counts nowhere.
    temperature, soft_weight : float
        As in :func:`distillation_loss`.

    Returns
    -------
    Tensor
        A scalar in nats a token.

    Raises
    ------
    ValueError
        As :func:`distillation_loss`.
    """
    # Labels are shifted, as they are small: the logits would have to be copied.
    shifted = positions.next_labels(labels)
    return distillation_loss(student_logits, teacher_logits, shifted, temperature, soft_weight)


def mixed(
    soft: torch.Tensor, student_logits: torch.Tensor, labels: torch.Tensor, soft_weight: float
) -> torch.Tensor:
    """Return (1 - soft_weight) · CE + soft_weight · ``soft``; a weight of 1 needs no labels.

    A part without weight is left out, as 0 times an infinite one would make NaN.
    """
    if soft_weight == 1:
        return soft
    rows = positions.single(student_logits).flatten(end_dim=-2)
    hard = F.cross_entropy(rows, labels.flatten(), ignore_index=positions.IGNORED)
    return hard if soft_weight == 0 else (1 - soft_weight) * hard + soft_weight * soft


def _check_logits(student_logits, teacher_logits):
    positions.check_classes(student_logits.shape[-1], teacher_logits.shape[-1])
    positions.same_shape(student_logits, teacher_logits, "logits")


def _counting_pair(student_logits, teacher_logits, mask):
    pair = student_logits, teacher_logits.detach()
    return [positions.single(positions.counting(x, mask)) for x in pair]


def _log_probabilities(student_logits, teacher_logits, temperature, mask):
    _check_logits(student_logits, teacher_logits)
    positions.check_temperature(temperature)
    pair = _counting_pair(student_logits, teacher_logits, mask)
    student, teacher = (x / temperature for x in pair)
    positions.check_teacher(teacher)
    return F.log_softmax(student, dim=-1), F.log_softmax(teacher, dim=-1)
