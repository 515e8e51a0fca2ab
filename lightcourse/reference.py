"""One formula, one function: the NumPy twins that every kernel is tested against."""

import numpy as np

from lightcourse import panels

INPUTS_LIMIT = 65_536  # 255 * 127 * 65,536 still fits a 32-bit integer


def quantize_rows(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Quantize each row to int8 with a scale of its own, symmetrically around 0.

    ``scale = max|row| / 127`` and ``q = round(row * (1 / scale))``, halves to even: the
    dynamic activation quantization of LLM.int8 (Dettmers et al. 2022, arXiv 2208.07339)
    without its outlier split.

    Parameters
    ----------
    x : ndarray, shape (rows, columns)
        Any float dtype, computed in float32. Contiguous or not; may be empty.

    Returns
    -------
    q : ndarray of int8, shape (rows, columns)
        Values in -127..127.
    scale : ndarray of float32, shape (rows,)
        A row whose largest value is 0 (or so small that the scale is not a normal float32)
        has scale 1 and q = 0. A row that holds NaN or infinity fits no grid: it has scale
        NaN and q = 0, so that all that is computed from it is NaN.

    Raises
    ------
    ValueError
        When ``x`` is not two-dimensional.

    Examples
    --------
    >>> q, scale = quantize_rows(np.array([[1.0, -2.54, 0.0]]))
    >>> q.tolist(), round(float(scale[0]), 4)
    ([[50, -127, 0]], 0.02)
    """
    x = as_rows(x)
    q, scale = quantize_groups(x, max(1, x.shape[1]))
    return q, scale[:, 0]


def quantize_groups(x: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Quantize each row to int8 with a scale for every ``width`` of its values.

    :func:`quantize_rows`, group by group: one large value spoils the grid of its neighbours
    alone, and not that of the whole row. With ``width`` 32 it is how ggml quantizes rows for
    its Q8_0, whose scales are rounded to half precision besides.

    Parameters
    ----------
    x : ndarray, shape (rows, columns)
        Any float dtype, computed in float32. Contiguous or not; may be empty.
    width : int
        Positive. What is left at the end of a row is a group, too.

    Returns
    -------
    q : ndarray of int8, shape (rows, columns)
        Values in -127..127.
    scale : ndarray of float32, shape (rows, groups)
        At least one group. As in :func:`quantize_rows`; in a row that holds NaN or infinity all
        scales are NaN, and q = 0.

    Raises
    ------
    ValueError
        When ``x`` is not two-dimensional, or ``width`` no positive number.

    Examples
    --------
    >>> q, scale = quantize_groups(np.array([[63.5, -25.0, 127.0, 3.0]]), 2)
    >>> q.tolist(), scale.tolist()
    ([[127, -50, 127, 3]], [[0.5, 1.0]])
    """
    x, width = as_rows(x), check_width(width)
    rows, columns = x.shape
    groups = count_groups(columns, width)
    finite = np.isfinite(x).all(axis=1)[:, None]
    x = np.pad(np.where(finite, x, np.float32(0)), ((0, 0), (0, groups * width - columns)))
    x = x.reshape(rows, groups, width)
    scale = np.abs(x).max(axis=2, initial=0) / np.float32(127)
    # Values of a group with so small a scale are far below 1/2, and round to 0 at scale 1.
    scale = np.where(scale < np.finfo(np.float32).tiny, np.float32(1), scale)
    q = np.rint(x * (np.float32(1) / scale)[..., None]).astype(np.int8)
    return q.reshape(rows, groups * width)[:, :columns], np.where(finite, scale, np.float32(np.nan))


def linear_w8a8(
    x: np.ndarray, qweight: np.ndarray, scale: np.ndarray, bias: np.ndarray | None = None
) -> np.ndarray:
    """Multiply by int8 weights, with the inputs quantized to int8 on the way.

    ``y[m, n] = x_scale[m] * scale[n] * sum_k x_q[m, k] * q[n, k] + bias[n]``, where the sum
    is one of integers, hence exact, and the two scales have left it (Jacob et al. 2017,
    arXiv 1712.05877, section 2.2).

    Parameters
    ----------
    x : ndarray of floats, shape (rows, inputs)
        Quantized by :func:`quantize_rows`: a row that holds NaN or infinity gives NaN.
    qweight : ndarray of uint8, shape (panels, blocks, 16, 4)
        As :func:`lightcourse.panels.pack_w8` stores it.
    scale : ndarray of float32, shape (outputs,)
        Of each row of the weight.
    bias : ndarray of float32, shape (outputs,), optional

    Returns
    -------
    ndarray of float32, shape (rows, outputs)

    Raises
    ------
    ValueError
        When shapes do not fit each other, or there are more than 65,536 inputs, whose
        products need not fit a 32-bit sum.

    Examples
    --------
    >>> q = np.array([[3, 0], [2, 2]], np.int8)
    >>> scale = np.array([0.5, 0.5], np.float32)
    >>> linear_w8a8(np.array([[1.0, -1.0]]), panels.pack_w8(q), scale).tolist()
    [[1.5, 0.0]]
    """
    x = as_rows(x)
    check_blocks(x, qweight, panels.INPUTS, panels.INPUTS)
    scale = as_outputs("scale", scale, len(scale), qweight)
    q = panels.unpack_w8(qweight, len(scale), x.shape[1])
    x_q, x_scale = quantize_rows(x)
    sums = x_q.astype(np.int32) @ q.T.astype(np.int32)
    y = sums.astype(np.float32) * scale * x_scale[:, None]
    return y + as_outputs("bias", bias, len(scale), qweight)


def linear_w8a8_grouped(
    x: np.ndarray,
    qweight: np.ndarray,
    scale: np.ndarray,
    bias: np.ndarray | None = None,
    outputs: int | None = None,
) -> np.ndarray:
    """Multiply by int8 weights in groups, with the inputs quantized to int8 in the same groups.

    ``y[m, n] = sum_g x_scale[m, g] * scale[n, g] * sum_{k in g} x_q[m, k] * q[n, k] + bias[n]``:
    the inner sums are of integers, and each group's two scales leave its own. In groups of 32
    it is the arithmetic of ggml's Q8_0, but that x's scales keep single precision.

    Parameters
    ----------
    x : ndarray of floats, shape (rows, inputs)
        Quantized by :func:`quantize_groups`: a row that holds NaN or infinity gives NaN.
    qweight : ndarray of uint8, shape (panels, blocks, 16, 4)
        As :func:`lightcourse.panels.pack_w8` stores it with ``multiple=32``.
    scale : ndarray of float16, shape (panels, groups, 16)
        As :func:`lightcourse.panels.pack_groups` stores it. A group is as wide as all
        inputs (filled up to a multiple of 32) divided by the number of groups.
    bias : ndarray of float32, shape (outputs,), optional
    outputs : int, optional
        How many there are; without it, and without a bias, all that the panels hold.

    Returns
    -------
    ndarray of float32, shape (rows, outputs)

    Raises
    ------
    ValueError
        When shapes do not fit each other, a group is no multiple of 32 wide, or there are
        more than 65,536 inputs.
    """
    x = as_rows(x)
    check_blocks(x, qweight, panels.INPUTS, panels.BLOCK_G8)
    check_groups(qweight, scale, None, panels.INPUTS)
    outputs = count_outputs(qweight, bias, outputs)
    inputs, groups = qweight.shape[1] * panels.INPUTS, scale.shape[1]
    q = panels.unpack_w8(qweight, outputs, inputs).reshape(outputs, groups, inputs // groups)
    x = np.pad(x, ((0, 0), (0, inputs - x.shape[1])))
    x_q, x_scale = quantize_groups(x, max(1, inputs // groups))
    x_q = x_q.reshape(len(x), groups, inputs // groups)
    sums = np.einsum("mgk,ngk->mng", x_q.astype(np.int32), q.astype(np.int32), optimize=True)
    scales = x_scale[:, None] * panels.unpack_groups(scale, outputs).astype(np.float32)
    y = (sums.astype(np.float32) * scales).sum(2, dtype=np.float32)
    return y + as_outputs("bias", bias, outputs, qweight)


def linear_w4a8(
    x: np.ndarray,
    qweight: np.ndarray,
    scale: np.ndarray,
    zero_point: np.ndarray | None = None,
    bias: np.ndarray | None = None,
    outputs: int | None = None,
) -> np.ndarray:
    """Multiply by 4-bit weights in groups, with the inputs quantized to int8 on the way.

    ``y[m, n] = x_scale[m] * sum_g scale[n, g] * (sum_{k in g} x_q[m, k] * (q[n, k] - z[n, g]))
    + bias[n]``: the inner sums are of integers, and each group's scale leaves its own. The
    zero point leaves it too, as ``z[n, g] * sum_{k in g} x_q[m, k]``.

    Parameters
    ----------
    x : ndarray of floats, shape (rows, inputs)
        Quantized by :func:`quantize_rows`: a row that holds NaN or infinity gives NaN.
    qweight : ndarray of uint8, shape (panels, blocks, 16, 4)
        As :func:`lightcourse.panels.pack_w4` stores it: ``q + 8``.
    scale : ndarray of float16, shape (panels, groups, 16)
        As :func:`lightcourse.panels.pack_groups` stores it. A group is as wide as all
        inputs (filled up to a multiple of 32) divided by the number of groups.
    zero_point : ndarray of uint8, shape (panels, groups, 16), optional
        ``z + 8``, from 0 to 15; without it z = 0 everywhere.
    bias : ndarray of float32, shape (outputs,), optional
    outputs : int, optional
        How many there are; without it, and without a bias, all that the panels hold.

    Returns
    -------
    ndarray of float32, shape (rows, outputs)

    Raises
    ------
    ValueError
        When shapes do not fit each other, a group is no multiple of 32 wide, or there are
        more than 65,536 inputs.
    """
    x = as_rows(x)
    check_blocks(x, qweight, 2 * panels.INPUTS, panels.BLOCK_W4)
    check_groups(qweight, scale, zero_point, 2 * panels.INPUTS)
    outputs = count_outputs(qweight, bias, outputs)
    inputs, groups = qweight.shape[1] * 2 * panels.INPUTS, scale.shape[1]
    q = panels.unpack_w4(qweight, outputs, inputs).reshape(outputs, groups, inputs // groups)
    if zero_point is not None:
        q = q - (panels.unpack_groups(zero_point, outputs).astype(np.int16) - 8)[..., None]
    x_q, x_scale = quantize_rows(x)
    x_q = np.pad(x_q, ((0, 0), (0, inputs - x.shape[1])))
    x_q = x_q.reshape(len(x), groups, inputs // groups)
    sums = np.einsum("mgk,ngk->mng", x_q.astype(np.int32), q.astype(np.int32), optimize=True)
    y = (sums * panels.unpack_groups(scale, outputs).astype(np.float32)).sum(2, dtype=np.float32)
    return y * x_scale[:, None] + as_outputs("bias", bias, outputs, qweight)


def linear_sparse(
    x: np.ndarray,
    weight: panels.SparseWeight,
    scale: np.ndarray,
    bias: np.ndarray | None = None,
) -> np.ndarray:
    """Multiply by int8 weights of which only those that are not 0 are stored.

    The same numbers as :func:`linear_w8a8` on the matrix with its zeros.

    Parameters
    ----------
    x : ndarray of floats, shape (rows, inputs)
        Quantized by :func:`quantize_rows`: a row that holds NaN or infinity gives NaN.
    weight : lightcourse.panels.SparseWeight
    scale : ndarray of float32, shape (outputs,)
        Of each row of the weight.
    bias : ndarray of float32, shape (outputs,), optional

    Returns
    -------
    ndarray of float32, shape (rows, outputs)

    Raises
    ------
    ValueError
        When shapes do not fit each other, or there are more than 65,536 inputs.
    """
    x = as_rows(x)
    check_inputs(x, weight.inputs, weight.inputs)
    outputs = len(as_outputs("scale", scale, len(scale), weight.sums))
    return linear_w8a8(x, panels.pack_w8(panels.unpack_sparse(weight, outputs)), scale, bias)


def linear_codebook(
    x: np.ndarray,
    qweight: np.ndarray,
    levels: np.ndarray,
    scale: np.ndarray,
    bias: np.ndarray | None = None,
) -> np.ndarray:
    """Multiply by weights that are looked up in a codebook, as floats.

    Parameters
    ----------
    x : ndarray of floats, shape (rows, inputs)
        The number of inputs is a multiple of 8.
    qweight : ndarray of uint8, shape (outputs, inputs * bits / 8)
        As :func:`lightcourse.panels.pack_codes` makes it.
    levels : ndarray of float32, shape (2**bits,)
    scale : ndarray of float32, shape (outputs, blocks)
        The same number of neighbouring inputs shares each.
    bias : ndarray of float32, shape (outputs,), optional

    Returns
    -------
    ndarray of float32, shape (rows, outputs)

    Raises
    ------
    ValueError
        When shapes do not fit each other.

    Examples
    --------
    >>> codes = panels.pack_codes(np.array([[0, 1, 1, 0, 0, 0, 0, 0]], np.uint8), bits=1)
    >>> linear_codebook(np.ones((1, 8)), codes, np.array([-1.0, 1.0]), np.array([[0.5]]))
    array([[-2.]], dtype=float32)
    """
    x, qweight, levels, scale = check_codebook(x, qweight, levels, scale)
    codes = panels.unpack_codes(qweight, (len(levels) - 1).bit_length())
    weight = levels[codes] * np.repeat(scale, codes.shape[1] // scale.shape[1], axis=1)
    bias = np.zeros(len(qweight)) if bias is None else np.asarray(bias)
    return (x @ weight.T + bias).astype(np.float32)


def check_codebook(x, qweight, levels, scale):
    """Return arrays that fit each other, or raise ``ValueError``."""
    x, qweight = as_rows(x), np.asarray(qweight)
    levels, scale = np.asarray(levels, np.float32), np.asarray(scale, np.float32)
    bits = (len(levels) - 1).bit_length() if levels.ndim == 1 else 0
    if not 1 <= bits <= 8 or len(levels) != 2**bits:
        raise ValueError(f"levels has shape {levels.shape}; a power of two up to 256 is wanted")
    if qweight.dtype != np.uint8 or qweight.ndim != 2 or qweight.shape[1] % bits:
        found = f"{qweight.dtype} of shape {qweight.shape}"
        raise ValueError(
            f"qweight is {found}; uint8 of shape (outputs, inputs * {bits} / 8) is wanted"
        )
    inputs = qweight.shape[1] // bits * 8
    if x.shape[1] != inputs:
        raise ValueError(f"x has {x.shape[1]} columns; the weight has {inputs} inputs")
    blocks = scale.shape[1] if scale.ndim == 2 else 0
    if len(scale) != len(qweight) or not blocks or inputs % blocks:
        raise ValueError(f"scale has shape {scale.shape}; ({len(qweight)}, blocks) is wanted")
    return x, qweight, levels, scale


def as_rows(x: np.ndarray) -> np.ndarray:
    """Return ``x`` as a float32 matrix, or raise ``ValueError`` where it is none."""
    x = np.asarray(x, dtype=np.float32)
    if x.ndim != 2:
        raise ValueError(f"x has shape {x.shape}; two dimensions (rows, columns) are wanted")
    return x


def check_width(width) -> int:
    """Return the width of a group, or raise ``ValueError`` where it is no positive number."""
    if not isinstance(width, int | np.integer) or width < 1:
        raise ValueError(f"width is {width}; a positive whole number is wanted")
    return int(width)


def count_groups(columns, width) -> int:
    """Return how many groups so many columns make: at least one."""
    return max(1, -(-columns // width))


def as_outputs(name, values, outputs, qweight) -> np.ndarray:
    """Return one float32 for each output, zeros for None, or raise ``ValueError``."""
    values = np.zeros(outputs, np.float32) if values is None else np.asarray(values, np.float32)
    wanted = count_outputs(qweight, None, outputs)
    if values.shape != (wanted,):
        raise ValueError(f"{name} has shape {values.shape}; ({wanted},) is wanted")
    return values


def count_outputs(qweight, bias, outputs) -> int:
    """Return the number of outputs, or raise ``ValueError`` where the panels hold no such."""
    held = len(qweight) * panels.OUTPUTS
    if outputs is None:
        outputs = held if bias is None else len(bias)
    if not held - panels.OUTPUTS < outputs <= held and (outputs or held):
        few = max(held - panels.OUTPUTS + 1, 0)
        raise ValueError(f"outputs is {outputs}; the weight's panels hold {few} to {held}")
    return outputs


def check_inputs(x, least, most) -> None:
    """Raise ``ValueError`` where ``x`` has not the columns that the weight has."""
    inputs = x.shape[1]
    if not least <= inputs <= most:
        raise ValueError(f"x has {inputs} columns; the weight has {least} to {most} inputs")
    if inputs > INPUTS_LIMIT:
        raise ValueError(f"x has {inputs} columns; {INPUTS_LIMIT} at most fit a 32-bit sum")


def check_blocks(x, qweight, width, padding) -> None:
    """Raise ``ValueError`` where ``qweight`` is not made of blocks that fit ``x``.

    A block holds ``width`` inputs; they were filled up to a multiple of ``padding``.
    """
    shape = np.shape(qweight)
    if qweight.dtype != np.uint8 or len(shape) != 4 or shape[2:] != (16, 4):
        found = f"{qweight.dtype} of shape {shape}"
        raise ValueError(f"qweight is {found}; uint8 of shape (panels, blocks, 16, 4) is wanted")
    check_inputs(x, shape[1] * width - padding + 1, shape[1] * width)


def check_groups(qweight, scale, zero_point, width) -> None:
    """Raise ``ValueError`` where scales or zero points do not fit blocks of ``width`` inputs."""
    panel_count, inputs = len(qweight), qweight.shape[1] * width
    groups = scale.shape[1] if scale.ndim == 3 else 0
    if scale.dtype != np.float16 or scale.shape != (panel_count, groups, 16) or not groups:
        found = f"{scale.dtype} of shape {scale.shape}"
        raise ValueError(
            f"scale is {found}; float16 of shape ({panel_count}, groups, 16) is wanted"
        )
    if inputs % (32 * groups):
        raise ValueError(f"scale has {groups} groups; they must divide {inputs} inputs by 32s")
    if zero_point is not None and (zero_point.dtype, zero_point.shape) != (np.uint8, scale.shape):
        found = f"{zero_point.dtype} of shape {zero_point.shape}"
        raise ValueError(f"zero_point is {found}; uint8 of shape {scale.shape} is wanted")
