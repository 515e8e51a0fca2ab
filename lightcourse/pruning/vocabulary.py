"""Rows of the token tables that no text needs: a smaller vocabulary, in the model.

In a small model most parameters are words. :mod:`lightcourse.pruning.tokens` tells which of
them stay, and makes the tokenizer that goes with such a model.
"""

from collections.abc import Sequence
from contextlib import suppress

import torch
from torch import nn

from lightcourse import layers, pretrained
from lightcourse.pruning.tokens import checked_tokens

NAMES = ("_token_id", "_token_ids", "_token_index", "padding_idx")
# Settings of generation that list tokens: what is not kept leaves the list by itself.
LISTS = ("suppress_tokens", "begin_suppress_tokens")
# And those whose tokens stand for something together.
COMPOSED = ("bad_words_ids", "forced_decoder_ids", "sequence_bias")


def remove_tokens_(model: nn.Module, keep: Sequence[int]) -> layers.Report:
    """Take tokens out of a model, in place: their rows of the table and of the output layer.

    Token ``keep[i]`` of a sorted ``keep`` becomes token ``i``, as in
    :func:`smaller_tokenizer`. Nothing is approximated: on texts of kept tokens the hidden
    states stay the same bits, and so do the logits of kept tokens. Among fewer tokens their
    probabilities rise. On multilingual models: Abdaoui et al. 2020, arXiv 2010.05609.

    Parameters
    ----------
    model : nn.Module
        A transformers model, or a module around one, with tables of floats. Changed in
        place: make optimizers afterwards. ``config`` and ``generation_config`` follow.
    keep : sequence of int
        Such as :func:`tokens_of` returns.

    Returns
    -------
    Report
        For the table, and an output layer of its own, the parameters removed.

    Raises
    ------
    ValueError
        When ``keep`` is empty, holds a token twice or one that does not exist, lacks one that
        a configuration names (such as ``eos_token_id``), or is all that there are; or when
        the model has no such table, or tables of two vocabularies. Nothing has been changed
        then.
    """
    model = layers.inside(model)
    owners, count = _owners(model)
    kept = checked_tokens(keep, count)
    _check_settings(model, kept, count)
    if len(kept) == count:
        raise ValueError(f"keep holds all {count} tokens; nothing was shrunk")
    _check_positions(model, owners, kept)
    report = layers.Report("shrunk", "parameters removed")
    for name, lost in _cut_(model, owners, torch.tensor(kept), count).items():
        report.changed[name] = lost
    for told in _settings(model):
        _renumber_(told, {old: new for new, old in enumerate(kept)}, count)
    pretrained.watch_(model)
    return report


def _owners(model):
    """Return the modules with a row for each token, by name, and how many rows they have."""
    inputs, outputs = _asked(model, "get_input_embeddings"), _asked(model, "get_output_embeddings")
    tables = [table for table in inputs if isinstance(table, nn.Embedding)]
    if not tables:
        raise ValueError(f"model is a {type(model).__name__} without a token table of floats")
    weights = {id(getattr(module, "weight", None)) for module in tables + outputs}
    named = model.named_modules()
    found = {n: m for n, m in named if id(getattr(m, "_parameters", {}).get("weight")) in weights}
    _check_owners(found, outputs)
    return found, len(tables[0].weight)


def _asked(model, method):
    """Return what the transformers models inside of a model answer, those that do."""
    found = []
    for module in model.modules():
        with suppress(AttributeError, NotImplementedError):
            found.append(getattr(module, method)())
    return [module for module in found if module is not None]


def _check_owners(found, outputs):
    for name, module in [*found.items(), *(("the output layer", head) for head in outputs)]:
        if not isinstance(module, nn.Embedding | nn.Linear):
            raise ValueError(f"{name} is a {type(module).__name__}; a table of floats is wanted")
    counts = {name: len(module.weight) for name, module in found.items()}
    if len(set(counts.values())) > 1:
        raise ValueError(f"model has tables of several vocabularies ({counts}); one is wanted")


def _settings(model):
    """Return the modules and configurations that may name tokens by their numbers."""
    found = {id(module): module for module in model.modules()}
    for module in model.modules():
        for key in ("config", "generation_config"):
            told = getattr(module, key, None)
            parts = [getattr(told, name, None) for name in getattr(told, "sub_configs", ())]
            found |= {id(one): one for one in (told, *parts) if hasattr(one, "__dict__")}
    return list(found.values())


def _named(told):
    """Return the settings that name a token, or several, and are set."""
    named = {k: v for k, v in vars(told).items() if k.endswith(NAMES)}
    return {k: v for k, v in named.items() if isinstance(v, int | list | tuple)}


def _check_settings(model, kept, count):
    known, there = set(kept), range(count)
    for told in _settings(model):
        for key, value in _named(told).items():
            tokens = [value] if isinstance(value, int) else value
            if lost := [token for token in tokens if token in there and token not in known]:
                raise ValueError(f"keep lacks {lost[0]}, the {key} of {type(told).__name__}")
        for key in COMPOSED:
            if getattr(told, key, None):
                raise ValueError(f"{key} of {type(told).__name__} names tokens; None is wanted")


def _check_positions(model, owners, kept):
    """Raise where positions are counted from the padding token's number, and that one moves."""
    for name, module in model.named_modules():
        pad = module.padding_idx if isinstance(module, nn.Embedding) else None
        if pad is not None and name not in owners and kept[pad : pad + 1] != [pad]:
            raise ValueError(f"keep lacks a token below {pad}, from which {name} counts positions")


def _cut_(model, owners, kept, count):
    """Give all owners of a row for each token only the kept rows; return what each one lost."""
    lost, new = {}, {}
    for name, module in owners.items():
        for key in ("weight", "bias"):
            old = module._parameters.get(key)
            if old is not None and id(old) not in new:
                new[id(old)] = _rows(old, kept), old  # the old one too, that its id stays its own
                lost[name] = lost.get(name, 0) + old.numel() - new[id(old)][0].numel()
        _tell_count_(module, len(kept))
    for module in model.modules():
        for key, value in list(module._parameters.items()):
            if id(value) in new:  # under all names: an output layer stays tied
                module._parameters[key] = new[id(value)][0]
        if getattr(module, "final_logits_bias", None) is not None:  # BART's, a buffer
            module.final_logits_bias = module.final_logits_bias[:, kept]
    return lost


def _rows(parameter, kept):
    rows = parameter.data[kept.to(parameter.device)]
    return nn.Parameter(rows, parameter.requires_grad)


def _tell_count_(module, count):
    if isinstance(module, nn.Embedding):
        module.num_embeddings = count
    else:
        module.out_features = count


def _renumber_(told, position, count):
    """Let a module or configuration tell the tokens' new numbers, and how many there are."""
    if getattr(told, "vocab_size", None) == count:
        told.vocab_size = len(position)
    for key, value in _named(told).items():
        one = isinstance(value, int)
        new = [position.get(token, token) for token in ([value] if one else value)]
        setattr(told, key, new[0] if one else type(value)(new))
    for key in LISTS:
        if getattr(told, key, None):
            kept = [position[token] for token in getattr(told, key) if token in position]
            setattr(told, key, kept)
