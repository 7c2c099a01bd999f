"""The TCP sockets that this process listens on."""

from __future__ import annotations

import socket


def bind_tcp(address: str, port: int) -> socket.socket:
    """A socket for this address and port, not listening yet. Raises OSError when they cannot be had.

    It says that it is TCP's, and so does each connection that it accepts: asyncio switches Nagle's algorithm off only for
    those. With it the end of an answer on a kept connection waits until the client has acknowledged its beginning: 40 ms.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((address, port))
    except OSError:
        made.close()
        raise
    return made
