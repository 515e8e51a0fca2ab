"""What a GGUF file tells beside its tensors: the shape of a Llama, and its tokenizer."""

import json
import re

FILE_TYPES = {"F16": 1, "Q4_0": 2, "Q4_1": 3, "Q8_0": 7}  # llama.cpp's numbers
NORMAL, CONTROL, USER_DEFINED = 1, 3, 4


def of_model(config, kind: str) -> dict:
    """Return the keys ``general.*`` and ``llama.*`` for a Llama's configuration."""
    head = config.head_dim
    shape = {
        "vocab_size": config.vocab_size,
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "block_count": config.num_hidden_layers,
        "feed_forward_length": config.intermediate_size,
        "rope.dimension_count": head,
        "rope.freq_base": float(config.rope_parameters["rope_theta"]),
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": config.num_key_value_heads,
        "attention.key_length": head,  # pruned heads: no longer embedding_length / head_count
        "attention.value_length": head,
        "attention.layer_norm_rms_epsilon": float(config.rms_norm_eps),
    }
    general = {"type": "model", "file_type": FILE_TYPES[kind], "quantization_version": 2}
    named = {f"general.{key}": value for key, value in general.items()}
    return named | {f"llama.{key}": value for key, value in shape.items()}


def of_tokenizer(tokenizer: object, config) -> dict:
    """Return the keys ``tokenizer.*`` for a byte-level BPE tokenizer.

    Raises
    ------
    ValueError
        When it is another kind, cuts texts in a way that llama.cpp does not know by name, adds
        tokens to every text, or has more or fewer tokens than the model.
    """
    parts = _checked_parts(tokenizer, config)
    tokens = sorted(tokenizer.get_vocab().items(), key=lambda pair: pair[1])
    added = {t["content"]: CONTROL if t["special"] else USER_DEFINED for t in parts["added_tokens"]}
    found = {
        "model": "gpt2",
        "pre": _cut_of(parts),
        "tokens": [token for token, _ in tokens],
        "token_type": [added.get(token, NORMAL) for token, _ in tokens],
        "merges": [" ".join(pair) for pair in parts["model"]["merges"]],
        "add_bos_token": False,
        "add_space_prefix": False,
    }
    found |= {f"{role}_token_id": number for role, number in _roles(tokenizer, config).items()}
    template = getattr(tokenizer, "chat_template", None)
    chat = {"tokenizer.chat_template": template} if template else {}
    return {f"tokenizer.ggml.{key}": value for key, value in found.items()} | chat


def _checked_parts(tokenizer, config):
    """Return the tokenizer's own description, a dict."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        kind = type(tokenizer).__name__
        raise ValueError(f"tokenizer is a {kind}; a fast tokenizer of transformers is wanted")
    parts = json.loads(backend.to_str())
    model = parts["model"]
    if model["type"] != "BPE" or model.get("ignore_merges") or parts["normalizer"]:
        raise ValueError(
            f"tokenizer is a {model['type']} or changes texts before it cuts them; "
            "byte-level BPE alone is wanted"
        )
    if len(tokenizer) != config.vocab_size:
        raise ValueError(
            f"tokenizer has {len(tokenizer)} tokens; the model's {config.vocab_size} are wanted"
        )
    if extra := tokenizer("")["input_ids"]:
        raise ValueError(f"tokenizer adds the tokens {extra} to a text; none are wanted")
    return parts


def _cut_of(parts):
    """Return llama.cpp's name for how a text is cut before its pieces become tokens.

    GPT-2's expression alone, or digits one by one before it. When transformers reads a GGUF
    file it forgets the second; that no token holds a digit and more still tells of it.
    """
    before = parts["pre_tokenizer"] or {}
    steps = before.get("pretokenizers", [before])
    digits, last = steps[:-1], steps[-1]
    if last.get("type") != "ByteLevel" or last["add_prefix_space"] or not last["use_regex"]:
        raise ValueError(
            "tokenizer does not cut as GPT-2's; ByteLevel, or Digits before it, is wanted"
        )
    if digits:
        if digits != [{"type": "Digits", "individual_digits": True}]:
            raise ValueError(f"tokenizer cuts by {digits}; single Digits, or none, are wanted")
        return "smollm"
    merged = any(
        re.search(r"\d.|.\d", "".join(pair), re.ASCII) for pair in parts["model"]["merges"]
    )
    return "gpt-2" if merged else "smollm"


def _roles(tokenizer, config):
    """Return the ids of the special tokens that there are, by role."""
    ids = {
        "bos": tokenizer.bos_token_id
        if tokenizer.bos_token_id is not None
        else config.bos_token_id,
        "eos": tokenizer.eos_token_id,
        "unknown": tokenizer.unk_token_id,
        "padding": tokenizer.pad_token_id,
    }
    return {role: number for role, number in ids.items() if number is not None}
