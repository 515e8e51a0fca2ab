"""Huffman's words: short for frequent codes, and none begins another."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightcourse.quantization import huffman

some_codes = st.lists(st.integers(0, 255), min_size=1, max_size=300)


def as_codes(values):
    return torch.tensor(values, dtype=torch.uint8)


@given(some_codes)
def test_what_is_written_is_read_back(values):
    assert torch.equal(
        huffman.huffman_decode(huffman.huffman_encode(as_codes(values))), as_codes(values)
    )


@given(st.lists(st.integers(0, 50), min_size=2, max_size=6).filter(lambda c: sum(map(bool, c)) > 1))
def test_no_other_lengths_are_shorter(counts):
    """All lengths that Kraft's inequality allows are tried."""
    ours = huffman.huffman_lengths(torch.tensor(counts)).tolist()
    used = [(count, length) for count, length in zip(counts, ours, strict=True) if count]
    assert sum(2.0**-length for _, length in used) == 1
    total = sum(count * length for count, length in used)
    some = [count for count, _ in used]
    for lengths in itertools.product(range(1, len(some) + 1), repeat=len(some)):
        if sum(2.0**-length for length in lengths) <= 1:
            assert total <= sum(a * b for a, b in zip(some, lengths, strict=True))


def test_the_bits_lie_between_the_entropy_and_one_more():
    generator = torch.Generator().manual_seed(0)
    shares = torch.tensor([0.5, 0.2, 0.15, 0.1, 0.04, 0.01])
    codes = torch.multinomial(shares, 20_000, replacement=True, generator=generator)
    data = huffman.huffman_encode(codes.to(torch.uint8))
    seen = codes.bincount() / len(codes)
    entropy = -(seen * seen.log2()).sum().item()
    bits = 8 * (len(data) - 264) / len(codes)
    assert entropy <= bits < entropy + 0.1


def test_codes_that_are_equally_frequent_gain_nothing():
    codes = as_codes(list(range(16)) * 100)
    assert len(huffman.huffman_encode(codes)) == 264 + 800


@pytest.mark.parametrize("kept", [3, 100, 264, 270])
def test_bytes_that_are_cut_off_are_refused(kept):
    data = huffman.huffman_encode(as_codes(np.arange(200) % 7))
    with pytest.raises(ValueError, match="it is cut off"):
        huffman.huffman_decode(data[:kept])


@pytest.mark.parametrize("counts", [[], [0, 0], [-1, 2], [1] * 257])
def test_counts_that_are_none_are_refused(counts):
    with pytest.raises(ValueError, match="counts is"):
        huffman.huffman_lengths(torch.tensor(counts, dtype=torch.long))


def test_codes_of_other_kinds_are_refused():
    with pytest.raises(ValueError, match="int64"):
        huffman.huffman_encode(torch.tensor([1, 2]))
