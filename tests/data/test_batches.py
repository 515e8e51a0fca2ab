"""Batches of windows, texts and rows lose nothing, and repeat for the same seed."""

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightcourse import data

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
