"""Layers that share: a stack of transformer layers that has only a few sets of weights."""

from numbers import Integral

from torch import nn

from lightcourse import layers, pretrained, surgery
from lightcourse.integers import integer_matrices


def share_layers_(model: nn.Module, groups: int = 1) -> layers.Report:
    """Let neighbouring transformer layers share all their weights, in place.

    ALBERT (Lan et al. 2019, arXiv 1909.11942). The layers stay modules of their own, each with
    its place in a cache of keys and values, and run as many times as before; but their parameters
    are the same objects, which ``parameters()``, optimizers and files have once, and to whose
    gradient each layer adds. A group starts from the weights of its first layer: their mean is
    worse by far, before and after training (perplexity 141 and not 64 after 60 steps, one group
    of the four layers of ``load_tiny_lm("student")``). Train it: untrained, the model is broken.

    Parameters
    ----------
    model : nn.Module
        Contains stacks of transformer layers, as BERT, GPT-2 and Llama one and T5 two. Changed in
        place. Make optimizers afterwards.
    groups : int
        Sets of weights in each stack: 1 for all layers, 3 of 12 layers for 0-3, 4-7 and 8-11.
        Where it does not divide them, groups differ by one layer.

    Returns
    -------
    Report
        For each layer that gave up weights of its own the parameters saved.

    Raises
    ------
    ValueError
        Before anything is changed: when there is no stack, ``groups`` is below 1 or above the
        sets of weights that a stack has (its layers, unless they share already), or would save
        nothing; when layers of a group have other parameters, shapes or dtypes; when the model
        stores integers.
    """
    model = layers.inside(model)
    stacks = surgery.layer_stacks(model)
    if integers := list(integer_matrices(model)):
        raise ValueError(f"model stores integers in {integers[0]}; quantize_ it afterwards")
    for name, stack in stacks.items():
        _check_groups(name, stack, groups)
        for first, *others in _groups(stack, groups):
            _check_alike(name, stack, first, others)
    report = layers.Report("shared", "parameters saved")
    for name, stack in stacks.items():
        before = sum(p.numel() for p in stack.parameters())
        for first, *others in _groups(stack, groups):
            for other in others:
                _take_over(stack[other], stack[first])
                now = sum(p.numel() for p in stack.parameters())
                if now < before:
                    report.changed[f"{name}.{other}".lstrip(".")] = before - now
                before = now
    report.raise_if_nothing_changed(f"every stack has {groups} sets of weights already")
    pretrained.watch_(model)
    return report


def _groups(stack, groups):
    """Return the numbers of neighbouring layers, in lists that are as equal as possible."""
    ends = [index * len(stack) // groups for index in range(groups + 1)]
    return [list(range(*pair)) for pair in zip(ends, ends[1:], strict=False)]


def _check_groups(name, stack, groups):
    if isinstance(groups, bool) or not isinstance(groups, Integral) or groups < 1:
        raise ValueError(f"groups is {groups!r}; 1 or more is wanted")
    if groups > (most := _sets(stack)):
        where = f"{name or 'the model'} has {len(stack)} layers with {most} sets of weights"
        raise ValueError(f"groups is {groups}, but {where}; at most {most} is wanted")


def _sets(stack):
    """Return how many sets of weights the layers have; what only some of them have is left out."""
    named = [_named(layer) for layer in stack]
    common = set(named[0]).intersection(*named)
    return len({tuple(id(layer[name]) for name in sorted(common)) for layer in named})


def _named(layer):
    """Return all parameters of a layer, one under each of its names."""
    return dict(layer.named_parameters(remove_duplicate=False))


def _check_alike(name, stack, first, others):
    """Raise where a layer cannot use the first one's parameters; that one may have more."""
    model = _named(stack[first])
    for other in others:
        for own, parameter in _named(stack[other]).items():
            there = model.get(own)
            if there is None or (there.shape, there.dtype) != (parameter.shape, parameter.dtype):
                wanted = "none" if there is None else f"{tuple(there.shape)}, {there.dtype}"
                raise ValueError(
                    f"layers {first} and {other} of {name or 'the model'} cannot share: {own} is "
                    f"{wanted} in the one, {tuple(parameter.shape)}, {parameter.dtype} in the other"
                )


def _take_over(layer, first):
    """Let a layer use the parameters of another."""
    parameters = _named(first)
    for name in _named(layer):
        path, _, own = name.rpartition(".")
        layer.get_submodule(path)._parameters[own] = parameters[name]
