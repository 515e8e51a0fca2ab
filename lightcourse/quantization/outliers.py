"""Outliers stay in floats: LLM.int8, Dettmers et al. 2022, arXiv 2208.07339."""

from collections.abc import Collection, Iterable

import torch
from torch import nn

from lightcourse import layers, pretrained
from lightcourse.calibration import observe_inputs
from lightcourse.quantization.layer import QuantizedLinear
from lightcourse.quantization.plan import plan_bits
from lightcourse.quantization.split import SplitLinear
from lightcourse.quantization.verbs import check_convertible, check_on_cpu, stored_bytes


@torch.no_grad()
def split_outliers_(
    model: nn.Module,
    batches: Iterable[dict],
    threshold: float = 6.0,
    skip: Collection[str] = (),
) -> layers.Report:
    """Let linear layers multiply 8-bit integers, but a few input channels in floats, in place.

    A layer's input channel is an outlier where it is larger than the threshold anywhere in
    the text. A layer with outliers becomes a :class:`SplitLinear`, any other a
    :class:`QuantizedLinear` with ``activations=8``; where all channels are, nothing is left to
    convert, and it stays. The paper looks at each call anew; here
    the text decides once, as with :func:`calibrate`.

    Parameters
    ----------
    model : nn.Module
        On the CPU, in floats. Changed in place; saved and loaded like any quantized model.
    batches : iterable of dict
        As in :func:`calibrate`.
    threshold : float
        Positive; the paper's is 6. 0.1 % of the channels and less are beyond it in large
        models.
    skip : collection of str
        Names of layers to leave as they are.

    Returns
    -------
    Report
        For each layer the bytes saved, and a note on what stayed in floats.

    Raises
    ------
    ValueError
        When ``threshold`` is not positive, a layer cannot be converted, all channels of all
        layers are outliers, or the text is refused as by :func:`calibrate`. The model is
        unchanged then.
    """
    if not threshold > 0:
        raise ValueError(f"threshold is {threshold}; a positive number is wanted")
    model = layers.inside(model)
    chosen, skipped = plan_bits(model, 8, None, skip)
    skipped |= layers.other_matrices(model)
    check_convertible(model, chosen, activations=8)
    old = {names[0]: model.get_submodule(names[0]) for names in chosen if len(names) == 1}
    skipped |= {n: "shares its weight" for names in chosen if len(names) > 1 for n in names}
    report = layers.Report("quantized", "bytes saved", {}, skipped)
    if not old:
        return report.raise_if_nothing_changed("the model has no linear layer in floating point")
    largest = observe_inputs(model, batches, old, _widen)
    new = {name: _split(layer, largest.get(name), threshold) for name, layer in old.items()}
    loud = [name for name, layer in new.items() if layer is None]
    skipped |= dict.fromkeys(loud, "all its inputs are outliers: it stays in floats")
    new = {name: layer for name, layer in new.items() if layer is not None}
    report.share = layers.share_of(model, (old[name] for name in new))
    for name, layer in new.items():
        report.changed[name] = old[name].weight.nbytes - stored_bytes(layer)
        layers.replace_(model, name, layer)
    report.raise_if_nothing_changed(f"threshold is {threshold}, below all inputs of each layer")
    report.notes.append(_told(new))
    pretrained.watch_(model)
    return report


def _widen(largest, rows):
    now = rows.abs().amax(0)
    return now if largest is None else torch.maximum(largest, now)


def _split(layer, largest, threshold):
    """Return what takes a layer's place; None where all its inputs are outliers."""
    weight, bias = layers.weight_matrix(layer), getattr(layer, "bias", None)
    check_on_cpu(weight.device)
    none = torch.zeros(0, dtype=torch.int64)
    found = none if largest is None else (largest > threshold).nonzero().flatten()
    if len(found) == weight.shape[1]:
        return None
    if len(found):
        return SplitLinear(weight, bias, outliers=found)
    return QuantizedLinear(weight, bias, 8, activations=8)


def _told(new):
    """Return in words how much stays in floats."""
    split = [layer for layer in new.values() if isinstance(layer, SplitLinear)]
    kept = sum(len(layer.outliers) for layer in split)
    of = sum(layer.in_features for layer in new.values())
    return f"{len(split)} layers keep {kept} of all {of:,} input channels in floats"
