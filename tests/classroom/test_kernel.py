"""Kernels of chapters: what they start with."""

from lightcourse.classroom import kernel


def test_kernels_wait_patiently_unless_the_user_wants_otherwise(monkeypatch):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    assert kernel.environment()["OMP_WAIT_POLICY"] == "PASSIVE"
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    assert kernel.environment()["OMP_WAIT_POLICY"] == "ACTIVE"
