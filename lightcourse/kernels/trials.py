"""Small products, by which a machine can show whether its kernels answer as NumPy does."""

import numpy as np

from lightcourse import kernels, panels, reference


def twins() -> list[str]:
    """Return the names of the kernels: what both this package and the reference offer."""
    return [name for name in kernels.__all__ if hasattr(reference, name)]


def wrong() -> list[str]:
    """Return the names of the kernels that answer otherwise than their NumPy twins."""
    calls = arguments()
    return [name for name in twins() if not all(_agree(name, call) for call in calls[name])]


def arguments() -> dict[str, list[tuple]]:
    """Return arguments for each kernel, of every kind of weight that it takes.

    With as many rows as paths want that multiply few and many rows in different ways.
    """
    rng = np.random.default_rng(0)
    x, q = rng.standard_normal((20, 64)).astype(np.float32), rng.integers(-7, 8, (20, 64))
    scale, bias = rng.random((2, 20), np.float32)
    halves = panels.pack_groups(rng.random((20, 2)).astype(np.float16))
    points, w4 = rng.integers(0, 16, halves.shape).astype(np.uint8), panels.pack_w4(q)
    levels = np.sort(rng.standard_normal(8)).astype(np.float32)
    codes = panels.pack_codes(rng.integers(0, 8, (20, 64)).astype(np.uint8), bits=3)
    return {
        "quantize_rows": [(x,)],
        "quantize_groups": [(x, 32)],
        "linear_w8a8": [(x, panels.pack_w8(q), scale, bias)],
        "linear_w8a8_grouped": [(x, panels.pack_w8(q, 32), halves, bias)],
        "linear_w4a8": [(x, w4, halves, None, bias), (x, w4, halves, points, bias)],
        "linear_sparse": [(x, panels.pack_sparse(np.maximum(q, 0)), scale, bias)],
        "linear_codebook": [(x, codes, levels, rng.random((20, 2), np.float32), bias)],
    }


def _agree(name, call):
    ours, numpys = (getattr(module, name)(*call) for module in (kernels, reference))
    pairs = zip(ours, numpys, strict=True) if isinstance(ours, tuple) else [(ours, numpys)]
    return all(np.allclose(a, b, rtol=1e-5, atol=1e-4) for a, b in pairs)
