"""From a model to what other programs and devices run: files of other formats, and budgets."""

from lightcourse.deployment.budgets import (
    DEVICES,
    Device,
    calls_a_charge,
    fits,
    seconds_a_call,
)

__all__ = ["DEVICES", "Device", "calls_a_charge", "fits", "seconds_a_call"]
