"""A learner's own texts: any CSV file with the columns text and label."""

import csv
import io
import os
import re
from pathlib import Path

from lightcourse.data.splits import SPLITS, assign, dataset_dict, first_of_each_text


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
    rows = first_of_each_text(_csv_rows(_csv_text(path, name), name))
    labels = _label_names(rows)
    if len(labels) < 2:
        raise ValueError(
            f"{name}: the column 'label' holds {labels}; at least two labels are wanted"
        )
    splits = assign((row["text"] for row in rows), (row["label"] for row in rows))
    if set(splits) != set(SPLITS):
        raise ValueError(
            f"{name} has {len(rows)} different texts for {len(labels)} labels; "
            f"a label with at least 3 texts is wanted, else there is nothing to test on"
        )
    return dataset_dict(rows, splits, {"label": labels})


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
