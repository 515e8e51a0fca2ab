"""Checks of the exercises: each tries a learner's function and names the misconception.

``check_x(function)`` prints one line that begins with ✓ or ✗, never raises, and returns
whether the function is right.
"""

from lightcourse.checks import (
    distillation,
    fine_tuning,
    kernels,
    linear_quantization,
    models_metrics,
    pruning,
    start,
)
from lightcourse.checks.distillation import (
    check_next_token_kl,
    check_soft_gradient,
    check_soft_loss,
    check_soften,
    check_temperature_for,
)
from lightcourse.checks.fine_tuning import (
    check_examples_needed,
    check_lora_gradients,
    check_rate,
    check_split_rows,
    check_stopping_point,
)
from lightcourse.checks.grading import Exercise
from lightcourse.checks.grading import find_problem as find_problem
from lightcourse.checks.kernels import (
    check_integer_dot,
    check_layer_limits,
    check_offset_parts,
    check_pack_nibbles,
    check_safe_inputs,
    check_unpack_nibbles,
)
from lightcourse.checks.linear_quantization import (
    check_affine_qparams,
    check_bits_per_weight,
    check_expected_error,
    check_improve_scale,
    check_round_trip,
)
from lightcourse.checks.models_metrics import (
    check_bits_per_byte,
    check_macro_f1,
    check_tokens_per_second_limit,
)
from lightcourse.checks.pruning import (
    check_keep_largest,
    check_keep_n_of_m,
    check_obs_remove,
    check_sparse_bytes,
    check_wanda,
)
from lightcourse.checks.start import check_keep_mask, check_lora_ledger, check_stored_bytes

__all__ = [
    "check_affine_qparams",
    "check_bits_per_byte",
    "check_bits_per_weight",
    "check_examples_needed",
    "check_expected_error",
    "check_improve_scale",
    "check_integer_dot",
    "check_keep_largest",
    "check_keep_mask",
    "check_keep_n_of_m",
    "check_layer_limits",
    "check_lora_gradients",
    "check_lora_ledger",
    "check_macro_f1",
    "check_next_token_kl",
    "check_obs_remove",
    "check_offset_parts",
    "check_pack_nibbles",
    "check_rate",
    "check_round_trip",
    "check_safe_inputs",
    "check_soft_gradient",
    "check_soft_loss",
    "check_soften",
    "check_sparse_bytes",
    "check_split_rows",
    "check_stopping_point",
    "check_stored_bytes",
    "check_temperature_for",
    "check_tokens_per_second_limit",
    "check_unpack_nibbles",
    "check_wanda",
]

_MODULES = (start, models_metrics, fine_tuning, pruning, linear_quantization, kernels, distillation)

# From the name of a check to what it measures by.
EXERCISES = {
    f"check_{found.name}": found
    for module in _MODULES
    for found in vars(module).values()
    if isinstance(found, Exercise)
}
