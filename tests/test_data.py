"""Splits that leak nothing, batches that lose nothing, and CSV files that are refused clearly."""

import csv
import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightcourse import assets, data, models
from lightcourse.data import bundled, splits


@pytest.fixture(scope="module")
def reviews():
    return data.load_reviews()


@pytest.fixture(scope="module")
def factbook():
    return data.load_factbook()


@pytest.fixture(scope="module")
def tokenizer():
    return models.load_tiny_tokenizer()


def normal(text):
    return " ".join(text.lower().split())


def assert_sound(dataset, names):
    """Assert what holds for every labelled set."""
    assert set(dataset) == set(data.SPLITS)
    texts = [normal(text) for split in data.SPLITS for text in dataset[split]["text"]]
    assert len(texts) == len(set(texts))
    assert all(texts)
    for split in data.SPLITS:
        label = dataset[split].features["label"]
        assert label.names == names
        assert set(dataset[split]["label"]) <= set(range(len(names)))


# Speeches


def test_speeches_are_split_by_year():
    years = {split: data.load_speeches(split)["year"][:] for split in data.SPLITS}
    assert {year % 10 for year in years["validation"]} == {0}
    assert {year % 10 for year in years["test"]} == {5}
    assert not {year % 10 for year in years["train"]} & {0, 5}
    assert sum(map(len, years.values())) == 233
    assert all(found == sorted(found) for found in years.values())


def test_speeches_of_another_split():
    with pytest.raises(ValueError, match="split is 'dev'"):
        data.load_speeches("dev")


def test_speech_tokens_spell_the_speeches(tokenizer):
    tokens = data.speech_tokens(tokenizer, "validation")
    speeches = data.load_speeches("validation")["text"][:]
    assert (tokens == tokenizer.eos_token_id).sum() == len(speeches)
    assert tokens[-1] == tokenizer.eos_token_id
    first = tokens[: tokens.tolist().index(tokenizer.eos_token_id)]
    assert tokenizer.decode(first) == speeches[0]


def test_speech_tokens_want_an_end_token(tokenizer):
    class Endless:
        eos_token_id = None

    with pytest.raises(ValueError, match="eos_token"):
        data.speech_tokens(Endless())


@given(
    length=st.integers(20, 200),
    window=st.integers(2, 10),
    batch_size=st.integers(1, 5),
    epoch=st.integers(0, 3),
)
def test_token_batches_are_windows_of_the_stream(length, window, batch_size, epoch):
    batches = data.token_batches(torch.arange(length), window, batch_size)
    found = list(batches(epoch, 7))
    rows = torch.cat([batch["input_ids"] for batch in found])
    assert all(torch.equal(batch["input_ids"], batch["labels"]) for batch in found)
    assert all(len(batch["labels"]) == batch_size for batch in found[:-1])
    assert (rows.diff(dim=1) == 1).all()
    assert rows.unique().numel() == rows.numel() > length - 2 * window
    again = torch.cat([batch["input_ids"] for batch in batches(epoch, 7)])
    assert torch.equal(rows, again)


def test_excerpts_stand_in_different_speeches(tokenizer):
    tokens = data.speech_tokens(tokenizer, "test")
    pieces = data.excerpts(tokens)
    assert [len(piece) for piece in pieces] == [2_049] * 3
    for number, piece in enumerate(pieces):
        assert torch.equal(piece, tokens[110_000 * number :][:2_049])
        ends = (tokens[: 110_000 * (number + 1)] == tokenizer.eos_token_id).nonzero()
        assert (ends >= 110_000 * number).any()  # a speech ends between one piece and the next


@given(st.integers(1, 5), st.integers(1, 6), st.integers(0, 6))
def test_excerpts_do_not_overlap_and_may_end_with_the_text(count, length, gap):
    apart = length + gap
    tokens = torch.arange((count - 1) * apart + length)
    pieces = data.excerpts(tokens, count, length, apart)
    assert [len(piece) for piece in pieces] == [length] * count
    assert len(torch.cat(pieces).unique()) == count * length
    assert pieces[-1][-1] == tokens[-1]
    with pytest.raises(ValueError, match=f"{count} pieces want at least {len(tokens)}"):
        data.excerpts(tokens[:-1], count, length, apart)


@pytest.mark.parametrize(
    "changed, message",
    [({"count": 0}, "count is 0"), ({"length": 0}, "length is 0"), ({"apart": 3}, "apart is 3")],
)
def test_excerpts_refuse(changed, message):
    with pytest.raises(ValueError, match=message):
        data.excerpts(torch.arange(100), **{"count": 2, "length": 4, "apart": 10} | changed)


def test_token_batches_differ_between_epochs_and_seeds():
    batches = data.token_batches(torch.arange(1000), 10, 4)
    orders = {
        tuple(torch.cat([b["labels"] for b in batches(epoch, seed)])[:, 0].tolist())
        for epoch in range(2)
        for seed in range(2)
    }
    assert len(orders) == 4


@pytest.mark.parametrize(
    ("window", "batch_size", "name"), [(1, 4, "window"), (51, 4, "window"), (10, 0, "batch_size")]
)
def test_token_batches_refuse(window, batch_size, name):
    with pytest.raises(ValueError, match=f"{name} is "):
        data.token_batches(torch.arange(100), window, batch_size)


# Batches of labelled text


def rows_of(batches):
    """Return (real token ids, label) of each text, in the batches' order."""
    return [
        (tuple(ids[mask.bool()].tolist()), int(label))
        for batch in batches
        for ids, mask, label in zip(*batch.values(), strict=True)
    ]


def wanted_rows(dataset, tokenizer, max_length):
    ids = tokenizer(dataset["text"][:])["input_ids"]
    return [(tuple(i[:max_length]), label) for i, label in zip(ids, dataset["label"], strict=True)]


@settings(max_examples=30)
@given(count=st.integers(1, 60), batch_size=st.integers(1, 20), max_length=st.integers(1, 40))
def test_encode_keeps_the_order(reviews, tokenizer, count, batch_size, max_length):
    dataset = reviews["test"].select(range(count))
    batches = data.ordered_batches(dataset, tokenizer, max_length, batch_size)
    assert list(batches[0]) == ["input_ids", "attention_mask", "labels"]
    assert {tensor.dtype for batch in batches for tensor in batch.values()} == {torch.int64}
    assert [len(batch["labels"]) for batch in batches[:-1]] == [batch_size] * (len(batches) - 1)
    assert rows_of(batches) == wanted_rows(dataset, tokenizer, max_length)
    assert all(batch["attention_mask"].any(dim=0).all() for batch in batches)


@settings(max_examples=30)
@given(count=st.integers(1, 200), batch_size=st.integers(1, 20), epoch=st.integers(0, 3))
def test_text_batches_give_every_text_once(reviews, tokenizer, count, batch_size, epoch):
    dataset = reviews["test"].select(range(count))
    batches = data.text_batches(dataset, tokenizer, batch_size, 32)
    found = rows_of(batches(epoch, 3))
    assert Counter(found) == Counter(wanted_rows(dataset, tokenizer, 32))
    assert found == rows_of(batches(epoch, 3))


def test_text_batches_shuffle_and_waste_little(reviews, tokenizer):
    dataset = reviews["train"].select(range(1600))
    batches = data.text_batches(dataset, tokenizer, 16, 128)
    orders = {tuple(rows_of(batches(epoch, seed))) for epoch in (0, 1) for seed in (0, 1)}
    assert len(orders) == 4
    lengths = [batch["input_ids"].shape[1] for batch in batches(0, 0)]
    assert lengths != sorted(lengths)

    def padding(found):
        return sum(int((batch["attention_mask"] == 0).sum()) for batch in found)

    assert padding(batches(0, 0)) < 0.3 * padding(data.ordered_batches(dataset, tokenizer, 128, 16))


def test_tokenizers_without_padding_token_serve_too(reviews):
    class Bare:
        pad_token_id = None

        def __call__(self, texts, truncation, max_length):
            return {"input_ids": [[7] * min(len(text), max_length) for text in texts]}

    batches = data.ordered_batches(reviews["test"].select(range(9)), Bare(), 500)
    assert (batches[0]["input_ids"] == 7).equal(batches[0]["attention_mask"].bool())


@pytest.mark.parametrize("call", [data.ordered_batches, data.text_batches])
def test_batches_refuse(call, reviews, tokenizer):
    test = reviews["test"]
    with pytest.raises(ValueError, match="choose one split"):
        call(reviews, tokenizer)
    with pytest.raises(ValueError, match="'label'"):
        call(test.remove_columns("label"), tokenizer)
    with pytest.raises(ValueError, match="dataset is empty"):
        call(test.select([]), tokenizer)
    with pytest.raises(ValueError, match="max_length is 0"):
        call(test, tokenizer, max_length=0)
    with pytest.raises(ValueError, match="batch_size is 0"):
        call(test, tokenizer, batch_size=0)


# Splits


@given(st.lists(st.tuples(st.text(max_size=3), st.sampled_from("ab")), min_size=1))
def test_assign_keeps_groups_together_and_serves_every_stratum(pairs):
    pairs = [(stratum + group, stratum) for group, stratum in pairs]
    dealt = splits.assign(*zip(*pairs, strict=True))
    assert dealt == splits.assign(*zip(*pairs, strict=True))
    of_group = {}
    for (group, _), split in zip(pairs, dealt, strict=True):
        assert of_group.setdefault(group, split) == split
    for stratum in "ab":
        names = {group for group, s in pairs if s == stratum}
        found = {of_group[name] for name in names}
        assert len(found) == min(3, len(names))


# Labelled sets in the repository


def test_reviews_are_sound(reviews):
    assert_sound(reviews, ["negative", "positive"])
    assert len(reviews["train"]) > 10_000
    for split in data.SPLITS:
        assert 0.5 < sum(reviews[split]["label"]) / len(reviews[split]) < 0.6
        assert set(reviews[split]["source"]) == {"movie", "amazon"}
        for label, valence in zip(reviews[split]["label"], reviews[split]["valence"], strict=True):
            assert abs(valence) >= bundled.AMBIGUOUS
            assert label == (valence > 0)


def test_no_review_stands_on_both_sides(reviews):
    review = {record["text"]: record["review"] for record in bundled.records("reviews")}
    sides = {s: {review[text] for text in reviews[s]["text"]} for s in data.SPLITS}
    assert not sides["train"] & sides["test"]
    assert not sides["train"] & sides["validation"]
    assert not sides["validation"] & sides["test"]


def test_the_first_rows_are_a_fair_sample(reviews):
    first = reviews["train"].select(range(1000))
    assert 100 < first["source"][:].count("amazon") < 400


def test_factbook_is_sound(factbook):
    names = factbook["train"].features["label"].names
    assert_sound(factbook, sorted(set(factbook["train"]["section"])))
    assert len(names) == 13
    for split in data.SPLITS:
        assert [names[label] for label in factbook[split]["label"]] == factbook[split]["section"][:]
        assert set(factbook[split]["label"]) == set(range(13))
    countries = [set(factbook[split]["country"]) for split in data.SPLITS]
    assert sum(map(len, countries)) == len(set.union(*countries)) > 200


def test_factbook_by_region(factbook):
    regions = data.load_factbook("region")
    assert_sound(regions, sorted(set(regions["train"]["region"])))
    for split in data.SPLITS:
        assert set(regions[split]["label"]) == set(range(11))
        assert regions[split]["text"][:] == factbook[split]["text"][:]


def test_factbook_of_another_label():
    with pytest.raises(ValueError, match="label is 'country'"):
        data.load_factbook("country")


# Labelled sets that are fetched: their forms, in small


@pytest.fixture
def fetched(tmp_path, monkeypatch):
    """A folder that stands for every asset."""
    monkeypatch.setattr(assets, "path", lambda name: tmp_path)
    return tmp_path


def write_tab(file, rows):
    lines = ["Category\tText", "d\tstring", "class\t", *rows]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.mark.parametrize(
    ("load", "name"),
    [
        (data.load_reuters, "reuters-r8"),
        (lambda: data.load_reuters(52), "reuters-r52"),
        (data.load_newsgroups, "20newsgroups"),
    ],
)
def test_news_keep_the_published_test_set(fetched, load, name):
    train = [f'{topic}\tstory "{i} of {topic}' for topic in ("acq", "earn") for i in range(10)]
    test = ["acq\ta new story", 'earn\tSTORY  "3 of earn', "earn\t"]
    write_tab(fetched / f"{name}-train.tab", [*train, "", train[0]])
    write_tab(fetched / f"{name}-test.tab", test)
    dataset = load()
    assert_sound(dataset, ["acq", "earn"])
    assert sorted(dataset["test"]["text"]) == ['STORY  "3 of earn', "a new story"]
    assert len(dataset["train"]) == 17
    assert len(dataset["validation"]) == 2


def test_reuters_of_other_classes():
    with pytest.raises(ValueError, match="classes is 9"):
        data.load_reuters(9)


def test_questions_have_coarse_and_fine_labels(fetched):
    lines = [
        f"{t}:{f} What is {t} {f} {i} ?" for t in ("NUM", "LOC") for f in "ab" for i in range(5)
    ]
    (fetched / "question_labels.txt").write_text("\n".join(lines * 3), encoding="utf-8")
    dataset = data.load_questions()
    assert_sound(dataset, ["LOC", "NUM"])
    assert sum(map(len, dataset.values())) == 20
    row = dataset["train"][0]
    fine = dataset["train"].features["fine"].names
    assert fine == ["LOC:a", "LOC:b", "NUM:a", "NUM:b"]
    assert fine[row["fine"]].startswith(["LOC", "NUM"][row["label"]])
    assert row["text"].startswith("What is ")


def test_chinese_reviews_are_deduplicated_first(fetched):
    good, bad = ([f"{word}{i}" for i in range(10)] for word in ("很好", "很差"))
    (fetched / "pos.txt").write_text("\n".join([*good, *good, "还行", ""]), encoding="utf-8")
    (fetched / "neg.txt").write_text("\n".join([*bad, "还行 ", *bad]), encoding="utf-8")
    dataset = data.load_chinese_reviews()
    assert_sound(dataset, ["negative", "positive"])
    assert sum(map(len, dataset.values())) == 20
    assert all(row["text"].startswith("很好") == row["label"] for row in dataset["train"])


def test_poems_are_text_alone(fetched):
    poems = [
        {"author": "苏轼", "rhythmic": "水调歌头", "paragraphs": [f"第{i}首。", "明月几时有。"]}
        for i in range(20)
    ]
    empty = {"author": "无名氏", "rhythmic": "失调名", "paragraphs": []}
    (fetched / "ci.song.0.json").write_text(json.dumps([*poems[:9], empty]), encoding="utf-8")
    (fetched / "ci.song.1000.json").write_text(json.dumps(poems[5:]), encoding="utf-8")
    dataset = data.load_poems()
    assert sum(map(len, dataset.values())) == 20
    assert dataset["train"].column_names == ["text", "tune", "author"]
    assert dataset["train"][0]["text"].endswith("首。\n明月几时有。")


@pytest.mark.parametrize(
    ("load", "name"),
    [
        (data.load_reuters, "news"),
        (data.load_newsgroups, "news"),
        (data.load_questions, "questions"),
        (data.load_chinese_reviews, "chinese-reviews"),
        (data.load_poems, "poems"),
    ],
)
def test_sets_that_were_not_fetched(load, name, tmp_path, monkeypatch):
    monkeypatch.setenv("LIGHTCOURSE_CACHE", str(tmp_path))
    with pytest.raises(assets.AssetMissing, match=f"lightcourse assets {name}"):
        load()


# Data of one's own


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


# Labels


def rows_with(labels, names=None):
    from datasets import ClassLabel, Dataset

    dataset = Dataset.from_dict(
        {"text": [f"text {i}" for i in range(len(labels))], "label": labels}
    )
    return dataset.cast_column("label", ClassLabel(names=names)) if names else dataset


@pytest.mark.parametrize(
    ("labels", "names", "message"),
    [
        (["spam", "ham"], None, "row 0: label is 'spam'; a whole number.*class_encode_column"),
        ([0, 1, None], None, "row 2: label is None"),
        ([0, -1], None, "row 1: label is -1"),
        ([0, -1], ["a", "b"], "row 1: label is -1; 0..1 is wanted"),
        ([0.0, 1.0], None, "row 0: label is 0.0"),
    ],
)
def test_labels_that_are_no_numbers_of_classes(labels, names, message, tokenizer):
    with pytest.raises(ValueError, match=message):
        data.ordered_batches(rows_with(labels, names), tokenizer)


def test_words_as_labels_are_numbered_on_request(tokenizer):
    dataset = rows_with(["spam", "ham", "spam"]).class_encode_column("label")
    assert data.ordered_batches(dataset, tokenizer)[0]["labels"].tolist() == [1, 0, 1]


def test_texts_that_are_none(tokenizer):
    from datasets import Dataset

    with pytest.raises(ValueError, match="row 1: text is None"):
        data.ordered_batches(Dataset.from_dict({"text": ["a", None], "label": [0, 1]}), tokenizer)


def test_classes_are_counted_in_order_and_the_commonest_is_found():
    dataset = rows_with([2, 0, 2, 0, 1], ["x", "y", "z", "none"])
    assert list(data.class_counts(dataset).items()) == [("x", 2), ("y", 1), ("z", 2), ("none", 0)]
    assert data.majority_class(dataset) == 0
    with pytest.raises(ValueError, match="no column 'label' with named classes"):
        data.class_counts(rows_with([0, 1]))
    with pytest.raises(ValueError, match="no column 'label'"):
        data.class_counts(dataset.remove_columns("label"))


# Batches of rows


@given(count=st.integers(1, 40), batch_size=st.integers(1, 20), epoch=st.integers(0, 3))
def test_row_batches_give_every_row_once_and_keep_rows_together(count, batch_size, epoch):
    tensors = {"features": torch.arange(count)[:, None] * 10, "labels": torch.arange(count)}
    batches = data.row_batches(tensors, batch_size)
    found = list(batches(epoch, 5))
    assert all(torch.equal(b["features"][:, 0], 10 * b["labels"]) for b in found)
    assert [len(b["labels"]) for b in found[:-1]] == [batch_size] * (len(found) - 1)
    labels = torch.cat([b["labels"] for b in found])
    assert torch.equal(labels.sort().values, torch.arange(count))
    assert torch.equal(labels, torch.cat([b["labels"] for b in batches(epoch, 5)]))


def test_row_batches_differ_between_epochs_and_seeds():
    batches = data.row_batches({"labels": torch.arange(50)}, 50)
    pairs = [(epoch, seed) for epoch in (0, 1) for seed in (0, 1)]
    assert len({tuple(b["labels"].tolist()) for pair in pairs for b in batches(*pair)}) == 4


@pytest.mark.parametrize(
    ("tensors", "batch_size", "message"),
    [
        ({}, 4, "tensors has"),
        ({"a": torch.ones(0, 2)}, 4, "'a': 0"),
        ({"a": torch.ones(3, 2), "b": torch.ones(2)}, 4, "'a': 3, 'b': 2"),
        ({"a": torch.ones(3)}, 0, "batch_size is 0"),
    ],
)
def test_row_batches_refuse(tensors, batch_size, message):
    with pytest.raises(ValueError, match=message):
        data.row_batches(tensors, batch_size)
