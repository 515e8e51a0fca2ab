"""A learner's own texts: any CSV file with the columns text and label."""

import csv
import io
import os
import re
from pathlib import Path

from lightcourse.data.splits import (
    around_test_set,
    assign,
    dataset_dict,
    first_of_each_text,
)


def load_csv(path: str | os.PathLike, test: str | os.PathLike | None = None):
    """Return the labelled texts of any CSV file with the columns ``text`` and ``label``.

    Labels may be words or whole numbers; they are numbered from 0 in alphabetical order,
    whole numbers in numerical order. "Spam" and "spam" are two labels. Of equal texts the
    first is kept. Within each label, 8 tenths of the texts go to train, 1 to validation
    and 1 to test, in this order where they are few: a label of two texts has one in train
    and one in test, and no label is in test alone. Other columns are ignored.

    Parameters
    ----------
    path : path
        Fields separated by commas, UTF-8 with or without a byte order mark.
    test : path, optional
        A second such file that is the test set. Texts of the first that are also in it are
        dropped, and a tenth of the others is held back for validation.

    Returns
    -------
    datasets.DatasetDict
        Columns text and label.

    Raises
    ------
    ValueError
        When a file is empty, not UTF-8, lacks a column or has it twice, has an empty or
        overlong row; when there are less than two labels, a label is in the test file
        alone, or the rows are too few to be split. Rows are numbered as lines of the file,
        the header being row 1.
    """
    name, rows = _read(path)
    dataset = _dealt(name, rows) if test is None else _with_test(name, rows, *_read(test))
    for split, part in dataset.items():
        if not len(part):
            raise ValueError(
                f"{name} has {len(rows)} different texts, which leaves none for {split}; "
                "a label with more of them is wanted"
            )
    return dataset


def _read(path):
    name = Path(path).name
    return name, first_of_each_text(_csv_rows(_csv_text(path, name), name))


def _dealt(name, rows):
    splits = assign((row["text"] for row in rows), (row["label"] for row in rows))
    return dataset_dict(rows, splits, {"label": _label_names(name, rows)})


def _with_test(name, rows, test_name, test_rows):
    labels = _label_names(name, rows)
    if unknown := {row["label"] for row in test_rows} - set(labels):
        raise ValueError(
            f"{test_name}: the labels {sorted(unknown)} are not in {name}; "
            f"nothing could learn them, labels among {labels} are wanted"
        )
    return around_test_set(rows, test_rows, labels)


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
        if twice := [column for column in ("text", "label") if header.count(column) > 1]:
            raise ValueError(
                f"{name}: the column {twice[0]!r} stands {header.count(twice[0])} times"
            )
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


def _label_names(name, rows):
    names = {row["label"] for row in rows}
    whole = all(re.fullmatch(r"[+-]?\d+", label) for label in names)
    names = sorted(names, key=int) if whole else sorted(names)
    if len(names) < 2:
        raise ValueError(
            f"{name}: the column 'label' holds {names}; at least two labels are wanted"
        )
    return names
