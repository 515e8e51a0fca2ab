"""Checks of the exercises: each tries a learner's function and names the misconception.

``check_x(function)`` prints one line that begins with ✓ or ✗, never raises, and returns
whether the function is right.
"""

from lightcourse.checks.models_metrics import (
    check_bits_per_byte,
    check_macro_f1,
    check_tokens_per_second_limit,
)
from lightcourse.checks.start import check_keep_mask, check_lora_ledger, check_stored_bytes

__all__ = [
    "check_bits_per_byte",
    "check_keep_mask",
    "check_lora_ledger",
    "check_macro_f1",
    "check_stored_bytes",
    "check_tokens_per_second_limit",
]
