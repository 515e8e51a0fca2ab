"""Text to train on and to measure with: speeches, labelled sets, any CSV, and batches.

Labelled sets are ``datasets.DatasetDict`` with the splits train, validation and test and
at least the columns ``text`` (str) and ``label`` (``ClassLabel``). Equal texts are dropped
before splitting, and a split depends on nothing but the texts: no seed, no machine.
"""

import csv
import io
import json
import lzma
import os
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path

import torch

from lightcourse import assets

BUNDLED = Path(__file__).parent / "bundled"
SPLITS = ("train", "validation", "test")
TENTHS = ("train", "test", "validation", *["train"] * 7)
AMBIGUOUS = 0.5


@cache
def _records(name):
    with lzma.open(BUNDLED / f"{name}.jsonl.xz", "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


# Speeches and windows of tokens


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
    return Dataset.from_list([r for r in _records("speeches") if _speech_split(r["year"]) == split])


def _speech_split(year):
    return {0: "validation", 5: "test"}.get(year % 10, "train")


def speech_tokens(tokenizer, split: str = "train") -> torch.Tensor:
    """Return the token ids of one split's speeches, an end token behind each.

    Parameters
    ----------
    tokenizer : transformers tokenizer
        With an ``eos_token_id``.
    split : str
        As in :func:`load_speeches`.

    Returns
    -------
    torch.Tensor
        int64, one dimension, speeches in order of year.
    """
    end = tokenizer.eos_token_id
    if end is None:
        raise ValueError("tokenizer has no eos_token; one that marks the end of a text is wanted")
    texts = list(load_speeches(split)["text"])
    encoded = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
    return torch.tensor([token for ids in encoded for token in [*ids, end]])


def token_batches(
    tokens: torch.Tensor, window: int, batch_size: int
) -> Callable[[int, int], Iterator[dict]]:
    """Return a callable that cuts a token stream into shuffled batches of windows.

    Each epoch starts the windows at another random place, so that their borders move.

    Parameters
    ----------
    tokens : torch.Tensor
        int64, one dimension, at least two windows long.
    window : int
        Tokens in a row of a batch, at least 2.
    batch_size : int
        Rows in a batch; the last batch of an epoch may have less.

    Returns
    -------
    callable
        ``batches(epoch, seed)`` yields dicts with ``input_ids`` and ``labels``, both of
        shape (batch_size, window); the same ones for the same arguments. The labels are
        the inputs: causal language models of transformers shift them by one themselves.
    """
    if window < 2 or len(tokens) < 2 * window:
        raise ValueError(f"window is {window}; 2 to {len(tokens) // 2} is wanted for these tokens")
    _require_positive(batch_size=batch_size)

    def batches(epoch, seed):
        generator = _generator(epoch, seed)
        start = int(torch.randint(window, (), generator=generator))
        count = (len(tokens) - start) // window
        windows = tokens[start : start + count * window].view(count, window)
        for rows in torch.randperm(count, generator=generator).split(batch_size):
            yield {"input_ids": windows[rows], "labels": windows[rows]}

    return batches


def _generator(epoch, seed):
    return torch.Generator().manual_seed(seed * 1_000_003 + epoch)


def _require_positive(**numbers):
    for name, number in numbers.items():
        if number < 1:
            raise ValueError(f"{name} is {number}; at least 1 is wanted")


# Batches of labelled text


def encode(dataset, tokenizer, max_length: int = 128, batch_size: int = 64) -> list[dict]:
    """Return all batches of a labelled set in its own order, as measuring wants them.

    Parameters
    ----------
    dataset : datasets.Dataset
        One split, with the columns text and label.
    tokenizer : transformers tokenizer
        Adds its own special tokens.
    max_length : int
        Tokens kept of a text.
    batch_size : int
        Texts in a batch; the last one may have less.

    Returns
    -------
    list of dict
        ``input_ids`` and ``attention_mask``, int64 of shape (batch, longest of the batch),
        padded on the right, and ``labels``, int64 of shape (batch,).
    """
    _require_positive(batch_size=batch_size)
    ids, labels = _tokenized(dataset, tokenizer, max_length)
    return [
        _padded(rows.tolist(), ids, labels, tokenizer)
        for rows in torch.arange(len(ids)).split(batch_size)
    ]


def text_batches(
    dataset, tokenizer, batch_size: int = 32, max_length: int = 128
) -> Callable[[int, int], Iterator[dict]]:
    """Return a callable that gives shuffled batches of a labelled set, as training wants them.

    Within each shuffled run of 50 batches, texts of like length are put together, so that
    little time goes into padding.

    Parameters
    ----------
    dataset, tokenizer, batch_size, max_length
        As in :func:`encode`.

    Returns
    -------
    callable
        ``batches(epoch, seed)`` yields the dicts that :func:`encode` describes; every text
        once in an epoch, the same batches for the same arguments.
    """
    _require_positive(batch_size=batch_size)
    ids, labels = _tokenized(dataset, tokenizer, max_length)
    lengths = torch.tensor([len(row) for row in ids])

    def batches(epoch, seed):
        generator = _generator(epoch, seed)
        for run in torch.randperm(len(ids), generator=generator).split(50 * batch_size):
            groups = run[lengths[run].argsort(stable=True)].split(batch_size)
            for group in torch.randperm(len(groups), generator=generator).tolist():
                yield _padded(groups[group].tolist(), ids, labels, tokenizer)

    return batches


def _tokenized(dataset, tokenizer, max_length):
    missing = {"text", "label"} - set(dataset.column_names)
    if missing:
        raise ValueError(
            f"dataset has the columns {dataset.column_names}; {sorted(missing)} is wanted too "
            f"(choose one split of a DatasetDict)"
        )
    if len(dataset) == 0:
        raise ValueError("dataset is empty; at least one row is wanted")
    _require_positive(max_length=max_length)
    encoded = tokenizer(list(dataset["text"]), truncation=True, max_length=max_length)
    return encoded["input_ids"], torch.tensor(dataset["label"][:])


def _padded(rows, ids, labels, tokenizer):
    longest = max(len(ids[row]) for row in rows)
    # GPT-2 and Llama have no padding token; the mask hides whatever stands there.
    input_ids = torch.full((len(rows), longest), tokenizer.pad_token_id or 0)
    attention_mask = torch.zeros_like(input_ids)
    for place, row in enumerate(rows):
        input_ids[place, : len(ids[row])] = torch.tensor(ids[row])
        attention_mask[place, : len(ids[row])] = 1
    return {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels[rows]}


# Splits


def _assign(groups: Iterable[str], strata: Iterable[str]) -> list[str]:
    """Return a split for each row: 8 tenths train, 1 validation, 1 test.

    Rows of one group stay together. Within each stratum the groups are put into an order
    that looks random (a checksum's) and dealt out by tenths, so that every stratum of at
    least three groups stands in all three splits.
    """
    groups, strata = list(groups), list(strata)
    members = {}
    for group, stratum in zip(groups, strata, strict=True):
        members.setdefault(stratum, set()).add(group)
    split = {}
    for stratum, names in members.items():
        ordered = sorted(names, key=_checksum)
        split |= {(stratum, name): TENTHS[i % 10] for i, name in enumerate(ordered)}
    return [split[stratum, group] for group, stratum in zip(groups, strata, strict=True)]


def _checksum(text):
    return zlib.crc32(text.encode()), text


def _first_of_each_text(rows):
    """Return the rows whose text, apart from case and blanks, has not been seen before."""
    first = {}
    for row in rows:
        first.setdefault(" ".join(row["text"].lower().split()), row)
    return list(first.values())


def _dataset_dict(rows, splits, classes):
    """Make a DatasetDict; ``classes`` gives the names of each ClassLabel column, in order.

    Rows get a fixed mixed order, so that the first n of a split are a fair sample of it.
    """
    from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

    kinds = {str: "string", float: "float64"}
    features = Features(
        {
            column: ClassLabel(names=classes[column])
            if column in classes
            else Value(kinds[type(value)])
            for column, value in rows[0].items()
        }
    )
    chosen = {name: [] for name in SPLITS}
    pairs = zip(rows, splits, strict=True)
    for row, split in sorted(pairs, key=lambda pair: _checksum(pair[0]["text"])):
        chosen[split].append(row)
    return DatasetDict({s: Dataset.from_list(r, features=features) for s, r in chosen.items()})


def _sorted_names(rows, column):
    return sorted({row[column] for row in rows})


# Labelled sets in the repository


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
        Columns text, label, source (``"movie"`` or ``"amazon"``) and valence (the mean).
    """
    kept = [r for r in _records("reviews") if abs(r["valence"]) >= AMBIGUOUS]
    rows = [
        {
            "text": r["text"],
            "label": "positive" if r["valence"] > 0 else "negative",
            "source": r["source"],
            "valence": r["valence"],
        }
        for r in kept
    ]
    splits = _assign((r["review"] for r in kept), (r["source"] for r in kept))
    return _dataset_dict(rows, splits, {"label": ["negative", "positive"]})


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
    records = _records("factbook")
    columns = ("country", "region", "section")
    rows = [{"text": r["text"], "label": r[label]} | {c: r[c] for c in columns} for r in records]
    splits = _assign((r["country"] for r in rows), (r["region"] for r in rows))
    return _dataset_dict(rows, splits, {"label": _sorted_names(rows, "label")})


# Labelled sets that are fetched


def load_reuters(classes: int = 8):
    """Return Reuters news stories by topic, lower case and without punctuation.

    R8 and R52 of Reuters-21578 (Lewis 1997; the two forms are Cardoso-Cachopo's, 2007).
    Half of R8 is one class, ``earn``: report macro-F1 beside accuracy. The test set is the
    published one (ModApté); training stories that are also in it are dropped, and a tenth
    of the others is held back for validation. For research use.

    Parameters
    ----------
    classes : int
        8 or 52.

    Returns
    -------
    datasets.DatasetDict
        Columns text and label.

    Raises
    ------
    lightcourse.assets.AssetMissing
        When the asset ``news`` was not fetched yet.
    """
    if classes not in (8, 52):
        raise ValueError(f"classes is {classes}; 8 or 52 is wanted")
    return _published_split(f"reuters-r{classes}")


def load_newsgroups():
    """Return 20 Newsgroups by group, lower case and without punctuation.

    The test set is the published one, of later posts; training posts that are also in it
    are dropped, and a tenth of the others is held back for validation.

    Returns
    -------
    datasets.DatasetDict
        Columns text and label.

    Raises
    ------
    lightcourse.assets.AssetMissing
        When the asset ``news`` was not fetched yet.
    """
    return _published_split("20newsgroups")


def _published_split(name):
    train = [row | {"part": "train"} for row in _tab_rows(f"{name}-train.tab")]
    test = [row | {"part": "test"} for row in _tab_rows(f"{name}-test.tab")]
    rows = _first_of_each_text(test + train)
    parts = [row.pop("part") for row in rows]
    # Only the validation tenth is taken from what is published as training text.
    dealt = _assign((row["text"] for row in rows), (row["label"] for row in rows))
    splits = [
        part if part == "test" else {"validation": "validation"}.get(tenth, "train")
        for part, tenth in zip(parts, dealt, strict=True)
    ]
    return _dataset_dict(rows, splits, {"label": _sorted_names(rows, "label")})


def _tab_rows(file):
    """Yield the rows of an Orange table: three lines of header, then label, tab, text."""
    with open(assets.path("news") / file, encoding="utf-8") as lines:
        for line in list(lines)[3:]:
            label, _, text = line.rstrip("\n").partition("\t")
            if text.strip():
                yield {"text": text.strip(), "label": label}


def load_questions():
    """Return questions by the type of their answer (TREC; Li & Roth, COLING 2002).

    Returns
    -------
    datasets.DatasetDict
        Columns text, label (6 coarse types) and fine (50 types such as ``NUM:date``).
        The published test set is not in the package: all splits are our own.

    Raises
    ------
    lightcourse.assets.AssetMissing
        When the asset ``questions`` was not fetched yet.
    """
    lines = (assets.path("questions") / "question_labels.txt").read_text("utf-8").splitlines()
    pairs = [line.partition(" ")[::2] for line in lines if line.strip()]
    rows = [{"text": text, "label": fine.split(":")[0], "fine": fine} for fine, text in pairs]
    return _dealt_by_label(_first_of_each_text(rows), "fine")


def load_chinese_reviews():
    """Return Chinese reviews of books, hotels and goods, negative (0) or positive (1).

    Half of the package's lines stand in it twice; they are dropped before splitting, and
    so are the few that stand under both labels.

    Returns
    -------
    datasets.DatasetDict
        Columns text and label.

    Raises
    ------
    lightcourse.assets.AssetMissing
        When the asset ``chinese-reviews`` was not fetched yet.
    """
    folder = assets.path("chinese-reviews")
    lines = {
        label: {line.strip() for line in (folder / file).read_text("utf-8").splitlines()} - {""}
        for label, file in (("negative", "neg.txt"), ("positive", "pos.txt"))
    }
    both = lines["negative"] & lines["positive"]
    rows = [
        {"text": text, "label": label} for label in lines for text in sorted(lines[label] - both)
    ]
    return _dealt_by_label(_first_of_each_text(rows))


def _dealt_by_label(rows, *more_classes):
    """Split rows by text within each label."""
    splits = _assign((row["text"] for row in rows), (row["label"] for row in rows))
    classes = {column: _sorted_names(rows, column) for column in ("label", *more_classes)}
    return _dataset_dict(rows, splits, classes)


def load_poems():
    """Return Song dynasty ci poems, text for a Chinese language model; there is no label.

    Returns
    -------
    datasets.DatasetDict
        Columns text (lines of a poem, one to a line), tune and author, in simplified
        characters.

    Raises
    ------
    lightcourse.assets.AssetMissing
        When the asset ``poems`` was not fetched yet.
    """
    rows = []
    for file in sorted(assets.path("poems").glob("ci.song.*.json")):
        for poem in json.loads(file.read_text("utf-8")):
            text = "\n".join(line.strip() for line in poem["paragraphs"]).strip()
            rows.append({"text": text, "tune": poem["rhythmic"], "author": poem["author"]})
    rows = _first_of_each_text(row for row in rows if row["text"])
    splits = _assign((row["text"] for row in rows), ("" for _ in rows))
    return _dataset_dict(rows, splits, {})


# Data of one's own


def load_csv(path: str | os.PathLike):
    """Return the labelled texts of any CSV file with the columns ``text`` and ``label``.

    Labels may be words or whole numbers; they are numbered from 0 in alphabetical order,
    whole numbers in numerical order. Of equal texts the first is kept. Within each label,
    8 tenths of the texts go to train, 1 to validation and 1 to test; other columns are
    ignored.

    Parameters
    ----------
    path : path
        Fields separated by commas, UTF-8 with or without a byte order mark.

    Returns
    -------
    datasets.DatasetDict
        Columns text and label.

    Raises
    ------
    ValueError
        When the file is empty, not UTF-8, lacks a column, has an empty or overlong row or
        less than two labels, or is too small to be split. Rows are numbered as lines of
        the file, the header being row 1.
    """
    name = Path(path).name
    rows = _first_of_each_text(_csv_rows(_csv_text(path, name), name))
    labels = _label_names(rows)
    if len(labels) < 2:
        raise ValueError(
            f"{name}: the column 'label' holds {labels}; at least two labels are wanted"
        )
    splits = _assign((row["text"] for row in rows), (row["label"] for row in rows))
    if set(splits) != set(SPLITS):
        raise ValueError(
            f"{name} has {len(rows)} different texts for {len(labels)} labels; "
            f"a label with at least 3 texts is wanted, else there is nothing to test on"
        )
    return _dataset_dict(rows, splits, {"label": labels})


def _csv_text(path, name):
    content = Path(path).read_bytes()
    try:
        text = content.decode("utf-8-sig").rstrip()
    except UnicodeDecodeError as error:
        row = content[: error.start].count(b"\n") + 1
        raise ValueError(
            f"{name}, row {row}: not UTF-8 ({error.reason}); save it as UTF-8"
        ) from error
    if not text:
        raise ValueError(f"{name} is empty; a header 'text,label' and rows are wanted")
    return text


def _csv_rows(text, name):
    """Yield {text, label} for each row behind the header, or raise with the row's number."""
    # Strict: an open quote would otherwise swallow the rest of the file without a word.
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = [field.strip() for field in next(reader)]
        missing = [column for column in ("text", "label") if column not in header]
        if missing:
            raise ValueError(f"{name}: no column {missing[0]!r} among {header} (separator: comma)")
        first = reader.line_num + 1
        for fields in reader:
            yield _csv_row(fields, header, f"{name}, row {first}")
            first = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(f"{name}, row {reader.line_num}: {error}") from error


def _csv_row(fields, header, where):
    if len(fields) > len(header):
        raise ValueError(
            f"{where}: {len(fields)} fields under {len(header)} columns; "
            f"a text with a comma in it is wanted in double quotes"
        )
    row = {column: field.strip() for column, field in zip(header, fields, strict=False)}
    for column in ("text", "label"):
        if not row.get(column):
            raise ValueError(f"{where}: the column {column!r} is empty")
    return {"text": row["text"], "label": row["label"]}


def _label_names(rows):
    names = {row["label"] for row in rows}
    whole = all(re.fullmatch(r"[+-]?\d+", name) for name in names)
    return sorted(names, key=int) if whole else sorted(names)
