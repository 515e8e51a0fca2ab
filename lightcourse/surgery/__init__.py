"""Taking parts out of a model: rows and columns, neurons and heads, layers; the config follows.

What the verbs of several methods stand on. None of it makes a report: a verb does, checks its
arguments first, and calls :func:`lightcourse.pretrained.watch_` at its end.
"""

from lightcourse.surgery.blocks import Block, attentions, feed_forwards, has_own_head_size
from lightcourse.surgery.narrow import check_narrow, narrow_heads_
from lightcourse.surgery.rows import drop_inputs_, drop_outputs_, drop_units_, note_sizes
from lightcourse.surgery.stacks import check_first, check_layers, layer_stacks, note_layers
from lightcourse.surgery.stream import (
    cut_stream_,
    note_width,
    stream_norms,
    stream_width,
)

__all__ = [
    "Block",
    "attentions",
    "check_first",
    "check_layers",
    "check_narrow",
    "cut_stream_",
    "drop_inputs_",
    "drop_outputs_",
    "drop_units_",
    "feed_forwards",
    "has_own_head_size",
    "layer_stacks",
    "narrow_heads_",
    "note_layers",
    "note_sizes",
    "note_width",
    "stream_norms",
    "stream_width",
]
