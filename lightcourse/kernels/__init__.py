"""Numba twins of :mod:`lightcourse.reference`: same names, same arguments, same results."""

from lightcourse.kernels.portable import quantize_rows

__all__ = ["quantize_rows"]
