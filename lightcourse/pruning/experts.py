"""Experts of a mixture that few tokens visit: counted, and taken out.

Each token of a mixture of experts passes few of a layer's feed-forward blocks; a router, one
row of a matrix for each expert, chooses them. Shazeer et al. 2017, arXiv 1701.06538.
"""

from collections.abc import Iterable

import torch
from torch import nn

from lightcourse import calibration, layers, pretrained
from lightcourse.pruning.masks import check_masks

# What configurations and modules call the number of experts.
COUNTS = ("num_local_experts", "num_experts")


def expert_shares(model: nn.Module, batches: Iterable[dict]) -> dict[str, torch.Tensor]:
    """Return how the tokens of some text spread over each layer's experts.

    A token that visits two experts counts twice. Of the shares :func:`layer_mask` makes masks
    that drop the experts that were asked least (Lu et al. 2024, arXiv 2402.14800, weigh what
    that does to the output instead).

    Parameters
    ----------
    model : nn.Module
        A mixture like Mixtral or Qwen's. Runs once over the batches; unchanged.
    batches : iterable of dict
        Keyword arguments for the model; tokens where ``attention_mask`` is 0 do not count.

    Returns
    -------
    dict of str to Tensor of shape (experts,)
        By the mixture's name; float32, each sums to 1. Only those that ran.

    Raises
    ------
    ValueError
        When the model has no experts of a known kind, there is no batch, one is no dict, or a
        token is outside of the vocabulary.
    """
    model = layers.inside(model)
    counts, asked = {}, {}
    hooks = [
        block.gate.register_forward_hook(_counter(name, counts, asked))
        for name, block in _mixtures(model).items()
    ]
    calibration.run_hooked(model, batches, hooks, asked)
    return {name: count / count.sum() for name, count in counts.items()}


def drop_experts_(model: nn.Module, masks: dict[str, torch.Tensor]) -> layers.Report:
    """Take experts out of mixtures, in place; the router chooses among those that are left.

    It is as if the router gave the others a score of minus infinity. A token visits as many
    experts as before, so the model becomes smaller, not faster.

    Where all mixtures keep equally many, the configuration follows, and ``save_pretrained``
    works; else it refuses.

    Parameters
    ----------
    model : nn.Module
        Changed in place. Make optimizers afterwards: the parameters have new shapes.
    masks : dict of str to Tensor of bool, shape (experts,)
        By the mixture's name, as :func:`expert_shares` gives it; True = keep.

    Returns
    -------
    Report
        For each mixture the parameters removed.

    Raises
    ------
    ValueError
        When the model has no experts of a known kind, a mask fits no mixture or not its size,
        or keeps fewer experts than a token visits (nothing has been changed then), or when no
        expert was dropped.
    """
    model = layers.inside(model)
    found = _mixtures(model)
    _check(masks, found)
    report = layers.Report("shrunk", "parameters removed")
    for name, mask in masks.items():
        if not mask.all():
            report.changed[name] = _drop_(found[name], mask)
    report.raise_if_nothing_changed("the masks keep all experts")
    _note_counts(model, {len(block.gate.weight) for block in found.values()})
    pretrained.watch_(model)
    return report


def _mixtures(model):
    """Return the blocks with a router and fused experts, by name."""
    found = {name: module for name, module in model.named_modules() if _is_mixture(module)}
    if not found:
        raise ValueError(
            f"model is a {type(model).__name__} without experts of a known kind; a block is "
            "wanted whose gate holds weight and whose experts hold gate_up_proj and down_proj"
        )
    return found


def _is_mixture(module):
    """Tell whether the experts of a block can go: nothing but these tensors knows of them."""
    gate, experts = getattr(module, "gate", None), getattr(module, "experts", None)
    if not isinstance(gate, nn.Module) or not isinstance(experts, nn.Module):
        return False
    same = list(gate.state_dict()) == ["weight"] and hasattr(gate, "top_k")
    return same and set(experts.state_dict()) == {"gate_up_proj", "down_proj"}


def _counter(name, counts, asked):
    """Return a hook that adds up how many tokens a router sends to each expert."""

    def count(router, _, answer):
        chosen = answer[2]  # (tokens, visited experts)
        mask = asked["inputs"].get("attention_mask")
        if mask is not None:
            chosen = chosen[mask.flatten().bool()]
        found = torch.bincount(chosen.flatten(), minlength=len(router.weight)).float()
        counts[name] = counts.get(name, 0) + found

    return count


def _check(masks, found):
    shapes = {name: block.gate.weight.shape[:1] for name, block in found.items()}
    check_masks(masks, shapes, "mixture of experts")
    for name, mask in masks.items():
        visited, kept = found[name].gate.top_k, int(mask.sum())
        if kept < visited:
            raise ValueError(
                f"the mask of {name} keeps {kept} experts, but a token visits {visited} of them; "
                f"{visited} at least are wanted"
            )


def _drop_(block, mask):
    """Take the experts out of one block; return how many parameters fewer it has."""
    removed = 0
    for module in (block.gate, block.experts):
        for name, old in list(module.named_parameters()):
            new = nn.Parameter(old.data[mask.to(old.device)], old.requires_grad)
            setattr(module, name, new)
            removed += old.numel() - new.numel()
        module.num_experts = int(mask.sum())
    return removed


def _note_counts(model, counts):
    """Let the model and its configurations tell how many experts there are, if it is one number."""
    if len(counts) > 1:
        return
    (count,) = counts
    for module in model.modules():
        config = getattr(module, "config", None)
        for told in (config, getattr(config, "text_config", None), module):
            for key in COUNTS:
                if isinstance(getattr(told, key, None), int):
                    setattr(told, key, count)
