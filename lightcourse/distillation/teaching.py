"""The loss with which ``training.train`` distills from a teacher that runs beside it."""

from collections.abc import Callable

import torch
from torch import nn

from lightcourse import asking, layers
from lightcourse.distillation import positions
from lightcourse.distillation.losses import distillation_loss


def taught_by(
    teacher: nn.Module, temperature: float = 2.0, soft_weight: float = 0.5
) -> Callable[[nn.Module, dict], torch.Tensor]:
    """Return the loss that :func:`lightcourse.training.train` wants for distillation.

    Classifiers and causal language models are told apart by their logits, of 2 or of 3
    dimensions; of the latter position t is judged by label t + 1. What ``attention_mask``
    or a label of -100 marks as padding does not count.

    Parameters
    ----------
    teacher : nn.Module
        With ``logits`` in its output. It is asked in evaluation mode, without gradients,
        on the very batch that the student sees, and keeps its own mode.
    temperature, soft_weight : float
        See :func:`distillation_loss`.

    Returns
    -------
    callable
        ``loss(student, batch)``; a batch has no need of ``labels`` when ``soft_weight``
        is 1.

    Raises
    ------
    ValueError
        When a number is out of range; while training, when the student is the teacher
        itself, or as :func:`distillation_loss` does.
    """
    positions.check_temperature(temperature)
    positions.check_soft_weight(soft_weight)

    def loss(student, batch):
        if student is teacher:
            raise ValueError("student is the teacher itself; student_from makes one of its own")
        inputs = asking.inputs_of(batch)
        teacher_logits = ask(teacher, inputs)
        student_logits = student(**inputs).logits
        labels = positions.answers(batch, student_logits, soft_weight)
        return distillation_loss(student_logits, teacher_logits, labels, temperature, soft_weight)

    return loss


@torch.no_grad()
def ask(teacher: nn.Module, inputs: dict) -> torch.Tensor:
    """Return the teacher's logits, in evaluation mode and without gradients."""
    with layers.evaluating(teacher):
        return teacher(**inputs).logits
