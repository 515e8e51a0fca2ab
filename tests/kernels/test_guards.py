"""What kernels refuse, and what they take: exactly what packing makes of some matrix."""

import numpy as np
import pytest

from lightcourse import kernels, panels, reference

Q = panels.pack_w8(np.ones((5, 8), np.int8))
HALF = np.ones((1, 1, 16), np.float16)
Q8 = panels.pack_w8(np.ones((5, 32), np.int8), 32)
Q4 = panels.pack_w4(np.ones((5, 32), np.int8))
SPARSE = panels.pack_sparse(np.ones((5, 8), np.int8))
ONES = np.ones(5, np.float32)


@pytest.mark.parametrize("module", [kernels, reference])
@pytest.mark.parametrize(
    "name, arguments, message",
    [
        ("quantize_rows", [np.zeros(3)], r"x has shape \(3,\)"),
        ("linear_w8a8", [np.zeros((2, 9)), Q, ONES], "x has 9 columns; the weight has 5 to 8"),
        ("linear_w8a8", [np.zeros((2, 8)), Q[..., 0], ONES], "qweight is uint8 of shape"),
        ("linear_w8a8", [np.zeros((2, 8)), Q.view("i1"), ONES], "qweight is int8 of shape"),
        ("linear_w8a8", [np.zeros((2, 8)), Q, np.ones(40)], "outputs is 40"),
        ("linear_w8a8", [np.zeros((2, 8)), Q, ONES, np.ones(3)], r"bias has shape \(3,\)"),
        ("quantize_groups", [np.zeros(3), 32], r"x has shape \(3,\)"),
        ("quantize_groups", [np.zeros((2, 3)), 0], "width is 0; a positive whole number"),
        ("linear_w8a8_grouped", [np.zeros((2, 33)), Q8, HALF], "x has 33 columns; .* 1 to 32"),
        ("linear_w8a8_grouped", [np.zeros((2, 8)), Q, HALF], "must divide 8 inputs by 32s"),
        ("linear_w8a8_grouped", [np.zeros((2, 32)), Q8, HALF.astype("f")], "scale is float32"),
        ("linear_w8a8_grouped", [np.zeros((2, 32)), Q8, HALF.repeat(2, 1)], "scale has 2 groups"),
        ("linear_w8a8_grouped", [np.zeros((2, 32)), Q8, HALF, None, 17], "outputs is 17"),
        ("linear_w4a8", [np.zeros((2, 33)), Q4, HALF], "x has 33 columns"),
        ("linear_w4a8", [np.zeros((2, 32)), Q4, HALF.astype("f")], "scale is float32"),
        ("linear_w4a8", [np.zeros((2, 32)), Q4, HALF.repeat(2, 1)], "scale has 2 groups"),
        ("linear_w4a8", [np.zeros((2, 32)), Q4, HALF, HALF], "zero_point is float16"),
        ("linear_w4a8", [np.zeros((2, 32)), Q4, HALF, None, None, 17], "outputs is 17"),
        ("linear_sparse", [np.zeros((2, 7)), SPARSE, ONES], "x has 7 columns"),
    ],
)
def test_bad_input_is_refused_by_name(module, name, arguments, message):
    with pytest.raises(ValueError, match=message):
        getattr(module, name)(*arguments)


# Kernels share these guards with the reference, so that a slip in one of them would show in no
# comparison of the two. What packing makes of a matrix is another witness of what fits.


@pytest.mark.parametrize("outputs, inputs", [(5, 7), (16, 8), (20, 1)])
def test_int8_weights_fit_what_packing_makes_them_of(outputs, inputs):
    qweight = panels.pack_w8(np.zeros((outputs, inputs), int))
    for n in range(35):
        for k in range(14):
            arguments = np.zeros((1, k)), qweight, np.ones(n)
            fits = panels.pack_w8(np.zeros((n, k), int)).shape == qweight.shape
            assert takes(kernels.linear_w8a8, *arguments) == fits, (n, k)


@pytest.mark.parametrize("outputs, inputs", [(5, 20), (16, 64), (20, 96)])
def test_4_bit_weights_fit_what_packing_makes_them_of(outputs, inputs):
    qweight = panels.pack_w4(np.zeros((outputs, inputs), int))
    for n in (0, 1, 4, 5, 15, 16, 17, 31, 32, 33):
        for k in (0, 1, 19, 32, 33, 63, 64, 65, 95, 96, 97):
            for groups in range(1, 5):
                scale = panels.pack_groups(np.ones((n, groups), np.float16))
                fits = panels.pack_w4(np.zeros((n, k), int)).shape == qweight.shape
                fits &= -(-k // 32) % groups == 0  # a group is some 32s wide
                arguments = np.zeros((1, k)), qweight, scale, None, None, n
                assert takes(kernels.linear_w4a8, *arguments) == fits, (n, k, groups)


def test_int8_weights_in_groups_fit_what_packing_makes_them_of():
    qweight = panels.pack_w8(np.zeros((16, 64), int), 32)
    for k in (0, 1, 31, 32, 33, 63, 64, 65, 96):
        for groups in range(1, 5):
            scale = panels.pack_groups(np.ones((16, groups), np.float16))
            fits = panels.pack_w8(np.zeros((16, k), int), 32).shape == qweight.shape
            fits &= -(-k // 32) % groups == 0
            assert takes(kernels.linear_w8a8_grouped, np.zeros((1, k)), qweight, scale) == fits


def test_sparse_weights_fit_the_very_matrix_that_they_were():
    weight = panels.pack_sparse(np.ones((17, 6), int))
    for n in range(35):
        for k in range(14):
            fits = k == 6 and panels.pack_w8(np.zeros((n, k), int)).shape[0] == 2
            arguments = np.zeros((1, k)), weight, np.ones(n)
            assert takes(kernels.linear_sparse, *arguments) == fits, (n, k)


def test_a_bias_has_one_number_an_output():
    for count in range(35):
        bias, fits = np.ones(count), count == 5
        assert takes(kernels.linear_w8a8, np.zeros((2, 8)), Q, ONES, bias) == fits
        assert takes(kernels.linear_w4a8, np.zeros((2, 32)), Q4, HALF, None, bias, 5) == fits
        assert takes(kernels.linear_sparse, np.zeros((2, 8)), SPARSE, ONES, bias) == fits


def takes(kernel, *arguments):
    """Tell whether a kernel takes these arguments, or refuses them."""
    try:
        kernel(*arguments)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("module", [kernels, reference])
@pytest.mark.parametrize(
    "name, pack, scale",
    [
        ("linear_w8a8", panels.pack_w8, ONES[:0]),
        ("linear_w8a8_grouped", panels.pack_w8, np.ones((0, 1, 16), np.float16)),
        ("linear_w4a8", panels.pack_w4, np.ones((0, 1, 16), np.float16)),
        ("linear_sparse", panels.pack_sparse, ONES[:0]),
    ],
)
def test_more_inputs_than_a_32_bit_sum_holds_are_refused(module, name, pack, scale):
    assert 255 * 127 * 65_536 < 2**31 <= 255 * 127 * 66_500
    product = getattr(module, name)
    assert product(np.zeros((1, 65_536)), pack(np.zeros((0, 65_536), int)), scale).shape == (1, 0)
    with pytest.raises(ValueError, match="65536 at most"):
        product(np.zeros((1, 65_568)), pack(np.zeros((0, 65_568), int)), scale)
