"""The test run is offline: twice over, by namespace where possible, and by refused sockets."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tools import offline
from tools.no_network import network_guard

BEYOND = ("192.0.2.1", 80)  # TEST-NET-1 (RFC 5737): belongs to nobody
REFUSED = "nothing here may use the network"
TRY = f"""
import socket
with socket.create_server(("127.0.0.1", 0)) as server:
    socket.create_connection(server.getsockname()).close()
    print("loopback works")
try:
    socket.create_connection({BEYOND}, timeout=5)
except (OSError, RuntimeError) as error:
    print(type(error).__name__)
"""


def said_inside(environment, *wrapper):
    command = [sys.executable, *wrapper, "-c", TRY]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return run.stdout.splitlines()


def unguarded():
    """The environment without the guard that a fallback run may have put on PYTHONPATH."""
    return {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}


@pytest.mark.skipif(not offline.can_isolate(), reason="this machine allows no network namespace")
def test_a_namespace_has_loopback_and_nothing_else():
    first, *rest = said_inside(unguarded(), offline.__file__, sys.executable)
    assert first.startswith("offline: a network namespace")
    assert rest == ["loopback works", "OSError"]


def test_without_a_namespace_child_processes_refuse_sockets():
    assert said_inside(offline.environment(isolated=False)) == ["loopback works", "NetworkRefused"]


def test_the_environment_points_proxies_nowhere_and_keeps_the_rest():
    got = offline.environment(isolated=True)
    assert got["https_proxy"].startswith("http://127.0.0.1")
    assert got["HF_HUB_OFFLINE"] == "1"
    assert got["PATH"] == os.environ["PATH"]


def test_exit_status_is_the_commands_own():
    run = subprocess.run([sys.executable, offline.__file__, sys.executable, "-c", "exit(7)"])
    assert run.returncode == 7


def test_this_very_run_refuses_to_connect():
    with pytest.raises(RuntimeError, match=REFUSED):
        socket.create_connection(BEYOND, timeout=5)


def test_this_very_run_refuses_to_send_and_to_look_up_names():
    with socket.socket(type=socket.SOCK_DGRAM) as udp, pytest.raises(RuntimeError, match=REFUSED):
        udp.sendto(b"x", BEYOND)
    with pytest.raises(RuntimeError, match=REFUSED):
        socket.getaddrinfo("example.org", 80)


@pytest.mark.skipif(
    os.environ.get("LIGHTCOURSE_OFFLINE") != "namespace",
    reason="not run by make test in a namespace",
)
def test_this_very_run_has_no_interface_but_loopback():
    lines = Path("/proc/net/dev").read_text().splitlines()[2:]
    assert [line.partition(":")[0].strip() for line in lines] == ["lo"]


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.8.8.8", "::1", "localhost", "", "0.0.0.0", None, socket.gethostname()],
)
def test_this_machine_is_local(host):
    assert network_guard.is_local(host)


@pytest.mark.parametrize(
    "host", ["8.8.8.8", "10.0.0.1", "fe80::1%eth0", "pypi.org", "localhost.org"]
)
def test_others_are_not(host):
    assert not network_guard.is_local(host)
