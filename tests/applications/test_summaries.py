"""Sentences are chosen by what they hold, and come in the text's order."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from lightcourse import data
from lightcourse.applications import summaries
from tests.applications.test_replies import chat_tokenizer

TEXT = 'It began. "It grew." Then St. Lucia\'s Dr. Who came (late.) In 1990 all ended? Yes!'
COUNTS = st.integers(1, 8)


def some_vectors(count, seed):
    """Return vectors of length 1 of so many sentences."""
    dice = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(count, 5, generator=dice), dim=1)


def test_sentences_end_where_they_end():
    found = summaries.sentences(TEXT)
    whole = "Then St. Lucia's Dr. Who came (late.)"
    assert found == ["It began.", '"It grew."', whole, "In 1990 all ended?", "Yes!"]
    assert summaries.sentences(" ") == []


@given(COUNTS, COUNTS, st.integers(0, 99))
def test_places_are_in_order_and_as_many_as_asked(total, count, seed):
    found = some_vectors(total, seed)
    some = summaries.lead(count, total)
    for places in (some, summaries.central(found, count), summaries.diverse(found, count)):
        assert places == sorted(set(places)) and len(places) == min(count, total)
        assert set(places) <= set(range(total))


def test_the_central_sentence_is_most_like_the_others():
    found = some_vectors(9, 1).double()
    sums = [sum(float(a @ b) for j, b in enumerate(found) if j != i) for i, a in enumerate(found)]
    order = sorted(range(9), key=lambda i: -sums[i])
    assert summaries.central(found, 3) == sorted(order[:3])


def test_what_was_said_is_not_said_again():
    found = F.normalize(torch.tensor([[3.0, 1.0], [3.0, 1.0], [1.0, 3.0], [3.0, 0.9]]), dim=1)
    assert 2 not in summaries.diverse(found, 2, balance=1)
    assert 2 in summaries.diverse(found, 2, balance=0.5)


def test_bad_arguments():
    with pytest.raises(ValueError, match="balance is 2"):
        summaries.diverse(some_vectors(3, 0), 1, balance=2)
    with pytest.raises(ValueError, match="count is 0"):
        summaries.lead(0, 3)


def test_a_written_summary_is_cut_to_its_sentences(monkeypatch):
    asked = []

    def said(model, tokenizer, messages, length):
        asked.append(messages[0]["content"])
        yield from ("One ends. Tw", "o ends. Three", " ends.")

    monkeypatch.setattr("lightcourse.applications.summaries.answer", said)
    tokenizer = chat_tokenizer()
    found = summaries.written(None, tokenizer, "the people " * 99, 2, most=5)
    assert found == "One ends. Two ends." and asked[0].count("people") < 5


def test_reference_summaries_stand_beside_passages_of_the_test_split():
    rows, test = data.load_summaries(), set(data.load_factbook()["test"]["text"])
    assert len(rows) == 24 and set(rows["text"]) <= test
    for row in rows:
        assert len(summaries.sentences(row["summary"])) <= 2
        assert len(summaries.sentences(row["text"])) >= 6
