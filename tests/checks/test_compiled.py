"""A learner's kernel may be compiled or not; what it does to its arguments shows either way."""

import numpy as np
from numba import njit

from lightcourse import checks


def in_loops(x_q, x_scale, w_q, w_scale):
    """Apply the scales in the innermost loop: slow, and right."""
    y = np.zeros((len(x_q), len(w_q)), np.float32)
    for row in range(len(x_q)):
        for output in range(len(w_q)):
            for k in range(x_q.shape[1]):
                product = np.int32(x_q[row, k]) * np.int32(w_q[output, k])
                y[row, output] += product * x_scale[row] * w_scale[output]
    return y


def in_numpy(x_q, x_scale, w_q, w_scale):
    return x_q.astype(np.int32) @ w_q.T.astype(np.int32) * x_scale[:, None] * w_scale


def over_its_scale(x_q, x_scale, w_q, w_scale):
    y = np.zeros((len(x_q), len(w_q)), np.float32)
    w_scale *= x_scale[0]
    return y


def of_unknown_type(x_q, x_scale, w_q, w_scale):
    return x_q.no_such_attribute


def test_loops_and_arrays_pass_compiled_or_not():
    assert checks.check_linear_int8(in_numpy)
    assert checks.check_linear_int8(in_loops)
    assert checks.check_linear_int8(njit(in_loops))


def test_a_compiled_kernel_that_writes_into_its_inputs_is_told(capsys):
    assert not checks.check_linear_int8(njit(over_its_scale))
    assert capsys.readouterr().out.startswith("✗ over_its_scale: it changes its input")


def test_what_cannot_be_compiled_is_told_in_one_line(capsys):
    assert not checks.check_linear_int8(njit(of_unknown_type))
    printed = capsys.readouterr().out
    assert printed.count("\n") == 1 and "it raised TypingError" in printed


def test_sums_that_a_plain_kernel_keeps_in_bytes_are_told(capsys):
    def bytes_only(x_q, x_scale, w_q, w_scale):
        sums = (x_q[:, None] * w_q).sum(axis=2)
        return sums * x_scale[:, None] * w_scale

    assert not checks.check_linear_int8(bytes_only)
    assert "widen before multiplying" in capsys.readouterr().out
