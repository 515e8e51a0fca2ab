"""Linear (affine) quantization: real numbers on an evenly spaced grid of integers.

``x`` is stored as ``q = round(x / scale) + zero_point`` and read back as
``(q - zero_point) * scale`` (Jacob et al. 2017, arXiv 1712.05877).
"""

from lightcourse.quantization.affine import (
    choose_qparams_affine,
    choose_qparams_from_range,
    dequantize_affine,
    fake_quantize,
    full_range,
    into_groups,
    quant_range,
    quantize_affine,
)
from lightcourse.quantization.clipping import (
    least_squares_range,
    percentile_range,
    search_scale,
)
from lightcourse.quantization.embedding import QuantizedEmbedding
from lightcourse.quantization.layer import QuantizedLinear
from lightcourse.quantization.packing import pack_int4, unpack_int4
from lightcourse.quantization.ranges import calibrate
from lightcourse.quantization.saved import load_quantized_, save_quantized
from lightcourse.quantization.verbs import dequantize_, quantize_

__all__ = [
    "QuantizedEmbedding",
    "QuantizedLinear",
    "calibrate",
    "choose_qparams_affine",
    "choose_qparams_from_range",
    "dequantize_",
    "dequantize_affine",
    "fake_quantize",
    "full_range",
    "into_groups",
    "least_squares_range",
    "load_quantized_",
    "pack_int4",
    "percentile_range",
    "quant_range",
    "quantize_",
    "quantize_affine",
    "save_quantized",
    "search_scale",
    "unpack_int4",
]
