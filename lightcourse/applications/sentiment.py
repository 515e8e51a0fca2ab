"""A classifier without a tokenizer: hashed characters and their pairs, averaged, for any script."""

import math
import zlib

import torch
from torch import nn
from torch.nn import functional as F

from lightcourse import data, training

# Pieces read of a text.
LONGEST = 200
# Rows of a trained bag's table. On Chinese reviews 2**14 rows of 32 numbers, as many, were 3 points
# of accuracy worse.
BUCKETS = 2**16


def hashed_pieces(text: str, buckets: int) -> list[int]:
    """Return the buckets, 1 .. ``buckets`` - 1, of a text's characters and pairs of characters.

    No vocabulary is kept: pieces that fall into one bucket share its vector (Weinberger et al.
    2009, arXiv 0902.2206). The hash is CRC-32, the same on each machine and in each run.

    Parameters
    ----------
    text : str
        200 pieces are read: characters first, then pairs.
    buckets : int
        At least 2; bucket 0 is for padding.

    Examples
    --------
    >>> len(hashed_pieces("很好看", 1024)), hashed_pieces("", 1024)
    (5, [])
    """
    if buckets < 2:
        raise ValueError(f"buckets is {buckets}; 2 or more is wanted")
    pieces = [*text, *map("".join, zip(text, text[1:], strict=False))]
    return [1 + zlib.crc32(piece.encode()) % (buckets - 1) for piece in pieces[:LONGEST]]


class HashedBag(nn.Module):
    """A table of vectors, their mean over a text's pieces, and a linear head.

    The shape is fastText's (Joulin et al. 2016, arXiv 1607.01759). The table is an
    ``nn.Embedding``, so that ``quantization.quantize_(…, embeddings=8)`` finds it.

    Parameters
    ----------
    buckets, width, labels : int
        Rows and columns of the table, and classes.
    """

    def __init__(self, buckets: int = BUCKETS, width: int = 16, labels: int = 2):
        super().__init__()
        self.table, self.head = nn.Embedding(buckets, width), nn.Linear(width, labels)
        nn.init.normal_(self.table.weight, std=0.1)

    def forward(self, pieces: torch.Tensor) -> torch.Tensor:
        """Return logits, (texts, labels), of pieces, int64 of shape (texts, longest)."""
        real = (pieces > 0).unsqueeze(-1)
        return self.head((self.table(pieces) * real).sum(1) / real.sum(1).clamp(min=1))


def padded(texts: list[str], buckets: int) -> torch.Tensor:
    """Return the pieces of texts, int64 of shape (texts, longest), with 0 behind short texts."""
    rows = [torch.tensor(hashed_pieces(text, buckets), dtype=torch.int64) for text in texts]
    return nn.utils.rnn.pad_sequence(rows, batch_first=True)


def train_bag(texts: list[str], labels: list[int], seed: int = 0, epochs: int = 3) -> HashedBag:
    """Return a bag trained on batches of 64, in evaluation mode.

    Parameters
    ----------
    texts : list of str
    labels : list of int
        0 .. classes - 1.
    seed : int
        Of the first weights and of the order of texts; the global seed is left alone.
    epochs : int
        How often each text is seen.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        bag = HashedBag(labels=max(labels) + 1)
        pieces = padded(texts, bag.table.num_embeddings)
        batches = data.row_batches({"pieces": pieces, "labels": torch.tensor(labels)}, 64)
        steps = epochs * math.ceil(len(texts) / 64)
        recipe = training.Recipe(steps, 5e-3, final=1.0, seed=seed)
        training.train(bag, batches, recipe, _loss, progress=False)
    return bag


def _loss(bag, batch):
    return F.cross_entropy(bag(batch["pieces"]), batch["labels"])


@torch.no_grad()
def answers(bag: nn.Module, texts: list[str]) -> torch.Tensor:
    """Return the label of each text, int64; ``bag`` may be a quantized one."""
    pieces = padded(texts, bag.table.num_embeddings)
    return torch.cat([bag(rows).argmax(-1) for rows in pieces.split(256)])
