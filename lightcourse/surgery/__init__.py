"""Taking parts out of a model, and moving factors within it; the config follows.

What the verbs of several methods stand on. None of it makes a report: a verb does, checks its
arguments first, and calls :func:`lightcourse.pretrained.watch_` at its end.
"""

from lightcourse.surgery.blocks import (
    ATTENTION,
    FEED_FORWARD,
    Block,
    attentions,
    feed_forwards,
    has_own_head_size,
    matches,
    width,
)
from lightcourse.surgery.narrow import check_narrow, narrow_heads_
from lightcourse.surgery.norms import (
    divide_outputs_,
    multiply_inputs_,
    norm_readers,
    rescale_,
)
from lightcourse.surgery.rows import drop_inputs_, drop_outputs_, drop_units_, note_sizes
from lightcourse.surgery.stacks import check_first, check_layers, layer_stacks, note_layers
from lightcourse.surgery.stream import (
    cut_stream_,
    note_width,
    stream_norms,
    stream_width,
)

__all__ = [
    "ATTENTION",
    "Block",
    "FEED_FORWARD",
    "attentions",
    "check_first",
    "check_layers",
    "check_narrow",
    "cut_stream_",
    "divide_outputs_",
    "drop_inputs_",
    "drop_outputs_",
    "drop_units_",
    "feed_forwards",
    "has_own_head_size",
    "layer_stacks",
    "matches",
    "multiply_inputs_",
    "narrow_heads_",
    "norm_readers",
    "note_layers",
    "note_sizes",
    "note_width",
    "rescale_",
    "stream_norms",
    "stream_width",
    "width",
]
