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
from lightcourse.data.bundled import (
    COUNTRIES,
    load_factbook,
    load_reviews,
    load_speeches,
    load_summaries,
)
from lightcourse.data.digits import noisy_digits
from lightcourse.data.factbook_questions import load_country_names, load_factbook_questions
from lightcourse.data.fetched import (
    load_chinese_reviews,
    load_movie_ratings,
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
    "COUNTRIES",
    "SPLITS",
    "class_counts",
    "csv_rows",
    "excerpts",
    "load_chinese_reviews",
    "load_country_names",
    "load_csv",
    "load_factbook",
    "load_factbook_questions",
    "load_movie_ratings",
    "load_newsgroups",
    "load_poems",
    "load_questions",
    "load_reuters",
    "load_reviews",
    "load_speeches",
    "load_summaries",
    "majority_class",
    "noisy_digits",
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
