"""A learner's own texts: any CSV file with the columns text and label."""

import contextlib
import csv
import io
import os
import re
import threading
from pathlib import Path

from lightcourse.data.splits import around_test_set, dealt_by_label, first_of_each_text

SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}
LONGEST = 2**31 - 1  # what csv can be told where C's long has 32 bits
_reading = threading.Lock()


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
        Fields of any length separated by commas, UTF-8 with or without a byte order mark.
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
        When a file is empty, not UTF-8, lacks a column or has it twice, has an empty row or
        one with more fields than columns; when there are less than two labels, a label is
        in the test file alone, or the rows are too few to be split. Rows are numbered as
        lines of the file, the header being row 1.
    """
    name, rows = _read(path)
    labels = _label_names(name, rows)
    if test is None:
        dataset = dealt_by_label(rows, names=labels)
    else:
        dataset = _with_test(name, rows, labels, *_read(test))
    for split, part in dataset.items():
        if not len(part):
            raise ValueError(
                f"{name} has {len(rows)} different texts, which leaves none for {split}; "
                "a label with more of them is wanted"
            )
    return dataset


def csv_rows(path: str | os.PathLike) -> list[dict]:
    """Return {text, label} for each row of a CSV file, unsplit: else as :func:`load_csv`."""
    return _read(path)[1]


def _read(path):
    name = Path(path).name
    text = _csv_text(path, name)
    with _fields_of(len(text)):
        return name, first_of_each_text(_csv_rows(text, name))


@contextlib.contextmanager
def _fields_of(length):
    """Let fields be that long: csv has one limit for the process, looked at while it reads."""
    with _reading:
        before = csv.field_size_limit()
        csv.field_size_limit(min(max(before, length), LONGEST))
        try:
            yield
        finally:
            csv.field_size_limit(before)


def _with_test(name, rows, labels, test_name, test_rows):
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
        row = _row_of(content, error.start)
        raise ValueError(
            f"{name}, row {row}: not UTF-8 ({error.reason}); save it as UTF-8"
        ) from error
    if not text:
        raise ValueError(f"{name} is empty; a header 'text,label' and rows are wanted")
    if "\0" in text:  # UTF-16 without its mark, or no text at all
        row = _row_of(content, content.index(0))
        raise ValueError(f"{name}, row {row}: a NUL byte; save it as a text file in UTF-8")
    return text


def _row_of(content, position):
    """Return the line of a byte, whichever way lines end."""
    return len((content[:position] + b".").splitlines())


def _csv_rows(text, name):
    """Yield {text, label} for each row behind the header, or raise with the row's number."""
    # Strict: an open quote would otherwise swallow the rest of the file without a word.
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        first = 1
        header = [field.strip() for field in next(reader)]
        _check_header(header, name)
        first = reader.line_num + 1
        for fields in reader:
            yield _csv_row(fields, header, f"{name}, row {first}")
            first = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(
            f"{name}, row {first}: {error}; a text with quotes in it is wanted in double quotes, "
            "and each of its own doubled"
        ) from error


def _check_header(header, name):
    missing = [column for column in ("text", "label") if column not in header]
    if missing:
        others = [f"{SEPARATORS[s]} stand" for s in SEPARATORS if s in "".join(header)]
        raise ValueError(
            f"{name}, row 1: no column {missing[0]!r} among {header}; a header with 'text' and "
            "'label', separated by commas, is wanted"
            + f" ({', '.join(others)} there)"
            * any(others)
        )
    if twice := [column for column in ("text", "label") if header.count(column) > 1]:
        raise ValueError(
            f"{name}, row 1: the column {twice[0]!r} stands {header.count(twice[0])} times; "
            "once is wanted"
        )


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
    # Longer ones Python refuses to read: they are no numbers to count with.
    whole = all(re.fullmatch(r"[+-]?\d{1,1000}", label) for label in names)
    names = sorted(names, key=int) if whole else sorted(names)
    if len(names) < 2:
        raise ValueError(
            f"{name}: the column 'label' holds {names}; at least two labels are wanted"
        )
    return names
