"""Which positions of a batch count, and what every loss asks of its arguments."""

import math

import torch
from torch.nn import functional as F

from lightcourse import models

IGNORED = -100  # the label that does not count, to torch and to Hugging Face


def check_temperature(temperature: float) -> None:
    """Raise ``ValueError`` unless ``temperature`` is positive and finite."""
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature is {temperature}; a number above 0 is wanted")


def check_soft_weight(soft_weight: float) -> None:
    """Raise ``ValueError`` unless ``soft_weight`` lies between 0 and 1."""
    if not 0 <= soft_weight <= 1:
        raise ValueError(f"soft_weight is {soft_weight}; a number from 0 to 1 is wanted")


def check_classes(student_classes: int, teacher_classes: int) -> None:
    """Raise ``ValueError`` when two models do not speak of the same classes."""
    if student_classes != teacher_classes:
        raise ValueError(
            f"the student has {student_classes} classes and the teacher {teacher_classes}: logits "
            "can be matched only over one vocabulary. Of a teacher with another one the text can "
            "be learned: generate_targets, decode, and tokenize for the student"
        )


def check_labels(labels: torch.Tensor, logits: torch.Tensor) -> None:
    """Raise ``ValueError`` when labels do not fit the logits or when none of them counts."""
    if labels.shape != logits.shape[:-1]:
        raise ValueError(
            f"labels has shape {tuple(labels.shape)}; {tuple(logits.shape[:-1])}, one for each "
            "row of logits, is wanted"
        )
    counting = labels[labels != IGNORED]
    if not len(counting):
        raise ValueError(f"every label is {IGNORED}, which does not count; one that does is wanted")
    models.check_labels(counting, logits.shape[-1])


def same_shape(student: torch.Tensor, teacher: torch.Tensor, what: str) -> None:
    """Raise ``ValueError`` when the two tensors' shapes differ; ``what`` they hold is named."""
    if student.shape != teacher.shape:
        raise ValueError(
            f"teacher_{what} has shape {tuple(teacher.shape)}; the student's "
            f"{tuple(student.shape)} is wanted"
        )


def single(x: torch.Tensor) -> torch.Tensor:
    """Return half-precision floats as float32, and any others as they are."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def counting(x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Return the rows of ``x`` where ``mask`` is True, shape (n, last); all without one.

    Chosen before anything is computed: a NaN in a row of padding would reach the gradient
    of the others through a product with 0.

    Raises
    ------
    ValueError
        When the mask is not boolean, has another shape, or leaves nothing to count.
    """
    if mask is not None and (mask.dtype != torch.bool or mask.shape != x.shape[:-1]):
        raise ValueError(
            f"mask is {mask.dtype} of shape {tuple(mask.shape)}; torch.bool of shape "
            f"{tuple(x.shape[:-1])} is wanted"
        )
    rows = x.reshape(-1, x.shape[-1]) if mask is None else x[mask]
    if not len(rows):
        raise ValueError("mask is False everywhere; a position that counts is wanted")
    return rows


def check_teacher(logits: torch.Tensor) -> None:
    """Raise ``ValueError`` where a row of a teacher's logits is no distribution.

    -inf excludes a class and is well; NaN, +inf, and -inf throughout are not.
    """
    # A row's largest tells all three: it is NaN where anything is.
    lost = ~logits.amax(dim=-1).isfinite()
    if lost.any():
        raise ValueError(
            f"teacher_logits hold NaN, +inf or nothing but -inf at {int(lost.sum())} of "
            f"{lost.numel()} positions (at the given temperature); finite ones are wanted, and "
            "-inf only for a class that is excluded"
        )


def next_labels(labels: torch.Tensor) -> torch.Tensor:
    """Return what each position predicts: the label behind it; behind the last one is none."""
    return F.pad(labels[..., 1:], (0, 1), value=IGNORED)


def answers(batch: dict, logits: torch.Tensor, soft_weight: float) -> torch.Tensor:
    """Return one label for each row of ``logits``; -100 where the row does not count.

    A batch without labels gets some that only tell which rows count: none is looked at
    where ``soft_weight`` is 1.

    Parameters
    ----------
    batch : dict
        With ``labels`` or not; with ``attention_mask``, 0 at padding, or not.
    logits : Tensor
        (batch, classes) of a classifier, (batch, time, vocabulary) of a causal LM.
    soft_weight : float

    Raises
    ------
    ValueError
        When ``logits`` has another number of dimensions, or labels are missing.
    """
    if "labels" not in batch and soft_weight < 1:
        raise ValueError(f"batch has no labels and soft_weight is {soft_weight}; 1 is wanted then")
    if logits.ndim == 2:
        return batch.get("labels", logits.new_zeros(len(logits), dtype=torch.int64))
    if logits.ndim != 3:
        raise ValueError(
            f"the logits have shape {tuple(logits.shape)}; (batch, classes) or (batch, time, "
            "vocabulary) is wanted"
        )
    labels = batch["labels" if "labels" in batch else "input_ids"]
    padding = batch.get("attention_mask", torch.ones_like(labels)) == 0
    return next_labels(labels.masked_fill(padding, IGNORED)).masked_fill(padding, IGNORED)
