"""Text that a teacher wrote: all that can be learned from one whose logits are hidden."""

import math

import torch
from torch import nn

from lightcourse import layers
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
        When ``prompts`` is empty, no matrix of int64 or holds an id that the teacher does
        not know, when prompt + length exceeds its window, or a number is out of range; while
        writing, when the teacher's logits hold NaN or +inf, or are all -inf.
    """
    _check_prompts(teacher, prompts)
    _check_numbers(teacher, prompts, length, temperature)
    generator = torch.Generator(prompts.device).manual_seed(seed)
    with layers.evaluating(teacher):
        return _continued(teacher, prompts, length, temperature, generator)


@torch.no_grad()
def _continued(teacher, ids, length, temperature, generator):
    new, past = ids, None
    for _ in range(length):
        output = teacher(input_ids=new, past_key_values=past, use_cache=True)
        past = output.past_key_values
        new = _chosen(output.logits[:, -1].float(), temperature, generator)
        ids = torch.cat([ids, new], dim=1)
    return ids


def _chosen(logits, temperature, generator):
    scaled = logits / (temperature or 1)
    positions.check_teacher(scaled)
    if temperature == 0:
        return logits.argmax(dim=-1, keepdim=True)
    return torch.multinomial(scaled.softmax(dim=-1), 1, generator=generator)


def _check_prompts(teacher, prompts):
    if prompts.dtype != torch.int64 or prompts.ndim != 2 or not prompts.numel():
        raise ValueError(
            f"prompts is {prompts.dtype} of shape {tuple(prompts.shape)}; torch.int64 of shape "
            "(n, prompt), at least (1, 1), is wanted"
        )
    vocabulary = teacher.get_input_embeddings().num_embeddings
    if prompts.min() < 0 or prompts.max() >= vocabulary:
        raise ValueError(
            f"prompts holds ids from {prompts.min()} to {prompts.max()}; 0..{vocabulary - 1}, "
            "the teacher's vocabulary, is wanted"
        )


def _check_numbers(teacher, prompts, length, temperature):
    if length < 1:
        raise ValueError(f"length is {length}; at least 1 is wanted")
    if not 0 <= temperature < math.inf:
        raise ValueError(f"temperature is {temperature}; 0 (the likeliest) or more is wanted")
    window = teacher.config.max_position_embeddings
    if prompts.shape[1] + length > window:
        raise ValueError(
            f"prompts and length make {prompts.shape[1] + length} tokens; {window} at most, "
            "the teacher's window, are wanted"
        )
