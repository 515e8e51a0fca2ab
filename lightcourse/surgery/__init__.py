"""Taking parts out of a model: rows and columns, neurons and heads, layers; the config follows.

What the verbs of several methods stand on. None of it makes a report: a verb does, checks its
arguments first, and calls :func:`lightcourse.pretrained.watch_` at its end.
"""

from lightcourse.surgery.blocks import Block, attentions, feed_forwards
from lightcourse.surgery.rows import drop_inputs_, drop_outputs_, drop_units_, note_sizes
from lightcourse.surgery.stacks import check_first, check_layers, layer_stacks, note_layers

__all__ = [
    "Block",
    "attentions",
    "check_first",
    "check_layers",
    "drop_inputs_",
    "drop_outputs_",
    "drop_units_",
    "feed_forwards",
    "layer_stacks",
    "note_layers",
    "note_sizes",
]
