"""GPTQ: round column by column, and let the columns to the right make up for it.

Frantar et al. 2022, arXiv 2210.17323.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial

import torch
from torch import nn

from lightcourse import layers, obs
from lightcourse.integers import quant_range
from lightcourse.quantization.affine import into_groups, nearest_levels
from lightcourse.quantization.plan import plan_bits
from lightcourse.quantization.rounding import choose_grid, read_back
from lightcourse.quantization.sequential import Walk
from lightcourse.quantization.verbs import check_convertible, quantize_


def gptq(
    weight: torch.Tensor,
    hessian: torch.Tensor,
    bits: int = 4,
    group_size: int | None = None,
    symmetric: bool = True,
    act_order: bool = False,
    block_size: int = 128,
    damping: float = 0.01,
    choose_qparams: Callable | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Round a matrix so that its layer's output changes little, on inputs like those measured.

    Each column is rounded to the nearest in turn; what that did to the output, the columns
    still to come undo as far as they can. An input that was always zero tells nothing: its
    column is rounded to the nearest, and the others do not make up for it.

    Parameters
    ----------
    weight : Tensor of floats, shape (rows, columns)
        Not changed.
    hessian : Tensor of shape (columns, columns)
        The sum of ``x xᵀ`` over the layer's inputs, as
        :func:`lightcourse.calibration.hessians` measures it.
    bits, symmetric, choose_qparams
        As in :func:`round_to_nearest`.
    group_size : int, optional
        Neighbours in a row that share a scale; one scale a row without it. A group's grid
        is chosen when its first column is reached, for the weights as they are by then.
    act_order : bool
        True: the columns with the largest inputs (the Hessian's diagonal) come first, while
        most others are left to make up for them. Neighbours still share a scale, so that the
        result is stored like any other; each group's grid is then chosen beforehand, for the
        weights as they were ("static groups").
    block_size : int
        Columns after which all others learn of the changes; only the time depends on it.
        Where grids are chosen on the way, it is the group's size.
    damping : float
        Added to the Hessian's diagonal, as a fraction of its mean; positive. The larger, the
        closer the result is to the nearest.

    Returns
    -------
    q : Tensor of int8, shape (rows, columns)
        In the order of ``weight``'s columns, whatever ``act_order``.
    scale : Tensor of float32, shape (rows, groups)
    zero_point : Tensor of int32, shape (rows, groups), or None
        None if symmetric. All three as :func:`round_to_nearest` gives them.

    Raises
    ------
    ValueError
        As :func:`lightcourse.obs.solve` and :func:`round_to_nearest`.

    Examples
    --------
    Two inputs that are always equal, and a grid of whole numbers: where the first weight is
    rounded down, the second is rounded up.

    >>> whole = lambda groups, *how, dim: (torch.ones(1, 1, 1), torch.zeros(1, 1, 1))
    >>> q, _, _ = gptq(torch.tensor([[2.4, 2.4]]), torch.ones(2, 2), choose_qparams=whole)
    >>> q.tolist()
    [[2, 3]]
    """
    _check(weight, hessian, bits, block_size, damping)
    weight, hessian = weight.detach().float().cpu(), hessian.detach().cpu()
    grid = _Grid(weight, bits, group_size, symmetric, choose_qparams)
    order = torch.arange(weight.shape[1])
    if act_order:
        order = hessian.diagonal().argsort(descending=True, stable=True)
    if chosen_before := act_order or group_size is None:
        grid.choose(weight, 0)
    q = torch.zeros(weight.shape, dtype=torch.int8)

    def choose(block, columns, pivots):
        here = order[columns].tolist()
        if not chosen_before:
            grid.choose(block.float(), here[0])
        return partial(_round_, q, grid, here)

    size = block_size if chosen_before else group_size
    obs.solve(weight[:, order], hessian[order][:, order], choose, size, damping)
    return q, grid.scale, None if symmetric else grid.zero_point


def _check(weight, hessian, bits, block_size, damping):
    quant_range(bits)
    obs.check(weight, hessian, block_size, damping)
    if not weight.numel():
        raise ValueError(f"weight has shape {tuple(weight.shape)}; at least one value is wanted")


def _round_(q, grid, columns, values, j):
    """Write a column's nearest integers into ``q``, and return what they stand for."""
    q[:, columns[j]], back = grid.rounded(values, columns[j])
    return back.to(values.dtype)


class _Grid:
    """The scales and zero points of a matrix, chosen group by group."""

    def __init__(self, weight, bits, group_size, symmetric, choose_qparams):
        self.size = weight.shape[1] if group_size is None else group_size
        groups = into_groups(weight, self.size).shape[1]
        self.how, self.ends = (bits, symmetric, choose_qparams), quant_range(bits)
        self.scale = torch.ones(len(weight), groups)
        self.zero_point = torch.zeros(len(weight), groups, dtype=torch.int32)

    def choose(self, columns, start):
        """Choose the grids for whole groups of columns, of which the first is ``start``."""
        scale, zero_point = choose_grid(into_groups(columns, self.size), *self.how)
        here = slice(start // self.size, start // self.size + scale.shape[1])
        self.scale[:, here], self.zero_point[:, here] = scale.squeeze(-1), zero_point.squeeze(-1)

    def rounded(self, values, column):
        """Return a column's nearest integers, and the floats that they stand for."""
        group = column // self.size
        scale, zero_point = self.scale[:, group], self.zero_point[:, group]
        # Not quantize_affine, which would ask of each column whether it is finite.
        levels = nearest_levels(values, scale, zero_point).clamp_(*self.ends)
        return levels, (levels - zero_point) * scale


@torch.no_grad()
def gptq_(
    model: nn.Module,
    batches: Iterable[dict],
    bits: int | Mapping[str, int] = 4,
    group_size: int | None = None,
    symmetric: bool = True,
    *,
    act_order: bool = False,
    damping: float = 0.01,
    skip: Collection[str] = (),
    activations: int | None = None,
    choose_qparams: Callable | None = None,
) -> layers.Report:
    """Round the linear layers of a stack by :func:`gptq`, from first to last, in place.

    Each layer's Hessian is measured behind layers that are rounded already, on the inputs
    that it will really get; its weights are compared with the old ones on these. Memory holds
    the inputs of one transformer layer and a copy of it. What lies outside of the stack
    (tables, an output layer) stays in floats, as in the paper.

    Parameters
    ----------
    model : nn.Module
        With one stack of layers, such as BERT, GPT-2 or Llama. Changed in place, at the very
        end.
    batches : iterable of dict
        Keyword arguments for the model; ``labels`` are left out. Tokens where
        ``attention_mask`` is 0 do not count; the rest are at least as many as the widest
        layer's inputs, and should be many times as many.
    bits : int, or dict of str to int
        As in :func:`quantize_`.
    group_size, symmetric, act_order, damping, choose_qparams
        As in :func:`gptq`.
    skip : collection of str
        Names of layers to leave as they are.
    activations : {None, 8}
        As in :func:`quantize_`. Inputs are not rounded while Hessians are measured.

    Returns
    -------
    Report
        As :func:`quantize_`.

    Raises
    ------
    ValueError
        When :func:`quantize_` or :func:`gptq` refuse their arguments, no layer of the stack
        can be converted, or the text is too short, holds unknown tokens or does not pass
        through the stack in the plain way. The model is unchanged then.
    """
    model = layers.inside(model)
    chosen, skipped = plan_bits(model, bits, None, skip)
    skipped |= {n: "shares its weight" for names in chosen if len(names) > 1 for n in names}
    chosen = {names[0]: number for names, number in chosen.items() if len(names) == 1}
    how = {"group_size": group_size, "symmetric": symmetric, "choose_qparams": choose_qparams}
    owners = {(name,): number for name, number in chosen.items()}
    check_convertible(model, owners, activations=activations, **how)
    walk = Walk(model, batches)
    inner = {name: number for name, number in chosen.items() if walk.holds(name)}
    _check_enough(walk, model, inner, skipped)
    how |= {"act_order": act_order, "damping": damping}
    integers = {}
    for place in walk:
        for names in place.turns(inner):
            hessian = place.observe(names[0], _add_products)
            for name in names:
                integers[name] = _settled(place.layer(name), name, hessian, inner[name], how)
    report = quantize_(
        model, {name: inner[name] for name in integers}, activations=activations, integers=integers
    )
    report.skipped |= {n: why for n, why in skipped.items() if n in report.skipped}
    report.skipped |= {n: f"outside of {walk.stack}" for n in chosen.keys() - inner.keys()}
    report.skipped |= {n: "the text did not reach it" for n in inner.keys() - integers.keys()}
    return report


def _check_enough(walk, model, inner, skipped):
    """Raise where there is no layer to round, or too little text for the widest."""
    report = layers.Report("quantized", "bytes saved", dict(inner), skipped)
    report.raise_if_nothing_changed(f"{walk.stack} has no linear layer in floating point")
    widest = max(layers.weight_matrix(model.get_submodule(name)).shape[1] for name in inner)
    if walk.tokens < widest:
        raise ValueError(
            f"batches holds {walk.tokens} tokens; at least {widest}, the inputs of the widest "
            "layer, are wanted"
        )


def _add_products(total, rows):
    return rows.T @ rows if total is None else total.addmm_(rows.T, rows)


def _settled(layer, name, hessian, bits, how):
    """Return a layer's integers, and let its copy multiply by what they stand for."""
    weight = layers.weight_matrix(layer).data
    try:
        q, scale, zero_point = gptq(weight, hessian, bits, **how)
    except ValueError as error:
        raise ValueError(f"layer {name}: {error}") from error
    weight.copy_(read_back(q, scale, zero_point))
    return q, scale, zero_point
