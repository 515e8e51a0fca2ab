"""How labelled rows are cleaned and dealt into train, validation and test."""

import zlib
from collections.abc import Iterable

SPLITS = ("train", "validation", "test")
TENTHS = ("train", "test", "validation", *["train"] * 7)


def assign(groups: Iterable[str], strata: Iterable[str]) -> list[str]:
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


def first_of_each_text(rows):
    """Return the rows whose text, apart from case and blanks, has not been seen before."""
    first = {}
    for row in rows:
        first.setdefault(" ".join(row["text"].lower().split()), row)
    return list(first.values())


def dataset_dict(rows, splits, classes):
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
    columns = {s: {c: [row[c] for row in r] for c in features} for s, r in chosen.items()}
    return DatasetDict({s: Dataset.from_dict(c, features=features) for s, c in columns.items()})


def sorted_names(rows: list[dict], column: str) -> list[str]:
    """Return the different values of a column, sorted: the names of its classes."""
    return sorted({row[column] for row in rows})


def dealt_by_label(rows, *more_classes, names=None):
    """Split rows by text within each label.

    ``names`` are those of the classes, in order; sorted without it.
    """
    classes = {column: sorted_names(rows, column) for column in more_classes}
    classes["label"] = names or sorted_names(rows, "label")
    return dataset_dict(rows, _assigned_by_label(rows), classes)


def _assigned_by_label(rows):
    return assign((row["text"] for row in rows), (row["label"] for row in rows))


def around_test_set(train, test, names=None):
    """Keep a given test set, and hold back a tenth of the training rows for validation.

    Training rows whose text is also in the test set are dropped. ``names`` as in
    :func:`dealt_by_label`.
    """
    rows = first_of_each_text([*test, *train])
    tenths = _assigned_by_label(rows)
    kept = {id(row) for row in test}
    splits = [
        "test" if id(row) in kept else "validation" if tenth == "validation" else "train"
        for row, tenth in zip(rows, tenths, strict=True)
    ]
    return dataset_dict(rows, splits, {"label": names or sorted_names(rows, "label")})
