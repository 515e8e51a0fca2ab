"""config.json of a submission: the few numbers from which its empty model is built.

The keys are a closed set, each with a range: no name of a class, no path, no code.
"""

import json
from functools import cache

import torch
from torch import nn

from lightcourse import data, models

FORMAT = "lightcourse-capstone-1"
# Far above what is light, and few enough that a model of all of them is refused, not allocated.
RANGES = {
    "vocab_size": (1, 300_000),
    "hidden_size": (1, 2_048),
    "num_hidden_layers": (1, 48),
    "num_attention_heads": (1, 256),
    "intermediate_size": (1, 16_384),
    "max_position_embeddings": (1, 8_192),
    "type_vocab_size": (1, 16),
    "pad_token_id": (0, 300_000),
}
ACTIVATIONS = ("gelu", "gelu_new", "relu", "silu", "tanh")
KEYS = {"format", "labels", "max_length", "hidden_act", "layer_norm_eps", *RANGES}


@cache
def section_names() -> tuple[str, ...]:
    """Return the Factbook's 13 sections, in the order of their labels."""
    return tuple(data.load_factbook()["train"].features["label"].names)


def described(model: nn.Module, max_length: int, labels: tuple[str, ...]) -> dict:
    """Return what config.json tells of a classifier around a BERT.

    Raises
    ------
    ValueError
        When the model is another one, has another number of classes, or ``max_length`` is more
        than its positions.
    """
    check_kind(model, labels)
    told = model.encoder.config.to_dict()
    chosen = {key: told[key] for key in ("hidden_act", "layer_norm_eps", *RANGES)}
    # What verbs leave behind as they cut; the tables themselves know best.
    chosen["max_position_embeddings"] = _rows(model.encoder.embeddings.position_embeddings)
    chosen["vocab_size"] = _rows(model.encoder.embeddings.word_embeddings)
    chosen["pad_token_id"] = chosen["pad_token_id"] or 0
    found = {"format": FORMAT, "labels": list(labels), "max_length": max_length, **chosen}
    check(found, labels)
    return found


def _rows(table):
    return table.num_embeddings


def check_kind(model: nn.Module, labels: tuple[str, ...]) -> None:
    """Raise ``ValueError`` where a model is no classifier of these labels around a BERT."""
    from transformers import BertModel

    if not isinstance(model, models.EncoderClassifier):
        raise ValueError(f"model is a {type(model).__name__}; an EncoderClassifier is wanted")
    if type(model.encoder) is not BertModel:
        kind = type(model.encoder).__name__
        raise ValueError(f"model has a {kind} as its encoder; a BertModel is wanted")
    if model.encoder.pooler is not None:
        raise ValueError(
            "model has a pooler, which never runs here and would be counted; "
            "BertModel(config, add_pooling_layer=False) is wanted"
        )
    if (classes := model.head.out_features) != len(labels):
        raise ValueError(f"model has {classes} classes; {len(labels)} are wanted, {labels}")


def read(text: str, labels: tuple[str, ...]) -> dict:
    """Return what config.json holds.

    Raises
    ------
    ValueError
        With a sentence for its author, when it is no JSON, has another key, lacks one, or a
        value is out of its range.
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"config.json is no JSON: {str(error)[:100]}") from error
    if not isinstance(found, dict):
        raise ValueError("config.json holds no object; the keys of a submission are wanted")
    if {"auto_map", "trust_remote_code"} & found.keys():
        raise ValueError("config.json names code to run (auto_map); a submission is data alone")
    check(found, labels)
    return found


def check(found: dict, labels: tuple[str, ...]) -> None:
    """Raise ``ValueError`` where a configuration is none of a submission."""
    if found.get("format") != FORMAT:
        raise ValueError(f"config.json has format {_short(found.get('format'))}; {FORMAT!r} wanted")
    if wrong := sorted(found.keys() ^ KEYS):
        has = "has the key" if wrong[0] in found else "lacks the key"
        raise ValueError(f"config.json {has} {_short(wrong[0])}; {sorted(KEYS)} are wanted")
    if found["labels"] != list(labels):
        raise ValueError(f"config.json has the labels {_short(found['labels'])}; {_order(labels)}")
    for key, (low, high) in RANGES.items():
        _check_number(key, found[key], low, high)
    _check_number("max_length", found["max_length"], 3, found["max_position_embeddings"])
    if found["hidden_act"] not in ACTIVATIONS:
        raise ValueError(
            f"config.json has hidden_act {_short(found['hidden_act'])}; one of {ACTIVATIONS} wanted"
        )
    epsilon = found["layer_norm_eps"]
    if type(epsilon) is not float or not 0 < epsilon <= 0.1:
        raise ValueError(f"config.json has layer_norm_eps {_short(epsilon)}; 0 to 0.1 is wanted")
    if found["hidden_size"] % found["num_attention_heads"]:
        raise ValueError(
            f"config.json has hidden_size {found['hidden_size']} and "
            f"{found['num_attention_heads']} heads; a multiple of the heads is wanted"
        )


def _check_number(key, value, low, high):
    if type(value) is not int or not low <= value <= high:
        raise ValueError(f"config.json has {key} {_short(value)}; {low} to {high} is wanted")


def _order(labels):
    return f"{list(labels)} in this order is wanted"


def _short(value):
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:100]} …"


def empty(found: dict) -> nn.Module:
    """Return the classifier that a configuration describes, on ``meta``: shapes without values."""
    from transformers import BertConfig, BertModel

    shape = {key: found[key] for key in ("hidden_act", "layer_norm_eps", *RANGES)}
    if shape["pad_token_id"] >= shape["vocab_size"]:
        raise ValueError(
            f"config.json has pad_token_id {shape['pad_token_id']} of {shape['vocab_size']} tokens"
        )
    with torch.device("meta"):
        encoder = BertModel(BertConfig(**shape), add_pooling_layer=False)
        return models.EncoderClassifier(encoder, len(found["labels"])).eval()
