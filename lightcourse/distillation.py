"""Teaching a small model with the probabilities of a large one."""

import copy
from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn import functional as F


def distillation_loss(
    student_logits: torch.Tensor,
    teacher_logits: torch.Tensor,
    labels: torch.Tensor,
    temperature: float = 2.0,
    soft_weight: float = 0.5,
) -> torch.Tensor:
    """Return (1 - soft_weight) · CE + soft_weight · T² · KL(teacher ‖ student).

    Hinton, Vinyals & Dean 2015, arXiv 1503.02531: both softmaxes of the KL term are taken
    at temperature T; T² keeps its gradient at the size of the other term's.

    Parameters
    ----------
    student_logits, teacher_logits : Tensor of floats, shape (batch, classes)
        No gradient flows to the teacher.
    labels : Tensor of int64, shape (batch,)
    temperature : float
        Above 0; larger values show more of what the teacher thinks of wrong classes.
    soft_weight : float
        0 (labels alone) to 1 (teacher alone).

    Returns
    -------
    Tensor
        A scalar in nats: the mean over the batch.

    Raises
    ------
    ValueError
        When the shapes differ or a number is out of range.

    Examples
    --------
    >>> logits = torch.tensor([[2.0, 0.0]])
    >>> distillation_loss(logits, logits, torch.tensor([0]), soft_weight=1.0).item()
    0.0
    """
    if student_logits.shape != teacher_logits.shape:
        raise ValueError(
            f"teacher_logits has shape {tuple(teacher_logits.shape)}; "
            f"the student's {tuple(student_logits.shape)} is wanted"
        )
    if not temperature > 0:
        raise ValueError(f"temperature is {temperature}; a number above 0 is wanted")
    if not 0 <= soft_weight <= 1:
        raise ValueError(f"soft_weight is {soft_weight}; a number from 0 to 1 is wanted")
    hard = F.cross_entropy(student_logits, labels)
    soft = F.kl_div(
        F.log_softmax(student_logits / temperature, dim=-1),
        F.log_softmax(teacher_logits.detach() / temperature, dim=-1),
        reduction="batchmean",
        log_target=True,
    )
    return (1 - soft_weight) * hard + soft_weight * temperature**2 * soft


def taught_by(
    teacher: nn.Module, temperature: float = 2.0, soft_weight: float = 0.5
) -> Callable[[nn.Module, dict], torch.Tensor]:
    """Return the loss that :func:`lightcourse.training.train` wants for distillation.

    Parameters
    ----------
    teacher : nn.Module
        A classifier with ``logits`` in its output. It is asked in evaluation mode, without
        gradients, on the very batch that the student sees.
    temperature, soft_weight : float
        See :func:`distillation_loss`.
    """
    teacher.eval()

    def loss(student, batch):
        with torch.no_grad():
            teacher_logits = teacher(**batch).logits
        student_logits = student(**batch).logits
        labels = batch["labels"]
        return distillation_loss(student_logits, teacher_logits, labels, temperature, soft_weight)

    return loss


def student_from(model: nn.Module, keep: Sequence[int]) -> nn.Module:
    """Return a copy of ``model`` that has only some of its transformer layers.

    The way DistilBERT's student began (Sanh et al. 2019, arXiv 1910.01108).

    Parameters
    ----------
    model : nn.Module
        Contains one stack of transformer layers (a ``ModuleList``), as BERT, GPT-2 and
        Llama do; embeddings and head are copied along. Unchanged.
    keep : sequence of int
        Which layers, counted from 0, in the order in which the student runs them.

    Raises
    ------
    ValueError
        When there is no stack of layers, or ``keep`` is empty or names a missing layer.
    """
    student = copy.deepcopy(model)
    stacks = [(name, m) for name, m in student.named_modules() if isinstance(m, nn.ModuleList)]
    if not stacks:
        raise ValueError(f"model is a {type(model).__name__} without a ModuleList of layers")
    name, stack = max(stacks, key=lambda pair: len(pair[1]))
    if not keep or any(index not in range(len(stack)) for index in keep):
        raise ValueError(f"keep is {list(keep)}; some of the layers 0..{len(stack) - 1} are wanted")
    kept = nn.ModuleList(copy.deepcopy(stack[index]) for index in keep)
    parent, _, child = name.rpartition(".")
    setattr(student.get_submodule(parent), child, kept)
    _renumber(student, kept)
    return student.eval()


def _renumber(student, kept):
    """Tell the layers their new positions, the keys of their KV cache, and their number."""
    for index, layer in enumerate(kept):
        for module in layer.modules():
            if hasattr(module, "layer_idx"):
                module.layer_idx = index
    for module in student.modules():
        if config := getattr(module, "config", None):
            config.num_hidden_layers = len(kept)
