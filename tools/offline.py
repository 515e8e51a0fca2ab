"""Run a command that cannot reach the network: ``python tools/offline.py COMMAND …``.

On Linux the command gets a network namespace of its own, with the loopback interface up
(Jupyter's kernels talk over 127.0.0.1) and no other. Where the machine forbids that, every
Python process below refuses such connections itself. The first line printed says which.
"""

import ctypes
import os
import socket
import struct
import subprocess
import sys
from pathlib import Path

GUARD = Path(__file__).resolve().parent / "no_network"
NOWHERE = "http://127.0.0.1:9"  # the discard port: nobody answers
CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
SIOCSIFFLAGS, IFF_UP = 0x8914, 0x1


def isolate() -> None:
    """Move this process into a network namespace that holds the loopback interface only.

    Raises
    ------
    OSError
        When the machine does not allow it; the process may then be half-way in.
    """
    user, group = os.getuid(), os.getgid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET) != 0:  # enough for root
        if libc.unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "unshare refused a network namespace")
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    _raise_loopback()


def _raise_loopback():
    import fcntl

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", IFF_UP))


def can_isolate() -> bool:
    """Tell whether :func:`isolate` works here, by trying it in a child process."""
    if sys.platform != "linux":
        return False
    child = os.fork()
    if child == 0:
        try:
            isolate()
        except OSError:
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1] == 0


def environment(isolated: bool) -> dict[str, str]:
    """Return this process's environment with proxies that lead nowhere and hubs turned off."""
    proxies = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), NOWHERE)
    result = os.environ | proxies | {"no_proxy": "localhost,127.0.0.1", "HF_HUB_OFFLINE": "1"}
    result["LIGHTCOURSE_OFFLINE"] = "namespace" if isolated else "sockets"
    if not isolated:
        paths = [str(GUARD), os.environ.get("PYTHONPATH", "")]
        result["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    return result


def main(command: list[str]) -> int:
    """Run ``command`` and return its exit status."""
    isolated = can_isolate()
    if isolated:
        isolate()
        print("offline: a network namespace with nothing but loopback", flush=True)
    else:
        print("offline: no network namespace allowed here, Python refuses sockets", flush=True)
    return subprocess.call(command, env=environment(isolated))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
