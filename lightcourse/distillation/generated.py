"""Text that a teacher wrote: all that can be learned from one whose logits are hidden."""

import math

import torch
from torch import nn

from lightcourse import generation
from lightcourse.distillation import positions


def generate_targets(
    teacher: nn.Module,
    prompts: torch.Tensor,
    length: int,
    temperature: float = 1.0,
    seed: int = 0,
) -> torch.Tensor:
    """Return prompts with ``length`` tokens that the teacher wrote behind each.

    Training on them by cross-entropy is sequence-level distillation (Kim & Rush 2016, arXiv
    1606.07947, who take the likeliest text; samples show more of what the teacher knows).
    Decoded and tokenized anew they teach a student of any vocabulary.

    Parameters
    ----------
    teacher : nn.Module
        A causal language model of transformers. Asked in evaluation mode with its KV cache,
        which grows with n · (prompt + length): split many prompts. Unchanged.
    prompts : Tensor of int64, shape (n, prompt)
        Of equal length, without padding.
    length : int
        New tokens, at least 1. An end token does not stop the text: another one follows.
    temperature : float
        Of the sampling; 0 takes the likeliest token each time.
    seed : int
        Of a generator of its own: torch's global one does not move.

    Returns
    -------
    Tensor of int64, shape (n, prompt + length)

    Raises
    ------
    ValueError
        As :func:`lightcourse.generation.generate`, and when ``temperature`` is out of range;
        while writing, when the teacher's logits hold NaN or +inf, or are all -inf.
    """
    if not 0 <= temperature < math.inf:
        raise ValueError(f"temperature is {temperature}; 0 (the likeliest) or more is wanted")
    choose = generation.likeliest
    if temperature:
        generator = torch.Generator(prompts.device).manual_seed(seed)
        choose = generation.sampled(temperature, generator)

    def checked(logits):
        positions.check_teacher(logits / (temperature or 1))
        return choose(logits)

    return generation.generate(teacher, prompts, length, checked)
