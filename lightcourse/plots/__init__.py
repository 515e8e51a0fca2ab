"""The figures that several chapters use: one function each, draws into ``Axes``, returns them."""

from lightcourse.plots.diagrams import (
    integer_product,
    lora_layer,
    teacher_and_student,
    training_stages,
    transformer_block,
)
from lightcourse.plots.distillation import class_bars
from lightcourse.plots.ledger import ledger
from lightcourse.plots.lines import (
    bits_curves,
    bits_panels,
    curves,
    seed_dots,
    sparsity_curves,
    trade_off,
)
from lightcourse.plots.pictures import (
    byte_grid,
    bytes_moved,
    integer_grid,
    stacked_bars,
    weight_maps,
)
from lightcourse.plots.pruning import layer_bars, pruning_steps, sparse_formats
from lightcourse.plots.quantization import channel_bars, codebooks, number_line
from lightcourse.plots.sliders import number_line_slider
from lightcourse.plots.speed import call_times, roofline

__all__ = [
    "bits_curves",
    "bits_panels",
    "byte_grid",
    "bytes_moved",
    "call_times",
    "channel_bars",
    "class_bars",
    "codebooks",
    "curves",
    "integer_grid",
    "integer_product",
    "layer_bars",
    "ledger",
    "lora_layer",
    "number_line",
    "number_line_slider",
    "pruning_steps",
    "roofline",
    "seed_dots",
    "sparse_formats",
    "sparsity_curves",
    "stacked_bars",
    "teacher_and_student",
    "trade_off",
    "training_stages",
    "transformer_block",
    "weight_maps",
]
