"""A learner's process from outside: what the watch and the line between them take."""

import json
import socket
import time
from types import SimpleNamespace

import psutil
import pytest

from lightcourse.classroom import inside, isolation, process
from lightcourse.classroom.isolation import Limits


@pytest.fixture
def line():
    """Both ends of a line: what asks, and the socket of what should answer."""
    ours, theirs = socket.socketpair()
    ours.settimeout(0.01)
    with ours, theirs:
        theirs.settimeout(5)
        talk = process._Talk(psutil.Process(), ours, Limits(seconds=30))
        yield SimpleNamespace(talk=talk, theirs=theirs)


def test_a_message_is_answered_by_a_line(line):
    line.theirs.sendall(b'{"done": true}\n{"answer": "x"}\n')
    assert line.talk.ask({"run": "1"}) == {"done": True}
    assert line.talk.ask({"run": "2"}) == {"answer": "x"}
    assert line.theirs.recv(100) == b'{"run": "1"}\n{"run": "2"}\n'


@pytest.mark.parametrize("sent", [b"", b"[1]", b"7", b"\xff", b"[" * 10**5, b'{"a": {"b": 1}}'])
def test_nonsense_is_an_empty_reply(sent, line):
    line.theirs.sendall(sent + b"\n")
    assert line.talk.ask({}) == {}


def test_silence_ends_in_time_and_death_at_once(line):
    line.talk.end = time.monotonic() + 0.05
    with pytest.raises(ChildProcessError, match="time limit of 30 s"):
        line.talk.ask({})
    line.talk.end = time.monotonic() + 30
    line.theirs.close()
    with pytest.raises(ChildProcessError, match="process ended"):
        line.talk.ask({})


def test_who_does_not_read_is_not_waited_for(line):
    line.talk.end = time.monotonic() + 0.3
    with pytest.raises(ChildProcessError, match="time limit"):
        line.talk.ask({"run": "x" * 10**7})


@pytest.mark.parametrize(
    ("limits", "said"),
    [({"memory": 1}, "MiB of memory"), ({"processes": 0}, "more than 0 processes")],
)
def test_what_takes_too_much_is_told(limits, said, line):
    line.talk.limits, line.talk.looked = Limits(30, **limits), 0
    with pytest.raises(ChildProcessError, match=said):
        line.talk.ask({})


def test_the_grader_is_what_checks_in_a_notebook_ask():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b'{"judged": true}\n')
        channel = inside.Channel(str(ours.detach()))
        checks = inside.stand_in(channel)
        assert checks.check_anything(len) is True
        assert json.loads(theirs.recv(100)) == {"check": "check_anything"}
        with pytest.raises(AttributeError, match="no EXERCISES"):
            _ = checks.EXERCISES
        channel.lines.close()
        channel.socket.close()


def test_a_process_that_does_not_start_is_nobodys_failure(monkeypatch):
    monkeypatch.setattr(isolation, "command", lambda *_: [isolation.sys.executable, "-c", ""])
    with pytest.raises(RuntimeError, match="did not start"), process.started("plain", Limits()):
        pass


def test_a_class_gets_nothing_of_the_teachers_environment(monkeypatch):
    monkeypatch.setenv("SECRET", "x")
    assert isolation.environment("plain", own=True)["SECRET"] == "x"
    for layer in isolation.SAID:
        assert "SECRET" not in isolation.environment(layer, own=False)


def test_orphans_of_a_plain_process_end_with_it(tmp_path):
    code = (
        "import os, time\nif os.fork() == 0:\n    os.setsid()\n    if os.fork():\n"
        "        os._exit(0)\n    time.sleep(99)\n    os._exit(0)\nos.wait()"
    )
    before = set(psutil.Process().children(recursive=True))
    with process.started("plain", Limits(seconds=30), tmp_path) as ask:
        assert ask({"run": code}) == {"done": True}
        assert len(set(psutil.Process().children(recursive=True)) - before) == 2
    assert set(psutil.Process().children(recursive=True)) - before == set()
