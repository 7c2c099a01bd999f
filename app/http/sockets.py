"""The TCP sockets that this process listens on."""

from __future__ import annotations

import socket


def bind_tcp(address: str, port: int) -> socket.socket:
    """Return a bound TCP socket that is not listening yet.

    Raises OSError if the address or the port is not available.

    The socket names TCP as its protocol, and each accepted connection inherits that: asyncio disables Nagle's algorithm
    only for those. With Nagle's algorithm the end of a response on a kept-alive connection waits for the client's
    acknowledgement of its beginning: 40 ms.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
    except OSError:
        listener.close()
        raise
    return listener
