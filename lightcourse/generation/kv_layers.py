"""Caches of keys and values for the models of transformers, as its own classes want them.

Imported late: a class of transformers needs transformers. :mod:`lightcourse.generation.kv_cache`
makes the caches.
"""

import torch
from transformers.cache_utils import Cache, DynamicLayer

from lightcourse.generation.kv_packing import joined, round_and_pack, unpacked


def check_attention(config) -> None:
    """Raise ``ValueError`` unless all layers of a model look at the whole text."""
    kinds = getattr(config, "layer_types", None)
    if kinds is None:  # older kinds of models have one setting for all layers
        kinds = ["sliding_attention"] if getattr(config, "sliding_window", None) else []
    if others := sorted(set(kinds) - {"full_attention"}):
        raise ValueError(
            f"config has layers of {others}; a model is wanted whose layers all look at the whole "
            "text (full_attention)"
        )


class CountedCache(Cache):
    """A cache that tells its bytes."""

    @property
    def bytes(self) -> int:
        """The bytes of all that is held, grids included."""
        return sum(layer.bytes for layer in self.layers)


class QuantizedLayer(DynamicLayer):
    """The keys and values of one layer: whole groups of tokens packed, the newest in floats.

    Parameters
    ----------
    bits : {2, 4, 8}
    group : int
        Tokens that are packed at once.
    residual : int
        Newest tokens that stay in floats at least.
    """

    def __init__(self, bits: int, group: int, residual: int):
        super().__init__()
        self.bits, self.group, self.residual = bits, group, residual
        # Of shape (n, heads, groups, group, head_dim), along dimension 2 longer with time.
        self.packed_keys = self.packed_values = None

    def reset(self) -> None:
        """Forget everything."""
        super().reset()
        self.packed_keys = self.packed_values = None

    def update(self, key_states, value_states, *args, **kwargs):
        """Hold new keys and values; return all of them as floats of the model's dtype.

        The new ones are returned as they came: they are rounded for those after them.

        Parameters
        ----------
        key_states, value_states : Tensor of floats, shape (n, heads, t, head_dim)
        *args, **kwargs
            Not looked at.

        Returns
        -------
        tuple of two Tensors, shape (n, heads, length, head_dim)
        """
        keys, values = super().update(key_states, value_states)
        if self.packed_keys is not None:
            keys, values = _behind(self.packed_keys, keys), _behind(self.packed_values, values)
        count = (self.keys.shape[-2] - self.residual) // self.group * self.group
        if count > 0:
            self._pack(count)
        return keys, values

    def _pack(self, count):
        """Pack the oldest tokens of those in floats: keys by channel, values by token."""
        keys, values = self.keys[..., :count, :], self.values[..., :count, :]
        # Cloned: a view would keep the floats of all.
        self.keys, self.values = (x[..., count:, :].clone() for x in (self.keys, self.values))
        keys, values = (x.unflatten(-2, (-1, self.group)) for x in (keys, values))
        self.packed_keys = joined(self.packed_keys, round_and_pack(keys, self.bits, dim=-2))
        self.packed_values = joined(self.packed_values, round_and_pack(values, self.bits, dim=-1))

    def get_seq_length(self) -> int:
        """Return the tokens held, packed ones among them."""
        packed = 0 if self.packed_keys is None else self.packed_keys.low.shape[2] * self.group
        return packed + super().get_seq_length()

    def crop(self, tokens_to_remove: int) -> None:
        """Drop the newest tokens, of those that are still in floats.

        Parameters
        ----------
        tokens_to_remove : int
            Their number as a negative one, as transformers has it.

        Raises
        ------
        ValueError
            When one of them is packed already: what it was before rounding is gone.
        """
        count, floats = -tokens_to_remove, super().get_seq_length()
        if count > floats:
            raise ValueError(
                f"{count} tokens are to be dropped, but all except {floats} are packed already; a "
                f"residual (it is {self.residual}) of {count} or more is wanted"
            )
        super().crop(tokens_to_remove)

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        """Let the texts of a beam search follow others."""
        self._change(lambda x: x[beam_idx])

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep these texts alone."""
        self._change(lambda x: x[indices])

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Hold each text so many times."""
        self._change(lambda x: x.repeat_interleave(repeats, dim=0))

    def _change(self, texts):
        """Apply a function of the first dimension to all that is held."""
        if super().get_seq_length():
            self.keys, self.values = texts(self.keys), texts(self.values)
        if self.packed_keys is not None:
            self.packed_keys = self.packed_keys.changed(texts)
            self.packed_values = self.packed_values.changed(texts)

    @property
    def bytes(self) -> int:
        """The bytes of what is packed and of what is still in floats."""
        parts = (self.packed_keys, self.packed_values, self.keys, self.values)
        return sum(part.nbytes for part in parts if part is not None)


def _behind(packed, recent):
    """Return what is packed, in floats again, and behind it what never was."""
    return torch.cat([unpacked(packed).flatten(2, 3).to(recent.dtype), recent], dim=-2)


class WindowLayer(DynamicLayer):
    """The keys and values of one layer: of the first tokens and of the last ones.

    Parameters
    ----------
    window : int
        Tokens that a token sees, itself among them.
    sinks : int
        First tokens that are never dropped, and seen besides.
    """

    is_sliding = True

    def __init__(self, window: int, sinks: int):
        super().__init__()
        self.window, self.sinks, self.seen = window, sinks, 0

    def reset(self) -> None:
        """Forget everything."""
        super().reset()
        self.seen = 0

    def update(self, key_states, value_states, *args, **kwargs):
        """Hold new keys and values, and drop what no later token sees.

        Parameters
        ----------
        key_states, value_states : Tensor of floats, shape (n, heads, t, head_dim)
        *args, **kwargs
            Not looked at.

        Returns
        -------
        tuple of two Tensors, shape (n, heads, held + t, head_dim)
            Where more than one token is new, what each may see is up to a mask:
            :meth:`WindowCache.visible`.
        """
        keys, values = super().update(key_states, value_states)
        self.seen += key_states.shape[-2]
        kept = held_places(self.window, self.sinks, keys.shape[-2])
        if len(kept) < keys.shape[-2]:
            self.keys, self.values = keys[..., kept, :], values[..., kept, :]
        return keys, values

    def get_seq_length(self) -> int:
        """Return the tokens seen so far: the next one's position."""
        return self.seen

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return how many keys there will be, and the position that the first would have."""
        held = super().get_seq_length()
        return held + query_length, self.seen - held

    def crop(self, tokens_to_remove: int) -> None:
        """Drop the newest tokens, as long as nothing was dropped before them.

        Parameters
        ----------
        tokens_to_remove : int
            Their number as a negative one, as transformers has it.

        Raises
        ------
        ValueError
            When older tokens were dropped: they would be seen again.
        """
        if tokens_to_remove and self.seen > super().get_seq_length():
            raise ValueError(
                f"{-tokens_to_remove} tokens are to be dropped, but older ones left the window of "
                f"{self.window} already; a window that holds the whole text is wanted"
            )
        super().crop(tokens_to_remove)
        self.seen = super().get_seq_length()

    @property
    def bytes(self) -> int:
        """The bytes of what is held."""
        return self.keys.nbytes + self.values.nbytes if self.is_initialized else 0


def held_places(window: int, sinks: int, length: int) -> torch.Tensor:
    """Return which of ``length`` tokens a token behind them may see."""
    places = torch.arange(length)
    return places[(places < sinks) | (places > length - window)]


class WindowCache(CountedCache):
    """A cache that holds the first tokens and the last ones.

    Parameters
    ----------
    layers : int
        Of the model.
    window, sinks : int
        As in :class:`WindowLayer`.
    """

    def __init__(self, layers: int, window: int, sinks: int):
        super().__init__(layers=[WindowLayer(window, sinks) for _ in range(layers)])
        self.window, self.sinks = window, sinks

    def visible(self, mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """Return what is added to the scores of the next tokens, so that each sees its window.

        Parameters
        ----------
        mask : Tensor of bool, shape (n, length after them)
            False for padding, on the left.
        dtype : torch.dtype
            The model's.

        Returns
        -------
        Tensor of ``dtype``, shape (n, 1, t, held + t)
            0 for what is seen, the lowest number for what is not.

        Raises
        ------
        ValueError
            When there are sinks and padding: it would be held in their place.
        """
        if self.sinks and not mask.all():
            raise ValueError(
                "mask has padding, which would be held as sinks; prompts of one length are wanted, "
                "or sinks=0"
            )
        seen, after = self.get_seq_length(), mask.shape[1]
        held = held_places(self.window, self.sinks, seen)
        keys = torch.cat([held, torch.arange(seen, after)]).to(mask.device)
        queries = torch.arange(seen, after, device=mask.device)[:, None]
        near = (keys > queries - self.window) | (keys < self.sinks)
        # Padding sees itself: a row that sees nothing has no softmax.
        sees = (keys <= queries) & near & mask[:, None, keys] | (keys == queries)
        hidden = torch.full(sees.shape, torch.finfo(dtype).min, dtype=dtype, device=mask.device)
        return hidden.masked_fill(sees, 0)[:, None]
