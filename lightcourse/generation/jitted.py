"""A causal language model whose steps run in one jitted call, from embedded tokens to logits."""

import numpy as np
import torch
from torch import nn

from lightcourse.generation import parts
from lightcourse.generation.sessions import check_window
from lightcourse.generation.state import State
from lightcourse.kernels import paths

# Rows that are read at once: what lies between the products should stay in the second cache.
MOST_ROWS = 128


def jit(model: nn.Module) -> "Jitted":
    """Prepare a quantized model for fast reading and writing.

    All between embedded tokens and logits, norms, rotations, attention over a cache in place,
    and the products of integers, becomes a list of compiled cores that one call runs
    (:mod:`lightcourse.kernels.program`). Every linear layer must multiply integers:
    ``quantize_(model, …, activations=8)``, and an output layer, too.

    Parameters
    ----------
    model : nn.Module
        A ``LlamaForCausalLM``, ``MistralForCausalLM``, ``Qwen2ForCausalLM`` or
        ``GPT2LMHeadModel`` of transformers, in evaluation mode. Its integers are shared, not
        copied: it must stay as it is.

    Returns
    -------
    Jitted
        Takes the model's place in :func:`stream`, :func:`generate`, :func:`write` and
        :func:`speculate`.

    Raises
    ------
    ValueError
        When a part of the model is unknown, changed, in training, or multiplies floats; the first
        such part is named.
    """
    return Jitted(model, parts.read(model))


class Jitted:
    """A model that keeps its own cache: what :func:`jit` returns.

    Parameters
    ----------
    model : nn.Module
    parts : parts.Parts
        What was read from it.

    Attributes
    ----------
    config : transformers configuration
    window, vocabulary : int
        Tokens of a text, and tokens that the model knows.
    """

    def __init__(self, model, parts):
        self.parts, self.config = parts, model.config
        self.window, self.vocabulary = model.config.max_position_embeddings, parts.vocabulary

    def begin(self, mask: torch.Tensor | None = None) -> "JittedSession":
        """Return a session that has read nothing; its first reading says how many texts."""
        return JittedSession(self, mask)


class JittedSession:
    """Texts that a jitted model reads on; as :class:`lightcourse.generation.TorchSession`."""

    def __init__(self, jitted: Jitted, mask: torch.Tensor | None = None):
        self.jitted, self.mask, self.length = jitted, mask, 0
        self._starts = None if mask is None else (~mask.bool()).sum(1).numpy().astype(np.int64)
        self._state = None

    @torch.no_grad()
    def read(self, new: torch.Tensor, keep: int = 1) -> torch.Tensor:
        """Read new tokens behind those held; return the logits of the last ``keep`` positions.

        Parameters and errors are those of :meth:`lightcourse.generation.TorchSession.read`.
        """
        state, threads = self._prepared(new, keep), paths.claim_all()
        try:
            last = np.empty((len(new), 0, state.parts.width), np.float32)
            for piece in new.split(state.times, dim=1):
                found = state.run(piece, self.length, threads)
                self.length += piece.shape[1]
                last = np.concatenate([last, found], axis=1)[:, -keep:]
            rows = last.reshape(-1, last.shape[-1])
            return state.tail.logits(rows, threads).view(len(new), keep, -1)
        finally:
            paths.release(threads)

    def forget(self, count: int) -> None:
        """Drop the last ``count`` tokens; raise ``ValueError`` when fewer are held."""
        if not 0 <= count <= self.length:
            raise ValueError(f"count is {count}; 0 to {self.length}, the tokens held, is wanted")
        self.length -= count

    def _prepared(self, new, keep):
        """Look at the arguments, and make room for what comes."""
        texts, times = new.shape
        if not 1 <= keep <= times:
            raise ValueError(f"keep is {keep}; 1 to {times}, the new tokens, is wanted")
        low, high = new.aminmax()
        if low < 0 or high >= self.jitted.vocabulary:
            wanted = f"0..{self.jitted.vocabulary - 1}, the model's vocabulary, is wanted"
            raise ValueError(f"new holds ids from {low} to {high}; {wanted}")
        padding = 0 if self._starts is None else int(self._starts.min())
        check_window(self.length + times - padding, self.jitted.window)
        if self._state is None:
            starts = np.zeros(texts, np.int64) if self._starts is None else self._starts
            self._state = State(self.jitted.parts, starts, MOST_ROWS)
        if texts != self._state.texts:
            raise ValueError(f"new holds {texts} texts; {self._state.texts}, as before, is wanted")
        self._state.grow(self.length + times, self.jitted.window)
        return self._state
