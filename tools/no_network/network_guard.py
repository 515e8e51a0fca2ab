"""Refuse every connection that would leave this machine, in this Python process."""

import ipaddress
import socket
import sys


class NetworkRefused(RuntimeError):
    """Something wanted to reach beyond this machine where that is forbidden."""


def is_local(host) -> bool:
    """Tell whether ``host`` is this machine: a loopback or unspecified address, or no host."""
    if not isinstance(host, str) or host in ("", "localhost", socket.gethostname()):
        return True
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def refuse(event: str, arguments: tuple) -> None:
    """Audit hook (PEP 578): raise :class:`NetworkRefused` before a packet is sent."""
    if event in ("socket.connect", "socket.sendto"):
        address = arguments[1]
        host = address[0] if isinstance(address, tuple) else None
    elif event == "socket.getaddrinfo":
        host = arguments[0]
    else:
        return
    host = host.decode() if isinstance(host, bytes) else host
    if not is_local(host):
        raise NetworkRefused(f"{event} to {host}: nothing here may use the network")


def install() -> None:
    """Refuse from now on, until the process ends."""
    sys.addaudithook(refuse)
