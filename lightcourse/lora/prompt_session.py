"""A prompt's keys and values in a cache, and the text behind them: for generation."""

import torch
from torch import nn

from lightcourse.generation import TorchSession


class PromptSession:
    """A session of a model that has read trained vectors, and counts the text alone.

    As :class:`lightcourse.generation.TorchSession`: what a text's tokens see before them is the
    prompt, which is computed once, at the first reading.

    Parameters
    ----------
    model : nn.Module
        The causal language model without its prompt, in evaluation mode.
    prompt : Tensor of shape (tokens, hidden)
    mask : Tensor of bool, shape (n, length), optional
        False for padding on the left.
    """

    def __init__(self, model: nn.Module, prompt: torch.Tensor, mask: torch.Tensor | None = None):
        if mask is not None:
            mask = nn.functional.pad(mask.bool(), (len(prompt), 0), value=True)
        self.prompt, self.inner = prompt, TorchSession(model, mask)

    @property
    def length(self) -> int:
        """The text's tokens read, padding included."""
        return max(self.inner.length - len(self.prompt), 0)

    @torch.no_grad()
    def read(self, new: torch.Tensor, keep: int = 1) -> torch.Tensor:
        """Read new tokens, as :meth:`lightcourse.generation.TorchSession.read`."""
        if not self.inner.length:
            vectors = self.prompt.to(self.inner.model.dtype).expand(len(new), -1, -1)
            cache = {"past_key_values": self.inner.cache, "use_cache": True}
            self.inner.model(inputs_embeds=vectors, **cache)
        return self.inner.read(new, keep)

    def forget(self, count: int) -> None:
        """Drop the last ``count`` tokens of the text; the prompt stays."""
        if not 0 <= count <= self.length:
            raise ValueError(f"count is {count}; 0 to {self.length}, the tokens held, is wanted")
        self.inner.forget(count)
