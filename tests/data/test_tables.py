"""CSV files of one's own: read like any set, or refused with the place that is wrong."""

import csv
from concurrent.futures import ThreadPoolExecutor

import pytest

from lightcourse import data
from tests.data.sound import assert_sound


def load(folder, content):
    """Load a CSV file of that content, given as str or bytes."""
    file = folder / "mine.csv"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return data.load_csv(file)


def csv_rows(labels, count=10):
    return "".join(f'"text {i}, of {label}",{label}\n' for label in labels for i in range(count))


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_csv_loads(tmp_path, mark, end):
    content = ("text,label\n" + csv_rows(["spam", "ham"]) + "\n\n").encode()
    dataset = load(tmp_path, mark + content.replace(b"\n", end))
    assert_sound(dataset, ["ham", "spam"])
    assert {split: len(dataset[split]) for split in dataset} == {
        "train": 16,
        "validation": 2,
        "test": 2,
    }
    assert all(row["text"].endswith(["ham", "spam"][row["label"]]) for row in dataset["train"])


def test_csv_labels_that_are_numbers_keep_their_order(tmp_path):
    dataset = load(tmp_path, "text,label\n" + csv_rows([10, 9, -1], 3))
    assert_sound(dataset, ["-1", "9", "10"])


def test_csv_other_columns_and_line_breaks_in_texts(tmp_path):
    rows = "".join(f'{i},"line\nbreak ""{i}""",{"ab"[i % 2]}\n' for i in range(6))
    dataset = load(tmp_path, "id, text ,label\n" + rows)
    assert_sound(dataset, ["a", "b"])
    assert dataset["train"].column_names == ["text", "label"]
    assert any('line\nbreak "0"' in dataset[split]["text"] for split in dataset)


def test_csv_keeps_the_first_of_equal_texts(tmp_path):
    rows = csv_rows("ab", 3)
    dataset = load(tmp_path, "text,label\n" + rows + rows.replace(",a", ",b"))
    assert sum(map(len, dataset.values())) == 6


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "mine.csv is empty"),
        ("\n\n", "mine.csv is empty"),
        ("text\nhello\n", "no column 'label' among"),
        ("label,body\na,b\n", "no column 'text' among"),
        ("text;label\nhello;a\n", r"no column 'text' among \['text;label'\].*comma"),
        ("text,label\na,x\n,y\n", "row 3: the column 'text' is empty"),
        ("text,label\na,x\nb,\n", "row 3: the column 'label' is empty"),
        ("text,label\na,x\nb\n", "row 3: the column 'label' is empty"),
        ("text,label\na,x\n\nb,y\n", "row 3: the column 'text' is empty"),
        ('text,label\n"a\nb",x\n ,y\n', "row 4: the column 'text' is empty"),
        ("text,label\na,x\nhello, you,y\n", "row 3: 3 fields under 2 columns.*quotes"),
        ('text,label\na,x\n"never closed,y\nb,x\n', "row 3: unexpected end of data"),
        ("text,label\n" + csv_rows("a"), r"'label' holds \['a'\]; at least two"),
        ("text,label\n", r"'label' holds \[\]"),
        ("text,label\na,x\nb\0b,y\n", "mine.csv, row 3: a NUL byte.*UTF-8"),
        ("text,label\na,x\n".encode("utf-16-le"), "mine.csv, row 1: a NUL byte"),
        ("text\tlabel\na\tx\n", "mine.csv, row 1: no column 'text'.*commas.*tabs stand there"),
        ("text;label\na;x\n", "commas.*semicolons stand there"),
        ("sep=,\ntext,label\na,x\n", "row 1: no column 'text'"),
        ("Text,Label\na,x\n", r"no column 'text' among \['Text', 'Label'\]"),
        ('text,label\na,x\n"two\nlines\nnever closed,y\n', "row 3: unexpected end.*doubled"),
        ('text,label\n"a" b,x\n', "row 2: ',' expected after '\"'.*doubled"),
        ("text,label\n,\n", "row 2: the column 'text' is empty"),
        (b"text,label\ra,x\rcaf\xe9,y\r", "row 3: not UTF-8"),
        (b"PK\x03\x04\x14\x00\x06\x00\x08\x00", "row 1: a NUL byte"),
        ("text,label\na,x\nb,y\n", "2 different texts, which leaves none for validation"),
        ("text,label\na,x\nb,y\nc,y\n", "3 different texts, which leaves none for validation"),
        ("text,label,label\na,x,y\n", "the column 'label' stands 2 times"),
        (b"text,label\na,x\ncaf\xe9,y\n", "row 3: not UTF-8"),
        ("text,label\na,x\n".encode("utf-16"), "row 1: not UTF-8"),
    ],
)
def test_csv_refuses_and_names_the_place(tmp_path, content, message):
    with pytest.raises(ValueError, match=message):
        load(tmp_path, content)


LONG = "a word " * 30_000  # 210,000 characters


def test_csv_fields_of_any_length_load_and_the_limit_of_others_stays(tmp_path):
    limit = csv.field_size_limit()
    dataset = load(tmp_path, f'text,label\n"{LONG}",a\n' + csv_rows("ab"))
    assert max(len(text) for split in dataset for text in dataset[split]["text"]) == 209_999
    assert csv.field_size_limit() == limit
    with pytest.raises(ValueError, match="row 2: 3 fields under 2 columns"):
        load(tmp_path, f"text,label\n{LONG},b,c\n")
    assert csv.field_size_limit() == limit


def test_csv_loads_in_several_threads_at_once(tmp_path):
    limit = csv.field_size_limit()
    content = f'text,label\n"{LONG}",a\n' + csv_rows("ab")
    for i in range(8):
        (tmp_path / f"{i}.csv").write_text(content)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(data.load_csv, [tmp_path / f"{i}.csv" for i in range(8)]))
    assert {sum(map(len, dataset.values())) for dataset in found} == {21}
    assert csv.field_size_limit() == limit


def test_csv_line_ends_of_old_and_empty_columns_load(tmp_path):
    rows = ("text,label,\n" + csv_rows("ab").replace(",a\n", ",a,\n")).replace("\n", "\r")
    assert_sound(load(tmp_path, rows), ["a", "b"])


def test_csv_labels_of_more_digits_than_python_reads(tmp_path):
    names = ["1", "9" * 5000]
    assert_sound(load(tmp_path, "text,label\n" + csv_rows(names)), names)


def test_csv_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="mine.csv"):
        data.load_csv(tmp_path / "mine.csv")


def test_csv_splits_depend_on_the_texts_alone(tmp_path):
    rows = csv_rows("ab").splitlines(keepends=True)
    forth = load(tmp_path, "text,label\n" + "".join(rows))
    back = load(tmp_path, "text,label\n" + "".join(reversed(rows)))
    assert all(forth[split].to_list() == back[split].to_list() for split in data.SPLITS)


@pytest.mark.parametrize(("count", "splits"), [(1, {"train"}), (2, {"train", "test"})])
def test_csv_no_label_is_in_test_alone(tmp_path, count, splits):
    dataset = load(tmp_path, "text,label\n" + csv_rows("ab") + csv_rows("c", count))
    names = dataset["train"].features["label"].names
    assert {s for s in dataset if names.index("c") in dataset[s]["label"]} == splits


def two_files(folder, train, test):
    (folder / "test.csv").write_text("text,label\n" + test)
    (folder / "train.csv").write_text("text,label\n" + train)
    return data.load_csv(folder / "train.csv", folder / "test.csv")


def test_csv_with_a_test_file_keeps_it(tmp_path):
    test = csv_rows("ab", 3) + "new,b\n"
    dataset = two_files(tmp_path, csv_rows("cab", 30), test)
    assert_sound(dataset, ["a", "b", "c"])
    assert sorted(dataset["test"]["text"]) == sorted(
        [f"text {i}, of {label}" for label in "ab" for i in range(3)] + ["new"]
    )
    assert len(dataset["train"]) + len(dataset["validation"]) == 90 - 6
    assert 6 <= len(dataset["validation"]) <= 9


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        (csv_rows("ab"), csv_rows("bz"), r"test.csv: the labels \['z'\] are not in train.csv"),
        (csv_rows("a"), csv_rows("ab"), r"train.csv: the column 'label' holds \['a'\]"),
        (csv_rows("ab"), "", r"train.csv has 20 different texts, which leaves none for test"),
        (csv_rows("ab"), csv_rows("ab"), "leaves none for train"),
        (csv_rows("ab"), "a\n", "test.csv, row 2: the column 'label' is empty"),
    ],
)
def test_csv_with_a_test_file_that_does_not_go_with_it(tmp_path, train, test, message):
    with pytest.raises(ValueError, match=message):
        two_files(tmp_path, train, test)


def test_csv_as_datasets_reads_it(tmp_path, tokenizer):
    from datasets import Dataset

    content = 'label,text\n1,"a ""quoted"" word"\n0,"line\nbreak, comma"\n1,Ünïcode\n'
    content += "".join(f"{i % 2},text {i}\n" for i in range(8))
    (tmp_path / "mine.csv").write_bytes(b"\xef\xbb\xbf" + content.encode())
    ours = data.load_csv(tmp_path / "mine.csv")
    theirs = Dataset.from_csv(str(tmp_path / "mine.csv"), cache_dir=str(tmp_path / "cache"))
    pairs = {(row["text"], row["label"]) for split in ours.values() for row in split}
    assert pairs == {(row["text"], row["label"]) for row in theirs}
    assert sum(len(b["labels"]) for b in data.ordered_batches(theirs, tokenizer)) == len(theirs)
