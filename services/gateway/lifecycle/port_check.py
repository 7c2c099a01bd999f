"""Test of the ports on which the gateway is about to listen.

A reload that cannot bind a port stops all frontends for 2 s.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable

_REASONS = {errno.EADDRINUSE: "is in use on this machine", errno.EADDRNOTAVAIL: "is not on this machine"}


def ports_in_use(binds: Iterable[tuple[str, int]]) -> dict[tuple[str, int], str]:
    """Return the addresses and ports that cannot be bound, each with the reason in words."""
    return {bind: reason for bind in binds if (reason := _probe_port(*bind))}


def _probe_port(address: str, port: int) -> str:
    # HAProxy binds in the same way with `noreuseport`.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            reason = _REASONS.get(error.errno or 0)
            return f"{address}:{port} {reason}" if reason else ""
    return ""
