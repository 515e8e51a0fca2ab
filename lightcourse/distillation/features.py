"""Matching what stands inside a teacher: hidden states and attention maps."""

import torch
from torch import nn
from torch.nn import functional as F

from lightcourse.distillation import positions


def hidden_loss(
    student_hidden: torch.Tensor,
    teacher_hidden: torch.Tensor,
    projection: nn.Module | torch.Tensor | None = None,
    mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the mean squared difference of hidden states, a narrow student's projected first.

    FitNets, Romero et al. 2014, arXiv 1412.6550; for transformers TinyBERT, Jiao et al.
    2019, arXiv 1909.10351. ``output_hidden_states=True`` makes a model return its own.

    Parameters
    ----------
    student_hidden : Tensor of floats, shape (..., student_width)
    teacher_hidden : Tensor of floats, shape (..., teacher_width)
        No gradient flows to it.
    projection : nn.Module or Tensor of shape (student_width, teacher_width), optional
        Wanted when the widths differ. It is learned along if it is a module inside the
        model that is trained.
    mask : Tensor of bool, shape (...), optional
        True = the position counts. All do without it.

    Returns
    -------
    Tensor
        A scalar: the mean over the width and over the positions that count.

    Raises
    ------
    ValueError
        When the shapes differ after the projection, or ``mask`` does not fit or is False
        everywhere.
    """
    student = positions.single(_projected(student_hidden, projection))
    teacher = positions.single(teacher_hidden.detach())
    if projection is None and student.shape[-1] != teacher.shape[-1]:
        raise ValueError(
            f"student_hidden has width {student.shape[-1]} and teacher_hidden "
            f"{teacher.shape[-1]}; a projection between the two is wanted"
        )
    positions.same_shape(student, teacher, "hidden")
    return F.mse_loss(*(positions.counting(x, mask) for x in (student, teacher)))


def _projected(hidden, projection):
    if projection is None:
        return hidden
    if isinstance(projection, nn.Module):
        return projection(hidden)
    if projection.ndim != 2 or projection.shape[0] != hidden.shape[-1]:
        raise ValueError(
            f"projection has shape {tuple(projection.shape)}; ({hidden.shape[-1]}, "
            "teacher_width) is wanted"
        )
    return hidden @ projection


def attention_loss(
    student_attention: torch.Tensor,
    teacher_attention: torch.Tensor,
    mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return KL(teacher ‖ student) of attention maps: where each query looks.

    As in MiniLM, Wang et al. 2020, arXiv 2002.10957 (its last layer; TinyBERT takes squared
    errors). Models return their maps with ``output_attentions=True`` when they were set to
    ``attn_implementation="eager"``. Set the student's attention dropout to 0: in training
    mode it acts on the maps that are returned, and each entry it drops costs much.

    Parameters
    ----------
    student_attention, teacher_attention : Tensor of floats, shape (batch, heads, query, key)
        Probabilities over keys, 0 where a key is masked. No gradient flows to the teacher.
    mask : Tensor of bool, shape (batch, query), optional
        True = the query counts. All do without it. A query that may see no key has NaN for
        probabilities: it must not count.

    Returns
    -------
    Tensor
        A scalar in nats: the mean over heads and over the queries that count.

    Raises
    ------
    ValueError
        When the shapes differ (average over heads, ``mean(1, keepdim=True)``, where their
        numbers do), or ``mask`` does not fit or is False everywhere.
    """
    positions.same_shape(student_attention, teacher_attention, "attention")
    student, teacher = (_rows(x, mask) for x in (student_attention, teacher_attention.detach()))
    # The smallest float stands for 0, whose logarithm would make NaN of a masked key.
    logs = student.clamp(min=torch.finfo(student.dtype).tiny).log()
    heads = student_attention.shape[1]
    return F.kl_div(logs, teacher, reduction="none").sum(dim=-1).mean() / heads


def _rows(attention, mask):
    """Return the queries that count, shape (n, heads · keys)."""
    return positions.single(positions.counting(attention.transpose(1, 2).flatten(2), mask))
