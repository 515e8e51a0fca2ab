"""Linear (affine) quantization: real numbers on an evenly spaced grid of integers.

``x`` is stored as ``q = round(x / scale) + zero_point`` and read back as
``(q - zero_point) * scale`` (Jacob et al. 2017, arXiv 1712.05877).
"""

from lightcourse.calibration import calibrate
from lightcourse.integers import quant_range
from lightcourse.quantization.affine import (
    choose_qparams_affine,
    choose_qparams_affine_with_min_max,
    dequantize_affine,
    fake_quantize,
    into_groups,
    min_max_range,
    quantize_affine,
)
from lightcourse.quantization.blocks import (
    Coded,
    binary,
    code_blocks,
    fp8,
    kmeans,
    log4,
    mxfp4,
    nf4,
    nvfp4,
    ternary,
)
from lightcourse.quantization.budget import choose_bits, choose_bits_greedily
from lightcourse.quantization.clipping import (
    choose_qparams_mse,
    mse_range,
    percentile_range,
    search_scale,
)
from lightcourse.quantization.codebook import CodebookLinear, codebook_
from lightcourse.quantization.embedding import QuantizedEmbedding
from lightcourse.quantization.fake import FakeQuantizedLinear
from lightcourse.quantization.gptq import gptq, gptq_
from lightcourse.quantization.huffman import huffman_decode, huffman_encode, huffman_lengths
from lightcourse.quantization.layer import QuantizedLinear
from lightcourse.quantization.learned_steps import (
    lsq,
    mean_step,
    nearest_step,
    paper_step,
)
from lightcourse.quantization.levels import (
    float_levels,
    kmeans_codebook,
    nearest_codes,
    normal_levels,
)
from lightcourse.quantization.outliers import split_outliers_
from lightcourse.quantization.packing import pack_int4, unpack_int4
from lightcourse.quantization.qat import convert_qat_, prepare_qat_, qat_steps, refit_steps_
from lightcourse.quantization.rotations import hadamard, random_rotation, rotate_
from lightcourse.quantization.rounding import default_qparams, read_back, round_to_nearest
from lightcourse.quantization.saved import load_quantized_, save_quantized
from lightcourse.quantization.smoothing import awq_, smooth_, synthetic_outliers_
from lightcourse.quantization.split import SplitLinear
from lightcourse.quantization.verbs import dequantize_, quantize_

__all__ = [
    "CodebookLinear",
    "Coded",
    "FakeQuantizedLinear",
    "QuantizedEmbedding",
    "QuantizedLinear",
    "SplitLinear",
    "awq_",
    "binary",
    "calibrate",
    "choose_bits",
    "choose_bits_greedily",
    "choose_qparams_affine",
    "choose_qparams_affine_with_min_max",
    "choose_qparams_mse",
    "code_blocks",
    "codebook_",
    "convert_qat_",
    "default_qparams",
    "dequantize_",
    "dequantize_affine",
    "fake_quantize",
    "float_levels",
    "fp8",
    "gptq",
    "gptq_",
    "hadamard",
    "huffman_decode",
    "huffman_encode",
    "huffman_lengths",
    "into_groups",
    "kmeans",
    "kmeans_codebook",
    "load_quantized_",
    "log4",
    "lsq",
    "mean_step",
    "min_max_range",
    "mse_range",
    "mxfp4",
    "nearest_codes",
    "nearest_step",
    "nf4",
    "normal_levels",
    "nvfp4",
    "pack_int4",
    "paper_step",
    "percentile_range",
    "prepare_qat_",
    "qat_steps",
    "quant_range",
    "quantize_",
    "quantize_affine",
    "random_rotation",
    "read_back",
    "refit_steps_",
    "rotate_",
    "round_to_nearest",
    "save_quantized",
    "search_scale",
    "smooth_",
    "split_outliers_",
    "synthetic_outliers_",
    "ternary",
    "unpack_int4",
]
