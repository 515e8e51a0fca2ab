"""The labelled sets in the repository: sound, split fairly, and leaking nothing."""

import pytest

from lightcourse import data
from lightcourse.data import bundled
from tests.data.sound import assert_sound


def test_reviews_are_sound(reviews):
    assert_sound(reviews, ["negative", "positive"])
    assert len(reviews["train"]) > 10_000
    for split in data.SPLITS:
        assert 0.5 < sum(reviews[split]["label"]) / len(reviews[split]) < 0.6
        assert set(reviews[split]["source"]) == {"movie", "amazon"}
        for label, valence in zip(reviews[split]["label"], reviews[split]["valence"], strict=True):
            assert abs(valence) >= bundled.AMBIGUOUS
            assert label == (valence > 0)


def test_raters_agree_more_or_less_with_the_label(reviews):
    for record in bundled.records("reviews"):
        ratings = record["ratings"]
        mean = sum(count * rating for rating, count in enumerate(ratings, -4)) / sum(ratings)
        assert len(ratings) == 9 and sum(ratings) >= 15
        assert mean == pytest.approx(record["valence"], abs=0.0051)
    agreement = reviews["test"]["agreement"][:]
    assert 0 < min(agreement) < 0.5 and max(agreement) == 1
    by = dict(zip(reviews["test"]["text"], agreement, strict=True))
    record = next(r for r in bundled.records("reviews") if r["text"] in by and r["valence"] < 0)
    assert by[record["text"]] == sum(record["ratings"][:4]) / sum(record["ratings"])


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
