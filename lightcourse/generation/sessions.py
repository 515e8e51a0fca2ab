"""A causal language model that reads on: new tokens behind those that it holds.

Two kinds of session have the same methods. Any model of transformers gets a
:class:`TorchSession`; a model that has a method ``begin`` makes its own.
"""

import inspect
import math

import torch
from torch import nn


def begin(model, mask: torch.Tensor | None = None, cache=None):
    """Return a session of a model that has read nothing yet.

    Parameters
    ----------
    model : nn.Module, or object with ``begin(mask)``
        A causal language model of transformers, or one that keeps its own cache.
    mask : Tensor of bool, shape (n, prompt), optional
        False for padding, which stands on the left: see :func:`pad`.
    cache : transformers.Cache, optional
        For a model of transformers: an empty one, where its keys and values go, such as what
        :func:`quantized_cache` returns.

    Returns
    -------
    session
        With ``length``, ``read(new, keep)`` and ``forget(count)``, as :class:`TorchSession`.

    Raises
    ------
    ValueError
        When a cache is given to a model that keeps its own.
    """
    if not hasattr(model, "begin"):
        return TorchSession(model, mask, cache)
    if cache is not None:
        raise ValueError(
            f"cache is given, but {type(model).__name__} keeps its own; None is wanted"
        )
    return model.begin(mask)


def window_of(model) -> float:
    """Return how many tokens a model can see at once; infinity where it tells none."""
    if hasattr(model, "begin"):
        return model.window
    return getattr(model.config, "max_position_embeddings", math.inf)


def vocabulary_of(model) -> int:
    """Return how many tokens a model knows."""
    if hasattr(model, "begin"):
        return model.vocabulary
    return model.get_input_embeddings().num_embeddings


class TorchSession:
    """A model of transformers with its cache of keys and values.

    Parameters
    ----------
    model : nn.Module
        A causal language model, in evaluation mode.
    mask : Tensor of bool, shape (n, prompt), optional
        False for padding on the left of the first ``prompt`` tokens. Padding is not looked at,
        and takes no position: each text is computed as it would be alone.
    cache : transformers.Cache, optional
        The model's usual one without it.
    """

    def __init__(self, model: nn.Module, mask: torch.Tensor | None = None, cache=None):
        from transformers import DynamicCache

        self.model, self.window = model, window_of(model)
        self.mask = None if mask is None or mask.all() else mask.bool()
        # The window is full when the text with the least padding fills it.
        self._padding = 0 if self.mask is None else int((~self.mask).sum(1).min())
        self.cache = DynamicCache(config=model.config) if cache is None else cache
        # A model that is wrapped may hide this argument; then all logits are computed.
        self._keeps = "logits_to_keep" in inspect.signature(model.forward).parameters

    @property
    def length(self) -> int:
        """The tokens read, of each text, padding included."""
        return self.cache.get_seq_length()

    @torch.no_grad()
    def read(self, new: torch.Tensor, keep: int = 1) -> torch.Tensor:
        """Read new tokens behind those held; return the logits of the last ``keep`` positions.

        Parameters
        ----------
        new : Tensor of int64, shape (n, t)
        keep : int
            From 1 to t. A vocabulary is large: logits that nobody asks for are not computed.

        Returns
        -------
        Tensor of float32, shape (n, keep, vocabulary)

        Raises
        ------
        ValueError
            When ``keep`` is out of range, or a text would grow beyond the model's window.
        """
        if not 1 <= keep <= new.shape[1]:
            raise ValueError(f"keep is {keep}; 1 to {new.shape[1]}, the new tokens, is wanted")
        places = self._places(new)
        if self._keeps:
            places["logits_to_keep"] = keep
        output = self.model(input_ids=new, past_key_values=self.cache, use_cache=True, **places)
        return output.logits[:, -keep:].float()

    def forget(self, count: int) -> None:
        """Drop the last ``count`` tokens.

        Raises
        ------
        ValueError
            When fewer are held, or the cache cannot give back what it was before.
        """
        if not 0 <= count <= self.length:
            raise ValueError(f"count is {count}; 0 to {self.length}, the tokens held, is wanted")
        try:
            self.cache.crop(-count)
        except RuntimeError as error:  # transformers' sliding windows
            raise ValueError(f"{type(self.cache).__name__} forgets nothing: {error}") from error

    def _places(self, new):
        """Return the arguments that tell where new tokens stand, and what they see."""
        held, after = self.length, self.length + new.shape[1]
        check_window(after - self._padding, self.window)
        own = getattr(self.cache, "visible", None)
        if self.mask is None and own is None:
            return {}
        mask = self._mask(new, after)
        places = {"position_ids": (mask.cumsum(1) - 1).clamp(min=0)[:, held:]}
        # A cache that drops tokens out of turn knows best which of them are seen.
        places["attention_mask"] = mask.long() if own is None else own(mask, self.model.dtype)
        return places

    def _mask(self, new, after):
        if self.mask is None:
            return new.new_ones(len(new), after, dtype=torch.bool)
        more = after - self.mask.shape[1]
        return nn.functional.pad(self.mask, (0, max(more, 0)), value=True)[:, :after]


def check_window(count: int, window: float) -> None:
    """Raise ``ValueError`` where a text would be longer than the model's window."""
    if count > window:
        raise ValueError(
            f"a text would be {count} tokens long; {window} at most, the model's window, are wanted"
        )
