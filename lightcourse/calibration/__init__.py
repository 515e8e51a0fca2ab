"""Calibration: what a model's layers are given on some text, seen batch by batch.

Whatever is measured, memory does not grow with the text: each batch is folded into one state
a layer, and let go.
"""

from lightcourse.calibration.hidden import see_hidden
from lightcourse.calibration.observing import (
    checking_ids,
    choose_layers,
    observe_inputs,
    run_hooked,
)
from lightcourse.calibration.ranges import calibrate, check_percent
from lightcourse.calibration.sums import hessians, input_norms
from lightcourse.calibration.traces import hessian_traces

__all__ = [
    "calibrate",
    "check_percent",
    "checking_ids",
    "choose_layers",
    "hessian_traces",
    "hessians",
    "input_norms",
    "observe_inputs",
    "run_hooked",
    "see_hidden",
]
