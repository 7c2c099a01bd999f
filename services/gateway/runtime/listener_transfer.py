"""Transfer of listening sockets between HAProxy and Sluice.

The protocol is HAProxy's own (src/cli.c and src/sock.c of 3.0). After the request `_getsocks` HAProxy sends the number of
sockets, then the sockets, at most 252 per message. Each socket comes with six bytes, which are zeros if it has neither
namespace nor interface. The receiver acknowledges a full message.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

CAPABILITY_VARIABLE = "SLUICE_TAKES_KEPT"
"""Environment variable of a gateway that looks at `kept.sock`.

An older gateway could not listen while the sockets are retained.
"""
ANSWER_TIMEOUT = 1.0
"""Seconds to wait for an answer, as HAProxy does."""
Bind = tuple[str, int]
"""Address and port."""
_REQUEST = b"_getsocks\n"
_MAX_PER_MESSAGE = 252
_SOCKET_METADATA = bytes(6)
_NUMBER = struct.Struct("=i")


def receive_listeners(admin: Path) -> list[socket.socket]:
    """Return copies of all sockets on which the HAProxy behind `admin` listens. Raises OSError."""
    with connect(admin, _REQUEST) as connection, ExitStack() as undone:
        number = connection.recv(_NUMBER.size, socket.MSG_WAITALL)
        if 0 < len(number) < _NUMBER.size:
            raise ConnectionError("HAProxy closed the connection within its answer")
        received: list[socket.socket] = []
        while number and len(received) < _NUMBER.unpack(number)[0]:
            # Not recv_fds: it ignores its flags (Python 3.11 to 3.13), and child processes would inherit the sockets.
            space = socket.CMSG_SPACE(_MAX_PER_MESSAGE * _NUMBER.size)
            _, rights, _, _ = connection.recvmsg(65536, space, socket.MSG_CMSG_CLOEXEC)
            descriptors = [each for _, _, data in rights for (each,) in _NUMBER.iter_unpack(data)]
            if not descriptors:
                raise ConnectionError("HAProxy sent fewer sockets than it announced")
            received += [undone.enter_context(socket.socket(fileno=each)) for each in descriptors]
            if len(descriptors) == _MAX_PER_MESSAGE:
                connection.sendall(_NUMBER.pack(len(received)))
        undone.pop_all()
        return received


def send_listeners(connection: socket.socket, sockets: Sequence[socket.socket]) -> None:
    """Send the sockets to the HAProxy that requests them on `connection`. Raises OSError."""
    connection.settimeout(ANSWER_TIMEOUT)
    if connection.recv(len(_REQUEST)) != _REQUEST:
        return
    connection.sendall(_NUMBER.pack(len(sockets)))
    for first in range(0, len(sockets), _MAX_PER_MESSAGE):
        part = [each.fileno() for each in sockets[first : first + _MAX_PER_MESSAGE]]
        socket.send_fds(connection, [_SOCKET_METADATA * len(part)], part)
        connection.recv(_NUMBER.size)


def connect(path: Path, line: bytes = b"") -> socket.socket:
    """Connect to one of HAProxy's sockets and send one line. Raises OSError."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(ANSWER_TIMEOUT)
        connection.connect(str(path))
        connection.sendall(line)
    except OSError:
        connection.close()
        raise
    return connection


def takes_over_listeners(master: Path) -> bool:
    """Return whether the present gateway would take over the sockets.

    Raises OSError if the gateway does not say.
    """
    with connect(master, f"@1 show env {CAPABILITY_VARIABLE}\n".encode()) as connection:
        answer = connection.recv(4096)
    if f"{CAPABILITY_VARIABLE}=".encode() in answer:
        return True
    if b"not found" in answer:
        return False
    raise ConnectionError("HAProxy has no worker that could answer")


def bind_of(listening: socket.socket) -> Bind:
    """Return address and port; `("", 0)` for a socket with a path.

    HAProxy creates a socket with a path again by itself, and no client of the gateway connects to it.
    """
    if listening.family != socket.AF_INET:
        return "", 0
    address, port = listening.getsockname()
    return address, port
