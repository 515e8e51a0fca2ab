"""Kernels against their NumPy twins; run a second time with NUMBA_DISABLE_JIT=1."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lightcourse import kernels, reference

matrices = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=67),
    elements=st.floats(width=32, allow_nan=True, allow_infinity=True),
)


@given(matrices)
def test_quantize_rows_equals_its_reference_bit_for_bit(x):
    q, scale = kernels.quantize_rows(x)
    expected_q, expected_scale = reference.quantize_rows(x)
    np.testing.assert_array_equal(q, expected_q)
    np.testing.assert_array_equal(scale, expected_scale)
    assert q.dtype == np.int8 and scale.dtype == np.float32


@given(matrices)
def test_quantize_rows_reads_views_as_it_reads_copies(x):
    for view in (x.T, x[::-1, ::2]):
        for got, want in zip(
            kernels.quantize_rows(view), kernels.quantize_rows(view.copy()), strict=True
        ):
            np.testing.assert_array_equal(got, want)


@given(hnp.arrays(np.float32, (3, 40), elements=st.floats(-1e6, 1e6, width=32)))
def test_rounding_is_off_by_half_a_step_at_most(x):
    q, scale = kernels.quantize_rows(x)
    error = np.abs(q * scale[:, None].astype(np.float64) - x)
    bound = np.maximum(scale[:, None] * (0.5 + 1e-4), 1e-36)
    assert (error <= bound).all()


def test_not_a_number_and_infinity_have_documented_answers():
    x = np.array([[np.nan, np.inf, -np.inf, 2.0], [0.0, np.inf, np.nan, 0.0]], np.float32)
    for module in (kernels, reference):
        q, scale = module.quantize_rows(x)
        assert q.tolist() == [[0, 127, -127, 127], [0, 127, 0, 0]]
        assert scale[1] == 1


@pytest.mark.parametrize("module", [kernels, reference])
def test_a_vector_is_refused_with_its_shape(module):
    with pytest.raises(ValueError, match=r"x has shape \(3,\)"):
        module.quantize_rows(np.zeros(3))
