"""Linear layers become products of two thin ones, so that all together fit into some bytes."""

import heapq
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from lightcourse import layers, pretrained
from lightcourse.sharing.layer import FactoredLinear
from lightcourse.sharing.low_rank import decomposed, factors


def factor_(
    model: nn.Module,
    num_bytes: int,
    hessians: Mapping[str, torch.Tensor] | None = None,
    targets: layers.Targets = None,
) -> layers.Report:
    """Replace linear layers by :class:`FactoredLinear`, in place.

    The ranks are shared out greedily: each next one goes where it takes away the most error for
    its bytes, the squared error of each layer divided by the norm of what the layer holds. That
    stands between the error itself, by which layers of large inputs take everything, and its
    share of the layer's own: on the three tiny language models at 50 % and 75 % of the bytes it
    gave the lowest perplexity, or nearly so, of these two and of equal shares for all layers, as
    SVD-LLM has them (Wang et al. 2024, arXiv 2403.07378). A layer that takes fewer bytes whole
    than as two factors of the rank that it would get stays whole.

    Parameters
    ----------
    model : nn.Module
        Changed in place; ``nn.Linear`` and ``Conv1D`` are replaced. Make optimizers afterwards.
        Layers that share a weight among themselves share its factors.
    num_bytes : int
        What the matrices of all layers that ``targets`` names may take afterwards, biases left
        out, each in its own dtype.
    hessians : mapping of str to Tensor, optional
        ``x xᵀ`` by layer, as ``calibration.hessians`` sums it, over one text for all: the outputs
        on such a text are then kept, and not the weights. See :func:`low_rank`.
    targets : str or sequence of str, optional
        Which linear layers, as in ``lora.add_lora_``; all of them without it.

    Returns
    -------
    Report
        For each replaced layer the bytes saved; which stayed whole, and why. The notes tell the
        ranks.

    Raises
    ------
    ValueError
        When ``num_bytes`` is not less than the layers take, or too little for rank 1 everywhere;
        one of ``targets`` fits no layer; ``hessians`` lacks a layer, or one is not finite or of
        another shape; a weight is not finite. The model is unchanged then.
    """
    model = layers.inside(model)
    chosen, skipped = _choose(model, targets)
    plans = {name: _plan(name, layer, hessians) for name, layer in chosen.items()}
    ranks = share_out(plans, num_bytes)
    share = layers.share_of(model, chosen.values())
    report = layers.Report("factored", "bytes saved", skipped=skipped, share=share)
    tied = layers.tied_layers(model)
    for name, rank in ranks.items():
        if rank == plans[name].full:
            report.skipped[name] = "stays whole, which takes fewer bytes than the rank it would get"
            continue
        report.changed[name] = plans[name].size(plans[name].full) - plans[name].size(rank)
        twins = [name, *(twin for twin, owner in tied.items() if owner == name)]
        _put_in(model, twins, plans[name].directions[:, :rank])
    report.notes.append(_told(ranks[name] for name in report.changed))
    pretrained.watch_(model)
    return report


def _choose(model, targets):
    """Return the layers that may be replaced, by name, and why others are not."""
    found = layers.linear_layers(model)
    skipped = layers.other_matrices(model) | {
        name: f"shares its weight with {owner}"
        for name, owner in layers.tied_layers(model).items()
        if owner not in found
    }
    skipped |= {name: why for name, layer in found.items() if (why := _why_not(model, name, layer))}
    found = {name: layer for name, layer in found.items() if name not in skipped}
    chosen = layers.targeted(found, targets)
    if not chosen:
        raise ValueError(
            f"nothing was factored: model is a {type(model).__name__} without a linear layer in "
            "floating point that owns its weight"
        )
    return {name: layer for name, layer in found.items() if name in chosen}, skipped


def _why_not(model, name, layer):
    """Return why a layer is left, or nothing."""
    if not name:
        return "it is the model itself; nn.Sequential(model) is wanted"
    if isinstance(model.get_submodule(name.rpartition(".")[0]), FactoredLinear):
        return "a factor already"
    if "weight" not in layer._parameters or not layers.multiplies_plainly(layer):
        return f"a {type(layer).__name__} that multiplies, or makes its weight, in its own way"
    return ""


@dataclass(frozen=True)
class Plan:
    """What a layer would lose, and take, at each rank.

    Parameters
    ----------
    directions : Tensor of shape (outputs, full)
        As :func:`decomposed` gives them.
    held : list of float
        By rank, from 0 to full, the energy that it holds, divided by the root of the whole.
    shape : (int, int)
        Of the matrix.
    bytes_per_number : int
    """

    directions: torch.Tensor
    held: list[float]
    shape: tuple[int, int]
    bytes_per_number: int

    @property
    def full(self) -> int:
        """The matrix's own rank, at which it is stored whole."""
        return min(self.shape)

    @property
    def most(self) -> int:
        """The largest rank whose factors are smaller than the matrix; 0 where there is none."""
        return (self.shape[0] * self.shape[1] - 1) // sum(self.shape)

    def size(self, rank: int) -> int:
        """Return the bytes of a rank."""
        numbers = self.shape[0] * self.shape[1] if rank == self.full else rank * sum(self.shape)
        return numbers * self.bytes_per_number

    def after(self, rank: int, may_be_whole: bool = True) -> tuple[float, int] | None:
        """Return what the best larger rank wins a byte, and that rank."""
        larger = [rank + 1] * (rank < self.most) + [self.full] * may_be_whole
        wins = [
            ((self.held[r] - self.held[rank]) / (self.size(r) - self.size(rank)), r) for r in larger
        ]
        return max(wins, default=None)


def _plan(name, layer, hessians):
    weight = layers.weight_matrix(layer)
    if hessians is not None and name not in hessians:
        raise ValueError(f"hessians lacks {name}; measure it, or name others in targets")
    try:
        directions, energies = decomposed(weight, None if hessians is None else hessians[name])
    except ValueError as error:
        raise ValueError(f"layer {name}: {error}") from error
    norm = energies.sum().sqrt().clamp(min=torch.finfo(torch.double).tiny)
    held = [0.0, *(energies.cumsum(0) / norm).tolist()]
    return Plan(directions, held, tuple(weight.shape), weight.element_size())


def share_out(plans: Mapping[str, Plan], num_bytes: int) -> dict[str, int]:
    """Return the rank of each layer, so that all together take ``num_bytes`` at most.

    Raises
    ------
    ValueError
        When there are too few bytes for rank 1, or as many as the whole matrices take.
    """
    ranks = {name: 1 if plan.most else plan.full for name, plan in plans.items()}
    least = sum(plan.size(ranks[name]) for name, plan in plans.items())
    whole = sum(plan.size(plan.full) for plan in plans.values())
    if not least <= num_bytes < whole:
        raise ValueError(
            f"num_bytes is {num_bytes}; the layers take {whole} now and {least} at rank 1: at "
            "least that, and less than now, is wanted"
        )
    heap, left = [], num_bytes - least

    def offer(name, may_be_whole=True):
        if ranks[name] < plans[name].full and (
            step := plans[name].after(ranks[name], may_be_whole)
        ):
            heapq.heappush(heap, (-step[0], name, step[1]))

    for name in plans:
        offer(name)
    while heap:
        _, name, rank = heapq.heappop(heap)
        cost = plans[name].size(rank) - plans[name].size(ranks[name])
        if cost <= left:
            ranks[name], left = rank, left - cost
            offer(name)
        elif rank == plans[name].full:
            offer(name, may_be_whole=False)
    return ranks


def _put_in(model, names, directions):
    """Replace layers that share a weight by layers that share its factors."""
    old = model.get_submodule(names[0])
    pair = [
        nn.Parameter(factor, old.weight.requires_grad)
        for factor in factors(layers.weight_matrix(old), directions)
    ]
    for name in names:
        layers.replace_(model, name, FactoredLinear(*pair, model.get_submodule(name).bias))


def _told(ranks):
    ranks = list(ranks)
    return f"ranks {min(ranks)} to {max(ranks)}"
