"""Search by meaning and by words: passages as vectors, in few bits, beside BM25.

``python -m lightcourse.applications.search "How is the weather in Norway?"`` searches the World
Factbook, without a network.
"""

import hashlib
import re
import sys

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from lightcourse import assets, data, encoding, files, models, quantization

# Tokens read of a passage: 82 of 100 have no more, country and section included.
TOKENS = 64


def factbook_passages() -> list[dict]:
    """Return all passages of the Factbook: country (its name), section, text, and what is read.

    ``read`` is what searches see: country and section stand before the text, which seldom names
    them.
    """
    names, splits = data.load_country_names(), data.load_factbook()
    return [
        {
            "country": names[row["country"]],
            "section": row["section"],
            "text": row["text"],
            "read": f"{names[row['country']]}, {row['section']}: {row['text']}",
        }
        for split in data.SPLITS
        for row in splits[split]
    ]


def unit_vectors(texts: list[str], encoder: nn.Module, tokenizer) -> torch.Tensor:
    """Return one vector of length 1 for each text, float32 of shape (texts, width).

    Parameters
    ----------
    texts : list of str
        The first 64 tokens of each are read; texts of like length are read together.
    encoder : nn.Module
        As :func:`lightcourse.models.embed` takes it.
    tokenizer : transformers tokenizer
    """
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    batches = (
        tokenizer(
            [texts[i] for i in order[start : start + 64]],
            truncation=True,
            max_length=TOKENS,
            padding=True,
            return_tensors="pt",
        )
        for start in range(0, len(order), 64)
    )
    found = F.normalize(models.embed(encoder, batches))
    return found[torch.tensor(order).argsort()]


def vector_index(vectors: torch.Tensor, bits: int | None = None) -> nn.Module:
    """Return an index: a linear layer with a row for each passage, whose outputs are scores.

    Parameters
    ----------
    vectors : Tensor of shape (passages, width)
        Of length 1, so that a score is the cosine.
    bits : int, optional
        2 to 8 for codes in the form of :func:`lightcourse.quantization.quantize_`, with a scale
        for each row, or for each 32 columns up to 4 bits; None for floats.

    Returns
    -------
    nn.Module
        Takes vectors of questions, (questions, width), and returns (questions, passages).
        ``metrics.size_in_bytes`` tells its bytes.
    """
    passages, width = vectors.shape
    layer = nn.Linear(width, passages, bias=False)
    layer.weight = nn.Parameter(vectors.clone(), requires_grad=False)
    index = nn.Sequential(layer).eval()
    if bits is not None:
        group = 32 if bits <= 4 else None
        quantization.quantize_(index, bits, group_size=group, activations=8)
    return index


class SignIndex:
    """An index of signs: one bit for each number of a vector.

    A score is how many signs agree, minus how many do not (their Hamming distance, turned round).

    Parameters
    ----------
    vectors : Tensor of shape (passages, width)
        Width is a multiple of 8.
    """

    def __init__(self, vectors: torch.Tensor):
        self.width, self.codes = vectors.shape[1], _signs(vectors)

    @property
    def nbytes(self) -> int:
        """Bytes of all codes."""
        return self.codes.nbytes

    def __call__(self, questions: torch.Tensor) -> np.ndarray:
        """Return scores, int64 of shape (questions, passages)."""
        differ = [np.bitwise_count(self.codes ^ code).sum(1) for code in _signs(questions)]
        return self.width - 2 * np.stack(differ).astype(np.int64)

    def reranked(self, questions: torch.Tensor, keep: int = 100) -> np.ndarray:
        """Return scores of the ``keep`` best by signs, and -inf for all others.

        The question keeps its floats in this second look, which needs no further bytes: its numbers
        are summed with the passage's signs (Yamada et al. 2021, arXiv 2106.00882, rank so).
        """
        found = np.full((len(questions), len(self.codes)), -np.inf)
        rough, questions = self(questions), questions.numpy()
        for row, question in enumerate(questions):
            best = np.argsort(-rough[row], kind="stable")[:keep]
            signs = np.unpackbits(self.codes[best], axis=1)[:, : self.width] * 2.0 - 1
            found[row, best] = signs @ question
        return found


def _signs(vectors):
    return np.packbits(vectors.numpy() > 0, axis=1)


class Bm25:
    """Search by words: rare ones weigh more, and in long texts less.

    A plural's s does not count, nor do words such as "the" and "what": the Factbook asks nothing,
    so that "what" is rare there, and would decide every search.

    Robertson & Zaragoza, "The Probabilistic Relevance Framework", 2009, doi:10.1561/1500000019.

    Parameters
    ----------
    texts : list of str
    k1, b : float
        How soon a word's repetition stops to count, and how much a text's length does; the usual
        values, not tuned here.
    """

    def __init__(self, texts: list[str], k1: float = 1.2, b: float = 0.75):
        from sklearn.feature_extraction.text import CountVectorizer

        self.words = CountVectorizer(analyzer=_words, dtype=np.float32)
        counts = self.words.fit_transform(texts).tocoo()
        lengths = np.asarray(counts.sum(1)).ravel()
        holding = np.bincount(counts.col, minlength=counts.shape[1])
        rarity = np.log(1 + (len(texts) - holding + 0.5) / (holding + 0.5))
        room = k1 * (1 - b + b * lengths / lengths.mean())
        counts.data *= (k1 + 1) / (counts.data + room[counts.row]) * rarity[counts.col]
        self.weights = counts.tocsc()

    def __call__(self, questions: list[str]) -> np.ndarray:
        """Return scores, float32 of shape (questions, passages); 0 where no word is in both."""
        return (self.words.transform(questions) @ self.weights.T).toarray()

    @property
    def nbytes(self) -> int:
        """Bytes of all weights and of where they stand, without the words."""
        return sum(part.nbytes for part in (self.weights.data, self.weights.indices))


def _words(text):
    """Return the words that count, without a plural's s."""
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    left_out = ENGLISH_STOP_WORDS | {"does", "s"}
    found = re.findall(r"\w+", text.lower())
    return [word.removesuffix("s") for word in found if word not in left_out]


def fuse(*scores: np.ndarray, k: int = 60) -> np.ndarray:
    """Return the sum of 1 / (k + place) over several searches, shape (questions, passages).

    Reciprocal rank fusion (Cormack, Clarke & Büttcher, SIGIR 2009, doi:10.1145/1571941.1572114):
    places can be added where scores of different kinds cannot. Equal scores share the lowest of
    their places.

    Parameters
    ----------
    scores : ndarray of shape (questions, passages)
        One for each search; higher is better.
    k : int
        The larger, the less the first places count; the paper's.

    Raises
    ------
    ValueError
        When there is no search, or they are not of one shape.
    """
    if not scores or len({np.shape(found) for found in scores}) > 1:
        shapes = [np.shape(found) for found in scores]
        raise ValueError(f"scores have shapes {shapes}; at least one, all alike, is wanted")
    return sum(1 / (k + _places(np.asarray(found))) for found in scores)


def _places(scores):
    """Return the place of each passage, from 1; equal scores all have their last."""
    from scipy.stats import rankdata

    return rankdata(-scores, method="max", axis=1)


def small_encoder() -> nn.Module:
    """Return MiniLM in 8 bits, jitted."""
    model = models.load_minilm()
    quantization.quantize_(model, 8, activations=8, embeddings=8)
    return encoding.jit(model)


def stored_vectors(rows: list[dict], encoder: nn.Module, tokenizer) -> torch.Tensor:
    """Return the vectors of all passages from the cache, making them where they are not there.

    That takes a minute. The folder's name changes with the texts, the model and how much is read.
    """
    read = [row["read"] for row in rows]
    origin = hashlib.sha256((assets.path("minilm") / "manifest.json").read_bytes())
    origin.update(f"{TOKENS} {read}".encode())

    def write(folder):
        vectors = unit_vectors(read, encoder, tokenizer)
        files.save_tensors({"vectors": vectors}, folder / "vectors.safetensors")

    folder = assets.derive(f"factbook-vectors-{origin.hexdigest()[:12]}", write)
    return files.load_tensors(folder / "vectors.safetensors")[0]["vectors"]


def main(question: str) -> None:
    """Print the passages that fit a question best, and what they answer."""
    from lightcourse.applications.answers import best_answer

    rows, encoder, tokenizer = (
        factbook_passages(),
        small_encoder(),
        models.load_minilm_tokenizer(),
    )
    index = vector_index(stored_vectors(rows, encoder, tokenizer), 8)
    asked = unit_vectors([question], encoder, tokenizer)
    # Not fused with BM25: on questions that made the answer worse (chapter 17).
    scores = index(asked).numpy()[0]
    best = [rows[i] for i in np.argsort(-scores, kind="stable")[:3]]
    print(best_answer(question, best, encoder, tokenizer))
    for row in best:
        print(f"  {row['country']}, {row['section']}: {row['text'][:200]}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit('usage: python -m lightcourse.applications.search "question"')
    main(sys.argv[1])
