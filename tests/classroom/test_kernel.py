"""Driving a kernel that nobody trusts: replies are waited for, but not for ever."""

import time
from queue import Empty

import pytest

from lightcourse.classroom import kernel


class StubbornKernel:
    """A client that never answers and its manager, dead or alive."""

    def __init__(self, alive=True, replies=()):
        self.alive, self.replies = alive, list(replies)

    def is_alive(self):
        return self.alive

    def execute(self, code, **options):
        self.options = options
        return "mine"

    def get_shell_msg(self, timeout):
        if not self.replies:
            raise Empty
        identity, content = self.replies.pop(0)
        return {"parent_header": {"msg_id": identity}, "content": content}


def ask(stub, seconds=0.05):
    deadline = time.monotonic() + seconds
    return kernel._run(stub, stub, deadline, "code", None)


def test_an_answer_is_waited_for_and_nobody_elses_is_taken():
    ours = {"status": "ok"}
    stub = StubbornKernel(replies=[("other", {"status": "error"}), ("mine", ours)])
    assert ask(stub, 30) is ours
    assert stub.options["allow_stdin"] is False


def test_silence_ends_in_a_timeout_and_death_at_once():
    with pytest.raises(TimeoutError):
        ask(StubbornKernel())
    with pytest.raises(ChildProcessError):
        ask(StubbornKernel(alive=False), 1e9)
    leaving = {"status": "ok", "payload": [{"source": "ask_exit"}]}
    with pytest.raises(ChildProcessError):
        ask(StubbornKernel(replies=[("mine", leaving)]), 1e9)


def test_kernels_wait_patiently_unless_the_user_wants_otherwise(monkeypatch):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    assert kernel.environment()["OMP_WAIT_POLICY"] == "PASSIVE"
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    assert kernel.environment()["OMP_WAIT_POLICY"] == "ACTIVE"
