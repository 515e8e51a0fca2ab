"""Width pruning: channels of the residual stream go, and every matrix on it gets narrower."""

from collections.abc import Iterable

import torch
from torch import nn

from lightcourse import calibration, layers, pretrained, surgery
from lightcourse.integers import integer_matrices
from lightcourse.pruning.masks import fits


def width_scores(model: nn.Module, batches: Iterable[dict]) -> torch.Tensor:
    """Score each channel of the residual stream by what the norms let through of it.

    The mean absolute output of a norm over all real tokens, summed over the norms (Minitron,
    Muralidharan et al. 2024, arXiv 2407.14679).

    Parameters
    ----------
    model : nn.Module
        BERT, GPT-2, Llama or the like. Runs once over the batches, in evaluation mode, without
        gradients; unchanged.
    batches : iterable of dict
        Keyword arguments for the model; ``labels`` are left out. Tokens where
        ``attention_mask`` is 0 do not count.

    Returns
    -------
    Tensor of float32, shape (hidden_size,)
        :func:`layer_mask` takes it.

    Raises
    ------
    ValueError
        When the model has no ``config.hidden_size`` or no norm of that width, there is no batch
        or no real token, a batch is no dict, or a norm gives NaN or infinity.
    """
    model = layers.inside(model)
    norms, sums, counts = surgery.stream_norms(model), {}, {}
    if not norms:
        raise ValueError(f"model is a {type(model).__name__} without a norm of its stream")

    def add(name, _, after):
        sums[name] = sums.get(name, 0) + after.abs().sum(dim=0)
        counts[name] = counts.get(name, 0) + len(after)

    calibration.see_hidden(model, batches, norms, add)
    if not any(counts.values()):
        raise ValueError("batches hold no token but padding; a real one is wanted")
    return sum(sums[name] / max(counts[name], 1) for name in sums)


def remove_width_(model: nn.Module, mask: torch.Tensor) -> layers.Report:
    """Take channels out of the residual stream, in place: every matrix gets narrower.

    Embeddings, norms, heads and all that reads or writes the stream lose them; what is tied
    stays so, and the configuration follows: ``save_pretrained`` and ``from_pretrained`` work.

    An **RMSNorm** divides by a mean over fewer channels now: the root of old / new goes into its
    weight. Where the removed channels are zero throughout, the model then answers as before, but
    for the norm's epsilon, which counts new / old times as much. A **LayerNorm** takes mean and
    variance over the channels that are kept, which is another function even then.

    In **BERT and GPT-2** the size of a head is ``hidden_size / heads``: each head loses inner
    dimensions, those with the least products of queries and keys, and of values and outputs.
    The scores are scaled as before. **Llama's** heads stay as large as they are. A layer behind
    the stream that is as wide (BERT's pooler) loses outputs of the same numbers.

    Parameters
    ----------
    model : nn.Module
        BERT, GPT-2, Llama or the like. Changed in place. Make optimizers afterwards.
    mask : Tensor of bool, shape (hidden_size,)
        True = keep, such as ``layer_mask(width_scores(…), 0.25)``. It must keep a multiple of
        the number of attention heads: transformers wants that.

    Returns
    -------
    Report
        For each module the parameters removed.

    Raises
    ------
    ValueError
        Before anything is changed: when the mask does not fit, keeps nothing, everything, or no
        multiple of the heads; when the model stores integers, or holds a parameter as wide as
        its stream whose part in it is not known.
    """
    model = layers.inside(model)
    width = surgery.stream_width(model)
    _check(model, mask, width)
    blocks, before = surgery.attentions(model), _sizes(model)
    own_size = surgery.has_own_head_size(model.config)
    if not own_size:
        surgery.check_narrow(model.config)
    kept = int(mask.sum())
    _cut_(model, mask)
    for name, block in () if own_size else blocks.items():
        surgery.narrow_heads_(model, name, block, kept // model.config.num_attention_heads)
    surgery.note_width(model, kept)
    pretrained.watch_(model)
    after = _sizes(model)
    changed = {name: size - after[name] for name, size in before.items() if size != after[name]}
    return layers.Report("shrunk", "parameters removed", changed)


def _cut_(model, mask):
    """Take channels out, and let each RMSNorm divide by what it divided by if they were zero."""
    norms = surgery.stream_norms(model)
    surgery.cut_stream_(model, mask)
    for norm in norms.values():
        if not isinstance(norm, nn.LayerNorm):
            norm.weight.data *= (len(mask) / int(mask.sum())) ** 0.5


def _check(model, mask, width):
    if not fits(mask, (width,)):
        given = type(mask).__name__
        if isinstance(mask, torch.Tensor):
            given = f"{mask.dtype} of shape {tuple(mask.shape)}"
        raise ValueError(f"mask is {given}; torch.bool of shape ({width},) is wanted")
    kept, heads = int(mask.sum()), getattr(model.config, "num_attention_heads", 1)
    if kept in (0, width):
        raise ValueError(f"mask keeps {kept} of {width} channels; 1 to {width - 1} are wanted")
    if kept % heads:
        raise ValueError(
            f"mask keeps {kept} channels and the model has {heads} attention heads; a multiple of "
            f"that is wanted, such as {kept // heads * heads or heads}"
        )
    if integers := list(integer_matrices(model)):
        raise ValueError(f"model stores integers in {integers[0]}; quantize_ it afterwards")


def _sizes(model):
    """Return the number of parameters that each module owns, shared ones by the first alone."""
    seen, sizes = set(), {}
    for name, module in model.named_modules():
        own = {id(p): p.numel() for p in module.parameters(recurse=False) if id(p) not in seen}
        sizes[name] = sum(own.values())
        seen |= own.keys()
    return sizes
