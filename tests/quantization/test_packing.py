"""Two 4-bit integers a byte, and back."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lightcourse import quantization


@given(
    hnp.arrays(
        "int8", st.tuples(st.integers(0, 5), st.integers(1, 17)), elements=st.integers(-8, 7)
    )
)
def test_packing_is_undone_exactly_and_halves_the_bytes(q):
    q = torch.from_numpy(q)
    packed = quantization.pack_int4(q)
    assert packed.dtype == torch.uint8 and packed.shape[1] == (q.shape[1] + 1) // 2
    assert torch.equal(quantization.unpack_int4(packed, q.shape[1]), q)


@pytest.mark.parametrize("value", [8, -9])
def test_what_does_not_fit_4_bits_is_not_packed(value):
    with pytest.raises(ValueError, match="integers from -8 to 7"):
        quantization.pack_int4(torch.tensor([value]))
