"""Devices and what they allow, at most."""

from dataclasses import replace

import pytest

from lightcourse.deployment import (
    DEVICES,
    Device,
    calls_a_charge,
    fits,
    seconds_a_call,
)

DEVICE = Device("toy", memory=1000, bandwidth=100, operations=50, source="made up", battery=2)


def test_half_of_the_memory_may_be_used_unless_more_is_said():
    assert fits(DEVICE, 500) and not fits(DEVICE, 501)
    assert fits(DEVICE, 900, share=0.9) and not fits(DEVICE, 901, share=0.9)


def test_the_slower_limit_counts():
    assert seconds_a_call(DEVICE, read=200, operations=50) == 2  # memory
    assert seconds_a_call(DEVICE, read=100, operations=150) == 3  # arithmetic


def test_where_arithmetic_is_not_known_memory_counts():
    assert seconds_a_call(replace(DEVICE, operations=float("nan")), read=200, operations=50) == 2


def test_a_charge_is_energy_divided_by_power_and_time():
    assert calls_a_charge(DEVICE, seconds=3600, watts=1) == 2
    assert calls_a_charge(replace(DEVICE, battery=0), seconds=1, watts=1) == float("inf")


def test_every_device_names_its_source_and_can_do_something():
    assert all(device.source and device.memory and device.bandwidth for device in DEVICES)
    assert [device.memory for device in DEVICES] == sorted(device.memory for device in DEVICES)


@pytest.mark.parametrize("bad", [0, -1, float("nan"), float("inf")])
def test_what_is_no_amount_is_refused(bad):
    with pytest.raises(ValueError, match="needed is"):
        fits(DEVICE, bad)
    with pytest.raises(ValueError, match="read is"):
        seconds_a_call(DEVICE, bad, 1)
    with pytest.raises(ValueError, match="watts is"):
        calls_a_charge(DEVICE, 1, bad)


def test_more_than_the_whole_memory_is_refused():
    with pytest.raises(ValueError, match="share is 2"):
        fits(DEVICE, 1, share=2)
