"""A submission: a folder with a classifier and its tokenizer, that is data alone."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from lightcourse import files, layers, lora, models
from lightcourse.capstone import shape, stored
from lightcourse.capstone.looking import CONFIG, NEEDED, TOKENIZER, WEIGHTS, look


@dataclass(frozen=True)
class Submission:
    """A classifier with what it needs to read texts.

    Parameters
    ----------
    model : EncoderClassifier
        In evaluation mode.
    tokenizer : transformers tokenizer
    labels : tuple of str
        The classes' names.
    max_length : int
        Tokens that are read of a text.
    """

    model: nn.Module
    tokenizer: object
    labels: tuple[str, ...]
    max_length: int

    @torch.inference_mode()
    def logits(self, texts: list[str]) -> torch.Tensor:
        """Return the logits of some texts, which are read as one batch."""
        options = {"truncation": True, "max_length": self.max_length, "padding": True}
        inputs = self.tokenizer(texts, return_tensors="pt", **options)
        return self.model(inputs["input_ids"], inputs["attention_mask"]).logits


def save_submission(
    model: nn.Module,
    tokenizer,
    folder: str | Path,
    max_length: int = 128,
    labels: tuple[str, ...] | None = None,
) -> int:
    """Write a classifier as a submission: all but its card, which :func:`claim` writes.

    Parameters
    ----------
    model : EncoderClassifier
        Around a ``BertModel`` without a pooler: of any number and sizes of layers, with integers,
        codebooks, thin factors, zeros, shared layers, a smaller table of tokens. An adapter is
        merged before.
    tokenizer : transformers tokenizer
        A fast one, with a token for each row of the model's table.
    folder : path
        Made where it is not there; files of an earlier submission are replaced.
    max_length : int
        Tokens that are read of a text; at most the model's positions.
    labels : tuple of str, optional
        The classes' names; by default the Factbook's sections.

    Returns
    -------
    int
        The bytes of the three files.

    Raises
    ------
    ValueError
        When the model or the tokenizer is of another kind, or would not be the same once loaded.
    """
    model, folder = layers.plainly_named(model), files.checked_folder(folder, "folder")
    labels = shape.section_names() if labels is None else tuple(labels)
    found = shape.described(model, max_length, labels)
    written = _tokenizer_text(tokenizer, found["vocab_size"])
    _write(folder / TOKENIZER, written)
    _write(folder / CONFIG, json.dumps(found, indent=1) + "\n")
    stored.save(model, folder / WEIGHTS)
    _check_same(model, load_submission(folder, labels).model, found)
    return sum((folder / name).stat().st_size for name in NEEDED)


def _write(path, text):
    files.write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def _tokenizer_text(tokenizer, rows):
    if not getattr(tokenizer, "is_fast", False):
        kind = type(tokenizer).__name__
        raise ValueError(f"tokenizer is a {kind}; a fast one, of the library tokenizers, is wanted")
    told = json.loads(tokenizer.backend_tokenizer.to_str()) | {"truncation": None, "padding": None}
    text = json.dumps(told, ensure_ascii=False, separators=(",", ":"))
    _opened(text, {"pad_token_id": tokenizer.pad_token_id or 0, "vocab_size": rows})
    return text


def _check_same(model, again, found):
    """Raise where a model answers otherwise once it is loaded: it has what no file tells."""
    generator = torch.Generator().manual_seed(0)
    size = 2, min(12, found["max_length"])
    ids = torch.randint(found["vocab_size"], size, generator=generator)
    with layers.evaluating(model), torch.inference_mode():
        before, after = (m(ids, torch.ones_like(ids)).logits for m in (model, again))
    if not torch.equal(before, after):
        raise ValueError(
            "model answers otherwise once it is loaded: something in it is no part of the course's "
            "layers, or of a BERT's configuration (an activation, a scale, a hook)"
        )


def load_submission(folder: str | Path, labels: tuple[str, ...] | None = None) -> Submission:
    """Load what :func:`save_submission` wrote; no code of the folder's is run.

    Parameters
    ----------
    folder : path
    labels : tuple of str, optional
        The classes' names that are wanted; by default the Factbook's sections.

    Raises
    ------
    ValueError
        With a sentence for the folder's author: see :func:`look`; or when the files do not fit
        each other.
    """
    folder = Path(folder)
    look(folder)
    labels = shape.section_names() if labels is None else tuple(labels)
    found = shape.read((folder / CONFIG).read_text(encoding="utf-8"), labels)
    model = shape.empty(found)
    stored.load_(model, folder / WEIGHTS)
    tokenizer = _opened((folder / TOKENIZER).read_text(encoding="utf-8"), found)
    return Submission(model.eval(), tokenizer, labels, found["max_length"])


def _opened(text, found):
    """Return the tokenizer in a file, if its tokens are the rows of the model's table."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    try:
        inner = Tokenizer.from_str(text)
        inner.no_padding()  # a file may ask for a thousand million
        inner.no_truncation()
        inner.encode("A")
    except Exception as error:  # its one error for everything is a bare Exception
        raise ValueError(f"tokenizer.json is no tokenizer: {str(error)[:200]}") from error
    numbers = inner.get_vocab(with_added_tokens=True).values()
    if not numbers or max(numbers) >= found["vocab_size"] or len(numbers) < found["vocab_size"]:
        raise ValueError(
            f"tokenizer.json has {len(numbers):,} tokens, up to {max(numbers, default=-1):,}, and "
            f"the model's table {found['vocab_size']:,} rows; a token for each row is wanted"
        )
    pad = inner.id_to_token(found["pad_token_id"])
    return PreTrainedTokenizerFast(tokenizer_object=inner, pad_token=pad)


def load_teacher() -> Submission:
    """Return the teacher: MiniLM that tells the Factbook's sections, its adapter merged.

    Raises
    ------
    lightcourse.assets.AssetMissing
        When MiniLM was not fetched yet.
    """
    labels = shape.section_names()
    model = models.EncoderClassifier(models.load_minilm(), num_labels=len(labels))
    lora.load_lora_(model, models.factbook_adapter())
    lora.merge_lora_(model)
    # As many tokens as its adapter was trained with: who reads less than it has compressed nothing.
    return Submission(model.eval(), models.load_minilm_tokenizer(), labels, 24)
