"""Texts of any length lie in one matrix, and come out of it again."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightcourse import generation
from lightcourse.generation.prompts import check_mask

TEXTS = st.lists(st.lists(st.integers(0, 40), min_size=1, max_size=6), min_size=1, max_size=4)


@given(TEXTS, st.integers(0, 9))
def test_what_was_padded_comes_back(texts, pad_id):
    ids, mask = generation.pad(texts, pad_id)
    assert ids.shape == mask.shape == (len(texts), max(map(len, texts)))
    assert (ids[~mask] == pad_id).all() and mask[:, -1].all()
    check_mask(mask, ids)
    assert [text.tolist() for text in generation.unpad(ids, mask)] == texts


def test_tensors_are_padded_too():
    ids, mask = generation.pad([torch.tensor([4]), torch.tensor([5, 6])], pad_id=9)
    assert ids.tolist() == [[9, 4], [5, 6]] and mask.tolist() == [[False, True], [True, True]]


def test_a_text_ends_with_its_first_end_token_that_was_written():
    # An end token within a prompt ends nothing.
    ids = torch.tensor([[0, 7, 5, 7, 7], [7, 1, 2, 3, 4], [3, 3, 8, 8, 8]])
    mask = torch.tensor([[False, True], [True, True], [True, True]])
    texts = generation.unpad(ids, mask, stop=[7, 8])
    assert [text.tolist() for text in texts] == [[7, 5, 7], [7, 1, 2, 3, 4], [3, 3, 8]]
    assert generation.unpad(ids, mask, stop=8)[0].tolist() == [7, 5, 7, 7]


@pytest.mark.parametrize(
    "prompts, message",
    [
        ([], "prompts is empty"),
        ([[1], []], r"shape \(0,\)"),
        ([[[1]]], r"shape \(1, 1\)"),
        ([[0.5]], "torch.float32"),
        ([3], r"shape \(\)"),
    ],
)
def test_what_is_no_row_of_ids_is_refused(prompts, message):
    with pytest.raises(ValueError, match=message):
        generation.pad(prompts)


@pytest.mark.parametrize(
    "mask, message",
    [
        (torch.ones(1, 3), "mask is torch.float32"),
        (torch.ones(1, 2, dtype=torch.bool), r"mask is torch.bool of shape \(1, 2\)"),
        (torch.tensor([[True, True, False]]), "padding behind a token"),
        (torch.tensor([[True, False, True]]), "padding behind a token"),
        (torch.zeros(1, 3, dtype=torch.bool), "padding behind a token"),
    ],
)
def test_a_mask_that_is_no_padding_on_the_left_is_refused(mask, message):
    with pytest.raises(ValueError, match=message):
        check_mask(mask, torch.ones(1, 3, dtype=torch.int64))
