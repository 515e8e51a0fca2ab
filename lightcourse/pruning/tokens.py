"""Which tokens a smaller vocabulary needs, and the tokenizer that has only those."""

import json
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path


def tokens_of(tokenizer, texts: Iterable[str]) -> list[int]:
    """Return the tokens that a vocabulary must keep to split some texts as it does now.

    Those are the tokens of the texts; special and added ones; and what any other text can be
    made of: single bytes or characters, and the unknown token. Byte-pair encoding builds a
    token of two smaller ones, so it needs those too, down to the bytes.

    Parameters
    ----------
    tokenizer : transformers tokenizer
        A fast one, that is one of the library *tokenizers*: BPE, WordPiece or Unigram.
    texts : iterable of str

    Returns
    -------
    list of int
        In ascending order; :func:`smaller_tokenizer` and :func:`remove_tokens_` take it.

    Raises
    ------
    ValueError
        When the tokenizer is a slow one, or there is no text.
    """
    described = _described(tokenizer)
    if isinstance(texts, str) or not (texts := list(texts)):
        raise ValueError(f"texts is {texts!r}; a list with one text at least is wanted")
    used = tokenizer(texts, verbose=False)["input_ids"]
    ids = {token for found in used for token in found}
    ids |= {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    vocabulary = tokenizer.get_vocab()
    ids |= {i for token, i in vocabulary.items() if _is_fallback(token, described["model"])}
    return sorted(_with_parts(ids, vocabulary, described["model"]))


def smaller_tokenizer(tokenizer, keep: Sequence[int]):
    """Return a tokenizer that has only some of another's tokens, numbered anew in their order.

    Token ``keep[i]`` of a sorted ``keep`` becomes token ``i``. All else stays: class, special
    tokens, template, what is put around a text. The given tokenizer is not changed.

    Parameters
    ----------
    tokenizer : transformers tokenizer
        A fast one.
    keep : sequence of int
        Such as :func:`tokens_of` returns. Without its single bytes or characters, words that
        need them become unknown or are lost.

    Raises
    ------
    ValueError
        When the tokenizer is a slow one, or ``keep`` is empty, holds a token twice or one that
        does not exist, lacks a special token, or is all that there are.
    """
    described, vocabulary = _described(tokenizer), tokenizer.get_vocab()
    kept = checked_tokens(keep, max(vocabulary.values()) + 1)
    _check_special(tokenizer, kept, vocabulary, described)
    position = {old: new for new, old in enumerate(kept)}
    numbers = {token: position[i] for token, i in vocabulary.items() if i in position}
    if len(numbers) in (len(vocabulary), 0) or len(numbers) < len(kept):
        raise ValueError(
            f"keep holds {len(kept)} tokens, of which this tokenizer has {len(numbers)}; some of "
            f"its {len(vocabulary)} and not all are wanted"
        )
    new = _rebuilt(tokenizer, _renumbered(described, numbers))
    if new.get_vocab() != numbers:
        raise ValueError(f"tokenizer is a {type(tokenizer).__name__}, which cannot be made smaller")
    return new


def checked_tokens(keep: Sequence[int], count: int) -> list[int]:
    """Return the tokens to keep in ascending order, or raise where they are none of ``count``.

    Raises
    ------
    ValueError
        When ``keep`` is empty, or holds a token twice or one outside 0..``count`` - 1.
    """
    kept = sorted(int(token) for token in keep)
    if not kept:
        raise ValueError("keep is empty; at least one token is wanted")
    if kept[0] < 0 or kept[-1] >= count:
        wrong = kept[0] if kept[0] < 0 else kept[-1]
        raise ValueError(f"keep holds token {wrong}; 0..{count - 1} is wanted")
    twice = next((one for one, other in zip(kept, kept[1:], strict=False) if one == other), None)
    if twice is not None:
        raise ValueError(f"keep holds token {twice} twice; each once is wanted")
    return kept


def _described(tokenizer):
    """Return what the library *tokenizers* would write into tokenizer.json."""
    if not getattr(tokenizer, "is_fast", False):
        raise ValueError(
            f"tokenizer is a {type(tokenizer).__name__}; a fast one is wanted, which "
            "AutoTokenizer.from_pretrained gives"
        )
    return json.loads(tokenizer.backend_tokenizer.to_str())


def _is_fallback(token, model):
    """Tell whether a token is a single character, a byte, or the one for all that is unknown."""
    if token == _unknown(model):
        return True
    is_byte = model.get("byte_fallback") and token.startswith("<0x") and len(token) == 6
    start, end = model.get("continuing_subword_prefix"), model.get("end_of_word_suffix")
    return bool(is_byte) or len(token.removeprefix(start or "").removesuffix(end or "")) == 1


def _unknown(model):
    if model.get("unk_id") is not None:  # Unigram
        return model["vocab"][model["unk_id"]][0]
    return model.get("unk_token")


def _with_parts(ids, vocabulary, model):
    """Return tokens with all that byte-pair merges make them of."""
    parts = defaultdict(set)
    for one, other, whole in _merges(model):
        parts[vocabulary[whole]] |= {vocabulary[one], vocabulary[other]}
    found, open_ = set(ids), list(ids)
    while open_:
        fresh = parts[open_.pop()] - found
        found |= fresh
        open_ += fresh
    return found


def _merges(model):
    """Yield (left, right, what they become) for each merge; there are none outside of BPE."""
    prefix = model.get("continuing_subword_prefix") or ""
    for one, other in model.get("merges", ()):
        yield one, other, one + other.removeprefix(prefix)


def _check_special(tokenizer, kept, vocabulary, described):
    needed = {i: tokenizer.convert_ids_to_tokens(i) for i in tokenizer.all_special_ids}
    unknown = _unknown(described["model"])
    for token in {*_inserted(described["post_processor"] or {}), unknown} & vocabulary.keys():
        needed[vocabulary[token]] = token
    if lost := sorted(set(needed) - set(kept)):
        raise ValueError(f"keep lacks {lost[0]}, the special token {needed[lost[0]]}")


def _inserted(processor):
    """Yield the tokens that a post-processor puts around a text."""
    for part in processor.get("processors", ()):
        yield from _inserted(part)
    yield from processor.get("special_tokens", ())
    yield from (processor[key][0] for key in ("sep", "cls") if key in processor)


def _renumbered(described, numbers):
    """Return a tokenizer's description with the tokens of ``numbers`` alone, by their numbers."""
    model = described["model"]
    unknown = _unknown(model)
    if isinstance(model["vocab"], dict):
        model["vocab"] = {t: numbers[t] for t in model["vocab"] if t in numbers}
    else:
        model["vocab"] = [pair for pair in model["vocab"] if pair[0] in numbers]
    if model.get("unk_id") is not None:
        model["unk_id"] = numbers[unknown]
    if "merges" in model:
        model["merges"] = [m[:2] for m in _merges(model) if all(part in numbers for part in m)]
    added = [token for token in described["added_tokens"] if token["content"] in numbers]
    described["added_tokens"] = [t | {"id": numbers[t["content"]]} for t in added]
    if described["padding"]:
        described["padding"]["pad_id"] = numbers[described["padding"]["pad_token"]]
    _renumber_inserted_(described["post_processor"] or {}, numbers)
    return described


def _renumber_inserted_(processor, numbers):
    for part in processor.get("processors", ()):
        _renumber_inserted_(part, numbers)
    for special in processor.get("special_tokens", {}).values():
        special["ids"] = [numbers[token] for token in special["tokens"]]
    for key in ("sep", "cls"):  # RoBERTa's and BERT's own
        if key in processor:
            processor[key][1] = numbers[processor[key][0]]


def _rebuilt(tokenizer, described):
    """Return a tokenizer of the same class and settings, by way of its files."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        (Path(folder) / "tokenizer.json").write_text(json.dumps(described), encoding="utf-8")
        path = Path(folder) / "tokenizer_config.json"
        settings = json.loads(path.read_text(encoding="utf-8"))
        settings.pop("added_tokens_decoder", None)  # by their old numbers
        path.write_text(json.dumps(settings), encoding="utf-8")
        new = type(tokenizer).from_pretrained(folder)
    new.name_or_path = tokenizer.name_or_path
    return new
