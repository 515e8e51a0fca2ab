"""Linear (affine) quantization: real numbers on an evenly spaced grid of integers.

``x`` is stored as ``q = round(x / scale) + zero_point`` and read back as
``(q - zero_point) * scale`` (Jacob et al. 2017, arXiv 1712.05877).
"""

from lightcourse.quantization.affine import (
    choose_qparams_affine,
    dequantize_affine,
    quant_range,
    quantize_affine,
    search_scale,
)
from lightcourse.quantization.layer import QuantizedLinear
from lightcourse.quantization.packing import pack_int4, unpack_int4
from lightcourse.quantization.verbs import quantize_

__all__ = [
    "QuantizedLinear",
    "choose_qparams_affine",
    "dequantize_affine",
    "pack_int4",
    "quant_range",
    "quantize_",
    "quantize_affine",
    "search_scale",
    "unpack_int4",
]
