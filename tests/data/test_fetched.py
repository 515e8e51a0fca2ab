"""The labelled sets that are fetched: their files' forms, in small."""

import json

import pytest

from lightcourse import assets, data
from tests.data.sound import assert_sound


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


def test_movie_ratings_count_from_nought(fetched):
    lines = [
        "user\tmovie\tscore\ttid",
        "continuous",
        "row=1",
        "196\t242\t3\t881250949",
        "1\t2\t5\t9",
    ]
    (fetched / "movielens100k.tab").write_text("\n".join([*lines, ""]), encoding="utf-8")
    ratings = {name: column.tolist() for name, column in data.load_movie_ratings().items()}
    wanted = {"user": [195, 0], "item": [241, 1], "score": [3, 5], "time": [881250949, 9]}
    assert ratings == wanted


@pytest.mark.parametrize(
    ("load", "name"),
    [
        (data.load_reuters, "news"),
        (data.load_newsgroups, "news"),
        (data.load_questions, "questions"),
        (data.load_chinese_reviews, "chinese-reviews"),
        (data.load_poems, "poems"),
        (data.load_movie_ratings, "movie-ratings"),
    ],
)
def test_sets_that_were_not_fetched(load, name, tmp_path, monkeypatch):
    monkeypatch.setenv("LIGHTCOURSE_CACHE", str(tmp_path))
    with pytest.raises(assets.AssetMissing, match=f"lightcourse assets {name}"):
        load()
