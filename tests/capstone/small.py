"""Small classifiers of the 13 sections and a tokenizer for them, for tests."""

import tokenizers
import torch
import transformers
from tokenizers import models as kinds

from lightcourse import capstone, models

WORDS = [
    "the",
    "of",
    "and",
    "river",
    "coal",
    "army",
    "president",
    "exports",
    "island",
    "border",
    "law",
    "coast",
    "people",
    "rain",
]
TEXTS = [" ".join(WORDS[i % 14 :] + WORDS[: i % 14]) * (1 + i % 3) for i in range(40)]
LABELS = [i % 13 for i in range(40)]


def tokenizer():
    pieces = ["[PAD]", "[UNK]", *WORDS]
    inner = tokenizers.Tokenizer(
        kinds.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]")
    )
    inner.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="[PAD]")


def model(seed=0, width=32, layers=2):
    torch.manual_seed(seed)
    config = transformers.BertConfig(
        vocab_size=16,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
        pad_token_id=0,
    )
    encoder = transformers.BertModel(config, add_pooling_layer=False)
    return models.EncoderClassifier(encoder, 13).eval()


def saved(folder, seed=1, width=16, layers=1):
    """Save an honest submission without a card and return its folder."""
    capstone.save_submission(model(seed, width, layers), tokenizer(), folder, max_length=32)
    return folder


def teacher():
    return capstone.Submission(model(), tokenizer(), capstone.section_names(), 32)


def card(folder, **claims):
    """Write a card by hand; without claims an honest one."""
    size = sum((folder / name).stat().st_size for name in capstone.looking.NEEDED)
    claims = {"bytes": size, "accuracy": 0.01, "share_of_time": 9} | claims
    lines = "".join(f"  {name}: {value}\n" for name, value in claims.items())
    (folder / "README.md").write_text(f"---\nclaims:\n{lines}---\n\n# It\n", encoding="utf-8")
