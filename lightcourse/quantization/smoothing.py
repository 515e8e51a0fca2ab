"""Factors that move between activations and weights, so that both are easier to round.

SmoothQuant, Xiao et al. 2022, arXiv 2211.10438; AWQ, Lin et al. 2023, arXiv 2306.00978.
"""

from collections.abc import Callable, Collection, Iterable

import torch
from torch import nn

from lightcourse import asking, layers, surgery
from lightcourse.calibration import checking_ids, observe_inputs
from lightcourse.quantization.plan import plan_bits
from lightcourse.quantization.rounding import read_back, round_to_nearest
from lightcourse.quantization.verbs import check_convertible, quantize_

LEAST = 1e-5  # of a factor: what is smaller is as good as never there
POWERS = [step / 20 for step in range(20)]


@torch.no_grad()
def synthetic_outliers_(
    model: nn.Module, channels: Collection[int], factor: float = 100
) -> layers.Report:
    """Make some channels of the activations large, in place, without changing an answer.

    Large models have such outliers by themselves (Dettmers et al. 2022, arXiv 2208.07339);
    small ones, like ours, have not. So these are made by hand: a norm's weights for the
    channels grow, and the columns that read them shrink. Unlike in a real model, these columns
    are then small in their rows, and lose most when weights are rounded.

    Parameters
    ----------
    model : nn.Module
        With norms that :func:`lightcourse.surgery.norm_readers` finds. Changed in place.
    channels : collection of int
        Places in each norm's output.
    factor : float
        Finite and not 0.

    Returns
    -------
    Report
        For each norm how many channels changed.

    Raises
    ------
    ValueError
        When there is no such norm, ``channels`` is empty or names one that is not there, or
        ``factor`` is 0 or not finite.
    """
    model = layers.inside(model)
    found, channels = surgery.norm_readers(model), sorted(set(channels))
    widths = {norm: len(model.get_submodule(norm).weight) for norm in found}
    least = min(widths.values())
    if not channels or not 0 <= channels[0] <= channels[-1] < least:
        raise ValueError(f"channels is {channels}; some of 0 to {least - 1} are wanted")
    if not factor or not 1e-6 < abs(factor) < 1e6:
        raise ValueError(f"factor is {factor}; a number of a size from 1e-6 to 1e6 is wanted")
    for norm, readers in found.items():
        factors = torch.ones(widths[norm])
        factors[channels] = 1 / factor
        surgery.rescale_(model, norm, readers, factors)
    return layers.Report("enlarged", "channels", dict.fromkeys(found, len(channels)))


@torch.no_grad()
def smooth_(model: nn.Module, batches: Iterable[dict], alpha: float = 0.5) -> layers.Report:
    """Move outliers of the activations into the weights behind norms, in place (SmoothQuant).

    Channel j of a norm's output is divided by ``max|x_j| ** alpha / max|w_j| ** (1 - alpha)``,
    and the weights that read it are multiplied by the same. Answers stay as they were; 8-bit
    activations, which share a scale a token, then lose less.

    Parameters
    ----------
    model : nn.Module
        With norms whose output goes into linear layers and nowhere else, as in Llama and
        GPT-2 (not in BERT). In floats; changed in place.
    batches : iterable of dict
        As in :func:`calibrate`.
    alpha : float
        0 to 1: how much of the difficulty moves. 0.5 shares it.

    Returns
    -------
    Report
        For each norm its channels.

    Raises
    ------
    ValueError
        When ``alpha`` is out of range, no norm is of that kind, or the text is refused as by
        :func:`calibrate`. The model is unchanged then.
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is {alpha}; 0 to 1 is wanted")
    model = layers.inside(model)
    batches = list(asking.inputs_of_each(batches))
    found = _norms(model, batches)
    largest = observe_inputs(model, batches, _first_readers(model, found), _widen)
    report = layers.Report("smoothed", "channels")
    for norm, readers in found.items():
        if readers[0] in largest:
            weights = _matrices(model, readers).abs().amax(0)
            factors = largest[readers[0]].clamp(min=LEAST) ** alpha / weights.clamp(min=LEAST) ** (
                1 - alpha
            )
            surgery.rescale_(model, norm, readers, factors.clamp(min=LEAST))
            report.changed[norm] = len(factors)
    return report.raise_if_nothing_changed("the text reaches no layer behind a norm")


def _norms(model, batches):
    """Return norms and readers; the text's first batch is what the model runs on."""
    with checking_ids(model):
        return surgery.norm_readers(model, batches[0])


def _first_readers(model, found):
    """Return one reader of each norm: all have the same inputs."""
    return {readers[0]: model.get_submodule(readers[0]) for readers in found.values()}


def _widen(largest, rows):
    now = rows.abs().amax(0)
    return now if largest is None else torch.maximum(largest, now)


def _matrices(model, names):
    """Return the matrices that read the same inputs, one below the other."""
    matrices = [layers.weight_matrix(model.get_submodule(name)).detach() for name in names]
    return torch.cat(matrices).float()


def awq_(
    model: nn.Module,
    batches: Iterable[dict],
    bits: int = 4,
    group_size: int | None = None,
    symmetric: bool = True,
    *,
    skip: Collection[str] = (),
    activations: int | None = None,
    choose_qparams: Callable | None = None,
) -> layers.Report:
    """Enlarge the weights that meet large inputs, then round all to the nearest, in place (AWQ).

    Where inputs are large, errors of the weights count most. So weights of channel j are
    multiplied by ``mean|x_j| ** a`` before they are rounded, and what makes the channel is
    divided by it: a norm, the values of an attention, the upper half of a gated feed-forward
    block. The power a is the one of 20 from 0 to 0.95 that leaves the least squared output
    error; 0 changes nothing.

    Parameters
    ----------
    model : nn.Module
        Changed in place. Layers whose inputs nothing can divide are rounded as they are.
    batches : iterable of dict
        As in :func:`calibrate`. Memory: inputs² floats for each group of layers.
    bits, group_size, symmetric, skip, activations, choose_qparams
        As in :func:`quantize_`; one number of bits for all.

    Returns
    -------
    Report
        As :func:`quantize_`; a note for the layers that were rescaled.

    Raises
    ------
    ValueError
        When :func:`quantize_` refuses its arguments, there is nothing to rescale, or the text
        is refused as by :func:`calibrate`. The model is unchanged then.
    """
    model = layers.inside(model)
    chosen, _ = plan_bits(model, bits, None, skip)
    how = {"group_size": group_size, "symmetric": symmetric, "choose_qparams": choose_qparams}
    check_convertible(model, chosen, activations=activations, **how)
    batches = list(asking.inputs_of_each(batches))
    chosen = {name for names in chosen for name in names}
    pairs = [pair for pair in _pairs(model, batches) if chosen.issuperset(pair[1])]
    first = {readers[0]: model.get_submodule(readers[0]) for _, readers in pairs}
    seen = observe_inputs(model, batches, first, _sums)
    moved = 0
    for maker, readers in pairs:
        if readers[0] in seen:
            factors = _best_factors(_matrices(model, readers), seen[readers[0]], bits, how)
            surgery.rescale_(model, maker, readers, factors)
            moved += bool((factors != 1).any())
    report = quantize_(
        model, bits, group_size, activations, symmetric, skip=skip, choose_qparams=choose_qparams
    )
    report.notes.append(f"the inputs of {moved} groups of layers were rescaled before")
    return report


def _pairs(model, batches):
    """Return (maker, readers): what can be divided, and the layers that read it."""
    pairs = []
    for kinds in (surgery.FEED_FORWARD, surgery.ATTENTION):
        for name, makers, reader in surgery.matches(model, kinds):
            wide = surgery.width(model, makers[-1]) == _inputs(model, reader)
            plain = wide and not _has_norm_inside(model.get_submodule(name))
            if plain and makers[-1].endswith(("up_proj", "v_proj", "value")):
                pairs.append((makers[-1], (reader,)))
    try:
        return [*_norms(model, batches).items(), *pairs]
    except ValueError:
        if pairs:
            return pairs
        raise


def _has_norm_inside(block):
    """Tell whether more than queries and keys is normed on the way."""
    names = {name for name, _ in block.named_children() if "norm" in name.lower()}
    return bool(names - {"q_norm", "k_norm"}) and not hasattr(block, "output")  # BERT's is behind


def _inputs(model, name):
    return layers.weight_matrix(model.get_submodule(name)).shape[1]


def _sums(state, rows):
    """Fold inputs into the sum of their sizes, their products, and their number."""
    total, products, count = state or (0, 0, 0)
    return total + rows.abs().sum(0), products + rows.T @ rows, count + len(rows)


def _best_factors(weight, seen, bits, how):
    """Return of 20 powers of the inputs' mean size that which leaves the least output error."""
    total, products, count = seen
    mean = (total / count).clamp(min=LEAST)
    least, best = torch.inf, torch.ones_like(mean)
    for power in POWERS:
        factors = mean**power
        factors = factors / (factors.max() * factors.min()).sqrt()
        rounded = read_back(*round_to_nearest(weight * factors, bits, **how))
        apart = rounded / factors - weight
        error = ((apart @ products) * apart).sum().item()
        if error < least:
            least, best = error, factors
    return best
