"""Typing mistakes: the same ones again, in letters alone, and about as many as asked for."""

import math
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightcourse import data
from lightcourse.data import typos

rates = st.sampled_from([0.0, 0.05, 0.3, 1.0])


@given(st.text(max_size=60), rates, st.integers(0, 5))
def test_the_same_again_valid_unicode_and_only_letters_touched(text, rate, seed):
    typed = data.with_typos(text, rate, seed)
    assert typed == data.with_typos(text, rate, seed)
    if not any("\ud800" <= character <= "\udfff" for character in text):
        typed.encode("utf-8")

    def rest(of):
        return [c for c in typos._letters(of) if not c[0].isalpha()]

    assert rest(typed) == rest(text)
    assert bool(typed) == bool(text)
    if rate == 0:
        assert typed == text


@given(st.text(st.sampled_from("aé́ไ่中🙂👩‍🚀 .क्ि"), max_size=30), st.integers(0, 5))
def test_marks_stay_on_their_letter(text, seed):
    typed = typos._letters(data.with_typos(text, 1.0, seed))
    known = set(typos._letters(text)) | set("aqwsz") | {k + c[1:] for k in "qwsz" for c in typed}
    for cluster in typed[1:]:
        assert not unicodedata.category(cluster[0]).startswith("M")
    assert "".join(typed).count("🙂") == text.count("🙂")
    assert all(cluster[0] in {c[0] for c in known} for cluster in typed)


def test_about_as_many_mistakes_as_asked_for_and_of_all_kinds():
    text = "bright stories stay within reach for whoever wanders there " * 200
    plain = "".join(data.with_typos(text, 0.0))
    assert plain == text
    typed = data.with_typos(text, 0.05)
    changed = sum(a != b for a, b in zip(text.split(), typed.split(), strict=True))
    words = len(text.split())
    assert 0.15 < changed / words < 0.35
    pairs = [(a, b) for a, b in zip(text.split(), typed.split(), strict=True) if a != b]
    assert any(len(b) < len(a) for a, b in pairs)
    assert any(len(b) > len(a) for a, b in pairs)
    assert any(len(b) == len(a) and sorted(a) == sorted(b) for a, b in pairs)
    assert any(len(b) == len(a) and sorted(a) != sorted(b) for a, b in pairs)
    assert data.with_typos(text, 0.05, seed=1) != typed


def test_capitals_stay_capitals_and_neighbours_are_mutual():
    assert data.with_typos("HELLO WORLD " * 50, 1.0).isupper()
    around = typos.neighbours()
    assert set(around) == set("abcdefghijklmnopqrstuvwxyz")
    assert all(key in around[other] for key in around for other in around[key])
    assert set(around["g"]) == set("tyfhvb")


def test_rows_are_marked_and_nothing_else_changes(reviews):
    rows = reviews["test"].select(range(20))
    typed = data.typo_rows(rows, 0.1, seed=3)
    assert typed["made"][:] == ["typos in 10.0% of letters, seed 3"] * 20
    assert typed["label"][:] == rows["label"][:]
    assert typed.features["label"] == rows.features["label"]
    assert typed["text"][:] == [data.with_typos(text, 0.1, 3) for text in rows["text"]]
    assert typed["text"][:] != rows["text"][:]
    assert data.class_counts(typed) == data.class_counts(rows)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda rows: data.with_typos(None, 0.1), "text is a NoneType"),
        (lambda rows: data.with_typos("a", -0.1), "rate is -0.1"),
        (lambda rows: data.with_typos("a", math.nan), "rate is nan"),
        (lambda rows: data.typo_rows(rows, 2), "rate is 2"),
        (lambda rows: data.typo_rows(rows.remove_columns("text"), 0.1), "text is wanted"),
    ],
)
def test_bad_input_is_named(call, message, reviews):
    with pytest.raises(ValueError, match=message):
        call(reviews["test"].select(range(2)))
