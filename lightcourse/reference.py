"""One formula, one function: the NumPy twins that every kernel is tested against."""

import numpy as np


def quantize_rows(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Quantize each row to int8 with a scale of its own, symmetrically around 0.

    ``scale = max|row| / 127`` and ``q = round(row / scale)``, halves to even: the dynamic
    activation quantization of LLM.int8 (Dettmers et al. 2022, arXiv 2208.07339) without
    its outlier split.

    Parameters
    ----------
    x : ndarray, shape (rows, columns)
        Any float dtype, computed in float32. Contiguous or not; may be empty.

    Returns
    -------
    q : ndarray of int8, shape (rows, columns)
        Values in -127..127; NaN becomes 0, infinities become -127 or 127.
    scale : ndarray of float32, shape (rows,)
        Chosen from the finite values alone. A row whose largest value is 0 (or so small
        that the scale is not a normal float32) has scale 1 and q = 0.

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
    finite = np.where(np.isfinite(x), x, np.float32(0))
    scale = np.abs(finite).max(axis=1, initial=0) / np.float32(127)
    # Values of a row with so small a scale are far below 1/2, and round to 0 at scale 1.
    scale = np.where(scale < np.finfo(np.float32).tiny, np.float32(1), scale)
    steps = np.nan_to_num(x / scale[:, None], nan=0.0, posinf=127.0, neginf=-127.0)
    return np.clip(np.rint(steps), -127, 127).astype(np.int8), scale


def as_rows(x: np.ndarray) -> np.ndarray:
    """Return ``x`` as a float32 matrix, or raise ``ValueError`` where it is none."""
    x = np.asarray(x, dtype=np.float32)
    if x.ndim != 2:
        raise ValueError(f"x has shape {x.shape}; two dimensions (rows, columns) are wanted")
    return x
