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
        self.config, self._held = config, [parts]  # in a list: no modules of this one
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

        (parts,) = self._held
        if self.training:
            raise ValueError("the encoder is in training mode; encoder.eval() is wanted")
        _check_ids("input_ids", input_ids, parts.vocabulary)
        shape = tuple(input_ids.shape)
        if shape[1] > parts.window:
            raise ValueError(f"input_ids are {shape[1]} long; {parts.window} at most are wanted")
        if token_type_ids is not None:
            _check_shape("token_type_ids", token_type_ids, shape)
            _check_ids("token_type_ids", token_type_ids, parts.kinds)
        if attention_mask is not None:
            _check_shape("attention_mask", attention_mask, shape)
        starts, lengths = _spans(attention_mask, shape)
        hidden = torch.zeros(*shape, parts.width)
        state, threads = self._take(parts), paths.claim_all()
        try:
            for texts in _pieces(lengths):
                span = starts[texts], lengths[texts]
                _read(state, threads, (input_ids, token_type_ids), texts, span, hidden)
        finally:
            paths.release(threads)
            self._free.append(state)
        return BaseModelOutput(last_hidden_state=hidden)

    def _take(self, parts):
        try:
            return self._free.pop()
        except IndexError:
            return State(parts, max(MOST_ROWS, parts.window))

    def __getstate__(self):
        """Leave out states, whose programs know addresses: a copy makes its own."""
        return self.__dict__ | {"_free": []}


def _pieces(lengths: np.ndarray) -> Iterator[np.ndarray]:
    """Yield which texts are read at once: the longest first, beside those as long as they are."""
    order = np.argsort(-lengths, kind="stable")[: np.count_nonzero(lengths)]
    while len(order):
        count = max(MOST_ROWS // lengths[order[0]], 1)
        yield order[:count]
        order = order[count:]


def _read(state, threads, inputs, texts, span, hidden):
    """Read a piece, and write what is found about its texts to their places."""
    starts, lengths = span
    places = starts[:, None] + np.arange(lengths[0])
    places = torch.from_numpy(places.clip(max=hidden.shape[1] - 1))
    rows = torch.from_numpy(texts)[:, None]
    ids, kinds = (None if each is None else each[rows, places] for each in inputs)
    embedded = state.parts.embeddings(input_ids=ids, token_type_ids=kinds, position_ids=places)
    found = torch.from_numpy(state.run(embedded.float(), lengths, threads))
    for i, (text, start, length) in enumerate(zip(texts, starts, lengths, strict=True)):
        hidden[text, start : start + length] = found[i, :length]


def _spans(mask, shape) -> tuple[np.ndarray, np.ndarray]:
    """Return where each text starts, and how long it is, from a mask of one run of ones."""
    texts, length = shape
    if mask is None:
        return np.zeros(texts, np.int64), np.full(texts, length)
    seen = mask.numpy() != 0
    starts, lengths = seen.argmax(1), seen.sum(1)
    places = np.arange(length) - starts[:, None]
    torn = ((places >= 0) & (places < lengths[:, None]) != seen).any(1)
    if torn.any():
        raise ValueError(
            f"attention_mask has a gap within text {torn.argmax()}; padding before or behind a "
            "text is wanted"
        )
    return starts, lengths


def _check_shape(name, tensor, shape):
    if tuple(tensor.shape) != shape:
        raise ValueError(f"{name} is {tuple(tensor.shape)}; {shape}, as input_ids, is wanted")


def _check_ids(name, ids, count):
    if ids.ndim != 2 or ids.is_floating_point():
        found = f"{ids.dtype} of shape {tuple(ids.shape)}"
        raise ValueError(f"{name} is {found}; int64 of shape (texts, length) is wanted")
    low, high = ids.aminmax() if ids.numel() else (0, 0)
    if low < 0 or high >= count:
        raise ValueError(f"{name} holds {low} to {high}; 0..{count - 1} is wanted")
