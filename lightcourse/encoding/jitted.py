"""An encoder whose steps run in one jitted call for each piece of a batch."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from lightcourse.encoding import parts
from lightcourse.encoding.state import State
from lightcourse.kernels import paths

# Rows that are read at once: what lies between the products should stay in the second cache.
MOST_ROWS = 128


def jit(model: nn.Module) -> "JittedEncoder":
    """Prepare a quantized encoder for fast reading.

    All behind the embeddings, attention, norms, GELU and the products of integers, becomes a list
    of compiled cores that one call runs (:mod:`lightcourse.kernels.program`). Every linear
    layer must multiply integers: ``quantize_(model, …, activations=8)``.

    Parameters
    ----------
    model : nn.Module
        A ``BertModel`` of transformers without a pooler, in evaluation mode, such as
        ``models.load_minilm()``. Its integers are shared, not copied: it must stay as it is.

    Returns
    -------
    JittedEncoder
        Takes the model's place in :func:`lightcourse.models.embed` and
        :class:`lightcourse.models.EncoderClassifier`.

    Raises
    ------
    ValueError
        When a part of the model is unknown, changed, in training, or multiplies floats; the first
        such part is named.
    """
    return JittedEncoder(parts.read(model), model.config)


class JittedEncoder(nn.Module):
    """An encoder for inference alone, without parameters of its own: what :func:`jit` returns.

    Parameters
    ----------
    parts : parts.Parts
        What was read from the model.
    config : transformers configuration
    """

    def __init__(self, parts: parts.Parts, config):
        super().__init__()
        self.parts, self.config = parts, config
        self._free = []  # states that nobody uses now: callers may be several
        self.eval()

    @torch.no_grad()
    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
    ):
        """Read texts, without gradients.

        Parameters
        ----------
        input_ids : Tensor of int64, shape (texts, length)
        attention_mask : Tensor, shape (texts, length), optional
            1 for tokens, 0 for padding, which may stand before a text, behind it, or both. Padding
            costs nothing where the texts of a piece are equally long.
        token_type_ids : Tensor of int64, shape (texts, length), optional

        Returns
        -------
        transformers.modeling_outputs.BaseModelOutput
            ``last_hidden_state``, float32 of shape (texts, length, width). It is zero where there
            is padding; there the model itself has numbers, which mean nothing.

        Raises
        ------
        ValueError
            When shapes, ids or the mask are not as above, a text is longer than the model's
            window, or the encoder was put into training mode.
        """
        from transformers.modeling_outputs import BaseModelOutput

        if self.training:
            raise ValueError("the encoder is in training mode; encoder.eval() is wanted")
        ids, spans, kinds = _checked(self.parts, input_ids, attention_mask, token_type_ids)
        hidden = np.zeros((*ids.shape, self.parts.width), np.float32)
        state, threads = self._take(), paths.claim_all()
        try:
            for piece in _pieces(spans):
                texts = [_embedded(self.parts, ids[i], kinds[i], spans[i]) for i in piece]
                state.run(texts, [hidden[i, spans[i]] for i in piece], threads)
        finally:
            paths.release(threads)
            self._free.append(state)
        return BaseModelOutput(last_hidden_state=torch.from_numpy(hidden))

    def _take(self):
        try:
            return self._free.pop()
        except IndexError:
            return State(self.parts, max(MOST_ROWS, len(self.parts.places)))

    def __getstate__(self):
        """Leave out states, whose programs know addresses: a copy makes its own."""
        return self.__dict__ | {"_free": []}


def _pieces(spans: list[slice]) -> Iterator[list[int]]:
    """Yield which texts are read at once: the longest first, beside those as long as they are."""
    lengths = [span.stop - span.start for span in spans]
    order = sorted(filter(lengths.__getitem__, range(len(spans))), key=lambda i: -lengths[i])
    while order:
        count = max(MOST_ROWS // lengths[order[0]], 1)
        yield order[:count]
        order = order[count:]


def _embedded(parts, ids, kinds, span) -> np.ndarray:
    """Return the sums of a text's embeddings, before their norm: (length, width)."""
    found = parts.words(ids[span])
    found += parts.places[span]
    found += parts.kinds[kinds[span]]
    return found


def _checked(parts, input_ids, attention_mask, token_type_ids):
    """Return ids, where each text starts and ends, and kinds of tokens, or raise."""
    ids = _checked_ids("input_ids", input_ids, parts.vocabulary)
    window = len(parts.places)
    if ids.shape[1] > window:
        raise ValueError(f"input_ids are {ids.shape[1]} long; {window} at most are wanted")
    kinds = np.zeros_like(ids)
    if token_type_ids is not None:
        _check_shape("token_type_ids", token_type_ids, ids.shape)
        kinds = _checked_ids("token_type_ids", token_type_ids, len(parts.kinds))
    if attention_mask is None:
        return ids, [slice(0, ids.shape[1])] * len(ids), kinds
    _check_shape("attention_mask", attention_mask, ids.shape)
    seen = attention_mask.numpy() != 0
    return ids, [_span(text, i) for i, text in enumerate(seen)], kinds


def _span(seen: np.ndarray, number: int) -> slice:
    """Return where a text starts and ends, from its row of a mask."""
    places = seen.nonzero()[0]
    if not len(places):
        return slice(0, 0)
    first, last = int(places[0]), int(places[-1]) + 1
    if len(places) != last - first:
        raise ValueError(
            f"attention_mask has a gap within text {number}; padding before or behind a text is "
            "wanted"
        )
    return slice(first, last)


def _check_shape(name, tensor, shape):
    if tuple(tensor.shape) != shape:
        raise ValueError(f"{name} is {tuple(tensor.shape)}; {shape}, as input_ids, is wanted")


def _checked_ids(name, ids, count) -> np.ndarray:
    if ids.ndim != 2 or ids.is_floating_point():
        found = f"{ids.dtype} of shape {tuple(ids.shape)}"
        raise ValueError(f"{name} is {found}; int64 of shape (texts, length) is wanted")
    ids = ids.numpy()
    if ids.size and (ids.min() < 0 or ids.max() >= count):
        found = f"{ids.min()} to {ids.max()}"
        raise ValueError(f"{name} holds {found}; 0..{count - 1} is wanted")
    return ids
