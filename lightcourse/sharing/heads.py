"""One encoder and a head for each task."""

from collections.abc import Mapping
from numbers import Integral

import torch
from torch import nn
from torch.nn import functional as F

from lightcourse import models


class MultiTaskClassifier(nn.Module):
    """An encoder, the mean over its outputs, and a linear layer for each task.

    The encoder is run, stored and trained for all tasks (Caruana 1997, *Multitask Learning*).

    Parameters
    ----------
    encoder : nn.Module
        Any Hugging Face model that returns ``last_hidden_state``.
    num_labels : dict of str to int
        By the tasks' names, which hold no dot, the number of classes, at least 2.

    Raises
    ------
    ValueError
        When there is no task, a name is empty, holds a dot or is an attribute of ``nn.ModuleDict``
        ("items", "type"), or a task has no whole number of classes, 2 or more.
    """

    def __init__(self, encoder: nn.Module, num_labels: Mapping[str, int]):
        super().__init__()
        _check_tasks(num_labels)
        self.config = encoder.config
        self.encoder = encoder
        width = encoder.config.hidden_size
        self.heads = nn.ModuleDict({task: nn.Linear(width, n) for task, n in num_labels.items()})

    def embed(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Return the mean output over the real tokens, shape (batch, hidden_size)."""
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
        return models.mean_output(self.encoder, inputs)

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        task: str,
        labels: torch.Tensor | None = None,
    ):
        """Return one task's logits for a batch, and the mean cross-entropy with labels.

        Parameters
        ----------
        input_ids, attention_mask : torch.Tensor
            int64 of shape (batch, length); the mask is 1 for real tokens, 0 for padding.
        task : str
            All rows are of this task.
        labels : torch.Tensor, optional
            int64 of shape (batch,).

        Returns
        -------
        transformers.modeling_outputs.SequenceClassifierOutput
            With ``logits``, and with ``loss`` where labels were given.

        Raises
        ------
        ValueError
            When there is no such task, or a label is none of its classes.
        """
        return _classified(self._head(task), self.embed(input_ids, attention_mask), labels, task)

    def all_logits(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Return every task's logits, by name, after one pass of the encoder."""
        features = self.embed(input_ids, attention_mask)
        return {task: head(features) for task, head in self.heads.items()}

    def for_task(self, task: str) -> "OneTask":
        """Return this model as the classifier of one task, as :class:`models.EncoderClassifier`.

        Nothing is copied: training it trains the encoder of all tasks.

        Raises
        ------
        ValueError
            When there is no such task.
        """
        return OneTask(self.encoder, self._head(task), task)

    def _head(self, task):
        if task not in self.heads:
            raise ValueError(f"task is {task!r}; one of {list(self.heads)} is wanted")
        return self.heads[task]


class OneTask(nn.Module):
    """The encoder and one head of a :class:`MultiTaskClassifier`, which are shared with it.

    Parameters
    ----------
    encoder, head : nn.Module
    task : str
        For messages.
    """

    def __init__(self, encoder: nn.Module, head: nn.Module, task: str):
        super().__init__()
        self.config = encoder.config
        self.encoder, self.head, self.task = encoder, head, task

    def embed(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Return the mean output over the real tokens, shape (batch, hidden_size)."""
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
        return models.mean_output(self.encoder, inputs)

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        labels: torch.Tensor | None = None,
    ):
        """Return logits and, with labels, the loss, as :class:`MultiTaskClassifier` does."""
        return _classified(self.head, self.embed(input_ids, attention_mask), labels, self.task)


def _classified(head, features, labels, task):
    from transformers.modeling_outputs import SequenceClassifierOutput

    logits = head(features)
    if labels is None:
        return SequenceClassifierOutput(logits=logits)
    try:
        models.check_labels(labels, logits.shape[-1])
    except ValueError as error:
        raise ValueError(f"task {task!r}: {error}") from error
    return SequenceClassifierOutput(loss=F.cross_entropy(logits, labels), logits=logits)


def _check_tasks(num_labels):
    if not num_labels:
        raise ValueError("num_labels is empty; at least one task is wanted")
    for task, count in num_labels.items():
        if not isinstance(task, str) or not task or "." in task:
            raise ValueError(f"num_labels names a task {task!r}; a name without dots is wanted")
        if hasattr(nn.ModuleDict(), task):
            raise ValueError(
                f"num_labels names a task {task!r}, which nn.ModuleDict uses itself; another name "
                "is wanted"
            )
        if not isinstance(count, Integral) or count < 2:
            raise ValueError(
                f"num_labels[{task!r}] is {count!r}; a whole number of classes, at least 2, "
                "is wanted"
            )
