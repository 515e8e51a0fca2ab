"""Matrices held as integers, whoever found the integers: how they are packed and read back.

Nothing here knows how a matrix was rounded. GPTQ, a search, training on the grid: whatever
ends in integers, scales and zero points comes in by :func:`pack`.
"""

from lightcourse.integers.matrix import IntegerMatrix, integer_matrices
from lightcourse.integers.packing import pack, quant_range, storable

__all__ = ["IntegerMatrix", "integer_matrices", "pack", "quant_range", "storable"]
