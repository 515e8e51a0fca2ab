"""Smaller caches of keys and values: of few bits, or of few tokens; and what they weigh."""

import torch

from lightcourse.generation.kv_packing import BITS


def quantized_cache(config, bits: int = 4, group: int = 32, residual: int = 0):
    """Return an empty cache that packs keys and values into ``bits`` bits each.

    Keys have a grid for each channel and ``group`` tokens, since they have channels of
    outliers; values have one for each token and head (KIVI, Liu et al. 2024, arXiv 2402.02750).
    A grid is two float16: the smallest number, and the step. Tokens are packed by groups; the
    newest, ``residual`` to ``residual + group - 1`` of them, stay as they are.

    It is smaller, not faster: in every step each layer's keys and values become floats again,
    one layer at a time. A prompt is read with its own keys as floats; rounding is felt by the
    tokens after it.

    Parameters
    ----------
    config : transformers configuration
        Of a causal language model whose layers all look at the whole text.
    bits : {2, 4, 8}
    group : int
        Tokens that are packed at once; a multiple of 8 / bits.
    residual : int
        Newest tokens that stay floats at least. So many can be forgotten, as speculative
        decoding does.

    Returns
    -------
    transformers.Cache
        With ``bytes``: those that are held now, grids included. For one generation.

    Raises
    ------
    ValueError
        When an argument is out of range, or a layer looks at a part of the text alone.
        While writing, when keys or values are not finite, or too large for float16.
    """
    from lightcourse.generation.kv_layers import CountedCache, QuantizedLayer, check_attention

    _check_packing(bits, group, residual)
    config = config.get_text_config(decoder=True)
    check_attention(config)
    layers = [QuantizedLayer(bits, group, residual) for _ in range(config.num_hidden_layers)]
    return CountedCache(layers=layers)


def window_cache(config, window: int, sinks: int = 0):
    """Return an empty cache that holds the last tokens only, and maybe the first ones.

    A token sees ``window`` tokens, itself among them, and the first ``sinks`` besides: without
    these, to which every head turns when it has nothing to look at, a model that was not
    trained with a window loses its thread (StreamingLLM, Xiao et al. 2023, arXiv 2309.17453).
    Unlike there a token keeps its position in the text: the model's own window ends the text
    as ever.

    Use it in sessions, :func:`stream` and :func:`generate`, which tell each token of a prompt
    what it sees. Held are ``window - 1 + sinks`` tokens at most, of
    ``kv_bytes(config, window - 1 + sinks)`` bytes.

    Parameters
    ----------
    config : transformers configuration
        Of a causal language model whose layers all look at the whole text.
    window : int
        At least 1.
    sinks : int
        0 or more. With some there may be no padding.

    Returns
    -------
    transformers.Cache
        With ``bytes``: those that are held now. For one generation.

    Raises
    ------
    ValueError
        When an argument is out of range, or a layer looks at a part of the text alone.
    """
    from lightcourse.generation.kv_layers import WindowCache, check_attention

    _check_whole("window", window, 1)
    _check_whole("sinks", sinks, 0)
    config = config.get_text_config(decoder=True)
    check_attention(config)
    return WindowCache(config.num_hidden_layers, window, sinks)


def kv_bytes(
    config,
    tokens: int,
    bits: int | None = None,
    group: int = 32,
    residual: int = 0,
    texts: int = 1,
    dtype: torch.dtype = torch.float32,
) -> int:
    """Return the bytes of the keys and values of a text, before any model runs.

    In floats: 2 (keys and values) · layers · heads of keys · head size · tokens · bytes a
    number. Packed, every whole group has bits / 8 bytes a number, four bytes of grid a channel
    for the keys and four bytes a token for the values.

    Parameters
    ----------
    config : transformers configuration
    tokens : int
        Held of each text.
    bits : {None, 2, 4, 8}
        None: floats.
    group, residual : int
        As in :func:`quantized_cache`.
    texts : int
        How many are written together.
    dtype : torch.dtype
        The model's, for what is in floats.

    Returns
    -------
    int
        What ``bytes`` of such a cache is after ``tokens`` tokens, exactly.

    Raises
    ------
    ValueError
        When an argument is out of range.

    Examples
    --------
    >>> from transformers import LlamaConfig
    >>> config = LlamaConfig()  # 7B: 32 layers of 32 heads of 128
    >>> kv_bytes(config, 4096, dtype=torch.bfloat16), kv_bytes(config, 4096, bits=4)
    (2147483648, 620756992)
    """
    _check_whole("tokens", tokens, 0)
    _check_whole("texts", texts, 1)
    groups = 0
    if bits is not None:
        _check_packing(bits, group, residual)
        groups = max(tokens - residual, 0) // group
    config = config.get_text_config(decoder=True)
    size, packed = _head_size(config), groups * group
    floats = 2 * (tokens - packed) * size * dtype.itemsize
    levels = 2 * packed * size * (bits or 0) // 8
    grids = 4 * groups * size + 4 * packed
    return config.num_hidden_layers * _heads(config) * texts * (floats + levels + grids)


def _heads(config):
    return getattr(config, "num_key_value_heads", None) or config.num_attention_heads


def _head_size(config):
    size = getattr(config, "head_dim", None)
    return size or config.hidden_size // config.num_attention_heads


def _check_packing(bits, group, residual):
    if bits not in BITS:
        raise ValueError(f"bits is {bits}; one of {BITS} is wanted")
    _check_whole("group", group, 1)
    if group % (8 // bits):
        raise ValueError(
            f"group is {group}; a multiple of {8 // bits}, a byte's numbers, is wanted"
        )
    _check_whole("residual", residual, 0)


def _check_whole(name, value, least):
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} is {value}; a whole number of at least {least} is wanted")
