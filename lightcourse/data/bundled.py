"""Text that comes with the repository: speeches, reviews and Factbook passages."""

import json
import lzma
from functools import cache
from pathlib import Path

from lightcourse.data.splits import SPLITS, assign, dataset_dict, sorted_names

BUNDLED = Path(__file__).parents[1] / "bundled"
COUNTRIES = BUNDLED / "countries.json"  # names by the Factbook's codes
AMBIGUOUS = 0.5


@cache
def records(name: str) -> list[dict]:
    """Return the records of one bundled file, as they were bundled."""
    with lzma.open(BUNDLED / f"{name}.jsonl.xz", "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def load_speeches(split: str = "train"):
    """Return the State of the Union speeches of one split.

    233 speeches, 1790 to 2021, in order of year. They are split by year, so that no speech
    and no year stands on both sides: years that end in 0 are for validation, years that
    end in 5 for the test, all others for training.

    Parameters
    ----------
    split : str
        ``"train"``, ``"validation"`` or ``"test"``.

    Returns
    -------
    datasets.Dataset
        Columns year (int), president, party and text (str).
    """
    from datasets import Dataset

    if split not in SPLITS:
        raise ValueError(f"split is {split!r}; one of {SPLITS} is wanted")
    return Dataset.from_list([r for r in records("speeches") if _speech_split(r["year"]) == split])


def _speech_split(year):
    return {0: "validation", 5: "test"}.get(year % 10, "train")


def load_reviews():
    """Return sentences from movie and Amazon reviews, negative (0) or positive (1).

    Every sentence was rated by at least 15 people from -4 to 4 (Hutto & Gilbert, "VADER",
    ICWSM 2014). ``label`` is the sign of their mean. Sentences with a mean between -0.5
    and 0.5 are left out: the raters disagree there, or find no feeling at all.

    Amazon rows are sentences of 309 reviews, and all sentences of a review stay on one
    side of the split. Movie rows are one sentence a review.

    Returns
    -------
    datasets.DatasetDict
        Columns text, label, source (``"movie"`` or ``"amazon"``), valence (the mean) and
        agreement: the share of raters who are on the label's side of 0. Who rated 0 is on
        neither side.
    """
    kept = [r for r in records("reviews") if abs(r["valence"]) >= AMBIGUOUS]
    rows = [
        {
            "text": r["text"],
            "label": "positive" if r["valence"] > 0 else "negative",
            "source": r["source"],
            "valence": r["valence"],
            "agreement": _agreement(r["ratings"], r["valence"]),
        }
        for r in kept
    ]
    splits = assign((r["review"] for r in kept), (r["source"] for r in kept))
    return dataset_dict(rows, splits, {"label": ["negative", "positive"]})


def _agreement(ratings, valence):
    """Return the share of ratings, counted from -4 to 4, with the sign of their mean."""
    return sum(ratings[5:] if valence > 0 else ratings[:4]) / sum(ratings)


def load_factbook(label: str = "section"):
    """Return passages of the CIA World Factbook, in the public domain.

    The classes are far from equal in size: of the sections, Government alone has two
    fifths of the passages. All passages of a country stay on one side of the split, and
    every region has countries on all sides.

    Parameters
    ----------
    label : str
        What to tell from the text: ``"section"`` (13 classes, the easy one) or
        ``"region"`` (11, the hard one).

    Returns
    -------
    datasets.DatasetDict
        Columns text, label, country (a two-letter code), region and section.
    """
    if label not in ("section", "region"):
        raise ValueError(f"label is {label!r}; 'section' or 'region' is wanted")
    passages = records("factbook")
    columns = ("country", "region", "section")
    rows = [{"text": r["text"], "label": r[label]} | {c: r[c] for c in columns} for r in passages]
    splits = assign((r["country"] for r in rows), (r["region"] for r in rows))
    return dataset_dict(rows, splits, {"label": sorted_names(rows, "label")})


def load_summaries():
    """Return introductions of the World Factbook, each with a reference summary.

    24 passages of the Factbook's test split, of six sentences or more. The summaries, of one or
    two sentences, were written for this course by one writer, a language model, before the
    output of any system was seen: an overlap with them compares systems, and by itself means
    little.

    Returns
    -------
    datasets.Dataset
        Columns text, summary and country (a two-letter code).
    """
    from datasets import Dataset

    written = json.loads((BUNDLED / "summaries.json").read_text(encoding="utf-8"))["summaries"]
    passages = (r for r in records("factbook") if r["section"] == "Introduction")
    text = {r["country"]: r["text"] for r in passages}
    return Dataset.from_list(
        [{"text": text[c], "summary": summary, "country": c} for c, summary in written.items()]
    )
