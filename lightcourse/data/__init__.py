"""Text to train on and to measure with: speeches, labelled sets, any CSV, and batches.

Labelled sets are ``datasets.DatasetDict`` with the splits train, validation and test and
at least the columns ``text`` (str) and ``label`` (``ClassLabel``). Equal texts are dropped
before splitting, and a split depends on nothing but the texts: no seed, no machine.
"""

from lightcourse.data.batches import (
    excerpts,
    ordered_batches,
    rank_batches,
    row_batches,
    speech_tokens,
    text_batches,
    token_batches,
)
from lightcourse.data.bundled import load_factbook, load_reviews, load_speeches
from lightcourse.data.fetched import (
    load_chinese_reviews,
    load_newsgroups,
    load_poems,
    load_questions,
    load_reuters,
)
from lightcourse.data.labels import class_counts, majority_class
from lightcourse.data.sampling import poisson_batches
from lightcourse.data.splits import SPLITS
from lightcourse.data.tables import csv_rows, load_csv
from lightcourse.data.typos import typo_rows, with_typos

__all__ = [
    "SPLITS",
    "class_counts",
    "csv_rows",
    "excerpts",
    "load_chinese_reviews",
    "load_csv",
    "load_factbook",
    "load_newsgroups",
    "load_poems",
    "load_questions",
    "load_reuters",
    "load_reviews",
    "load_speeches",
    "majority_class",
    "ordered_batches",
    "poisson_batches",
    "rank_batches",
    "row_batches",
    "speech_tokens",
    "text_batches",
    "token_batches",
    "typo_rows",
    "with_typos",
]
