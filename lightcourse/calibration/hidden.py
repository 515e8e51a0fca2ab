"""One run of a model over a text, in which hooks show what passes through some modules."""

from collections.abc import Callable, Iterable

import torch
from torch import nn

from lightcourse.calibration.observing import run_hooked


def see_hidden(
    model: nn.Module,
    batches: Iterable[dict],
    names: Iterable[str],
    see: Callable[[str, torch.Tensor, torch.Tensor], None],
) -> None:
    """Show what goes into some modules and comes out, batch by batch.

    Parameters
    ----------
    model : nn.Module
        Runs once over the batches, in evaluation mode, without gradients; unchanged.
    batches : iterable of dict
        Keyword arguments for the model; ``labels`` are left out. Tokens where
        ``attention_mask`` (``decoder_attention_mask`` in a decoder behind an encoder) is 0
        are not shown.
    names : iterable of str
        Modules that make hidden states of hidden states: transformer layers, norms.
    see : callable
        ``see(name, before, after)`` with two float32 Tensors of shape (tokens, width).

    Raises
    ------
    ValueError
        As :func:`run_hooked`, or when a module gives another shape than it is given, or NaN,
        or infinity.
    """
    asked = {}
    hooks = [
        model.get_submodule(name).register_forward_hook(_shower(name, asked, see), with_kwargs=True)
        for name in names
    ]
    run_hooked(model, batches, hooks, asked)


def _shower(name, asked, see):
    def show(_, args, kwargs, output):
        before = args[0] if args else kwargs["hidden_states"]
        after = output if isinstance(output, torch.Tensor) else output[0]
        if before.shape != after.shape:
            raise ValueError(
                f"{name} makes {tuple(after.shape)} of {tuple(before.shape)}; a module that keeps "
                "the shape is wanted"
            )
        if not torch.isfinite(after).all():
            raise ValueError(f"{name} gives NaN or infinity; finite hidden states are wanted")
        real = _real(name, asked["inputs"], after)
        see(name, before[real].float(), after[real].float())

    return show


def _real(name, inputs, hidden):
    """Return which positions are no padding: all, where no mask is one of these positions."""
    behind_encoder = "decoder" in name and "decoder_input_ids" in inputs
    mask = inputs.get("decoder_attention_mask" if behind_encoder else "attention_mask")
    if mask is not None and mask.shape == hidden.shape[:-1]:
        return mask.bool()
    return torch.ones(hidden.shape[:-1], dtype=torch.bool, device=hidden.device)
